use super::*;

fn snapshot() -> Snapshot {
    let saved = |version, text: &str| Saved { version, record: Arc::from(text.as_bytes()) };
    Snapshot { version: 42, objects: vec![saved(7, r#"{"m":"a"}"#), saved(42, r#"{"m":"b c"}"#)] }
}

fn encoded(snapshot: &Snapshot) -> Vec<u8> {
    let mut octets = Vec::new();
    let size = encode(&mut octets, snapshot, "cluster", "Pod").unwrap();
    assert_eq!(size, octets.len() as u64);
    octets
}

#[test]
fn what_was_written_is_read_back() {
    for snapshot in [snapshot(), Snapshot { version: 0, objects: vec![] }] {
        assert_eq!(decode(&encoded(&snapshot), "cluster", "Pod").unwrap(), snapshot);
    }
}

#[test]
fn every_damaged_octet_and_every_missing_end_is_noticed() {
    let octets = encoded(&snapshot());
    for at in 0..octets.len() {
        for damage in [1_u8, 0x20, 0x80] {
            let mut damaged = octets.clone();
            damaged[at] ^= damage;
            assert!(decode(&damaged, "cluster", "Pod").is_err(), "octet {at}");
        }
        assert!(decode(&octets[..at], "cluster", "Pod").is_err(), "cut at {at}");
    }
}

#[test]
fn other_clusters_parts_and_versions_are_refused() {
    let octets = encoded(&snapshot());
    assert!(matches!(decode(&octets, "other", "Pod"), Err(Refused::OtherCluster)));
    assert!(matches!(decode(&octets, "cluster", "Node"), Err(Refused::Damaged(_))));
    for foreign in [&b""[..], b"{}", b"rampart-snapshot 2\n", b"rampart-snapshot 10\nsha256 \n"] {
        assert!(decode(foreign, "cluster", "Pod").is_err());
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_and_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("rampart-snapshot-{}", std::process::id()));
    let directory = Directory::new(path.clone(), "cluster".to_owned());
    assert!(directory.read("Pod").unwrap().is_none());
    let empty = Snapshot { version: 1, objects: vec![] };
    for snapshot in [snapshot(), empty] {
        directory.write("Pod", &snapshot).unwrap();
        assert_eq!(directory.read("Pod").unwrap().unwrap(), snapshot);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&directory.file("Pod"))), (0o700, 0o600));
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["Pod.snapshot"], "nothing unfinished is left");
    fs::remove_dir_all(path).unwrap();
}

proptest::proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(octets: Vec<u8>, cut: proptest::sample::Index) {
        decode(&octets, "cluster", "Pod").unwrap_err();
        // With everything right but the content.
        let mut forged = format!("{MAGIC}\n").into_bytes();
        forged.extend_from_slice(&octets);
        let whole = encoded(&snapshot());
        forged.extend_from_slice(&whole[cut.index(whole.len())..]);
        forged.push(b'\n');
        let trailer = format!("sha256 {}\n", hexadecimal(&Sha256::digest(&forged)));
        forged.extend_from_slice(trailer.as_bytes());
        drop(decode(&forged, "cluster", "Pod"));
    }
}
