//! A peer that does not read costs nothing but its place.

use super::*;
use crate::types::Families;

fn nets(range: std::ops::Range<u32>) -> Vec<IpNet> {
    range
        .map(|n| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)).into(), 24).unwrap())
        .collect()
}

#[test]
fn a_peer_that_never_reads_makes_nothing_grow_and_is_right_afterwards() {
    let mut rib = Rib::new(identity(1));
    rib.limit_log(10_000);
    let source = Link::up(&mut rib, 1, Role::Client);
    let mut stuck = Link::up(&mut rib, 2, Role::Client);
    let mut reading = Link::up(&mut rib, 3, Role::Client);
    stuck.view(&mut rib);
    let nets = nets(0..1000);
    for round in 0..200u32 {
        let theirs = Attributes { med: Some(round), ..attributes(address(1)) };
        source.announce(&mut rib, &theirs, &nets[..500]);
        source.withdraw(&mut rib, &nets[500..]);
        source.announce(&mut rib, &theirs, &nets[500..]);
        reading.view(&mut rib);
        assert!(rib.log_bytes() <= 10_000);
        assert!(rib.slots() <= 1000 && rib.attribute_sets() <= 1);
        assert_eq!(rib.hopeless(), None);
    }
    source.withdraw(&mut rib, &nets[900..]);
    assert_eq!(stuck.view(&mut rib), reading.view(&mut rib));
    assert_eq!(stuck.receiver.view.len(), 900);
    // It was sent what is, not what was.
    assert!(stuck.receiver.announcements <= 1900);
}

#[test]
fn slots_of_withdrawn_prefixes_wait_only_for_those_who_must_be_told() {
    let mut rib = Rib::new(identity(1));
    rib.limit_log(1000);
    let source = Link::up(&mut rib, 1, Role::Client);
    let mut slow = Link::up(&mut rib, 2, Role::Client);
    slow.view(&mut rib);
    for start in (0..10_000).step_by(100) {
        let nets = nets(start..start + 100);
        source.announce(&mut rib, &attributes(address(1)), &nets);
        rib.flush();
        source.withdraw(&mut rib, &nets);
        rib.flush();
    }
    assert_eq!(rib.slots(), 10_000);
    assert!(slow.view(&mut rib).is_empty());
    let mut source = source;
    source.view(&mut rib);
    rib.flush();
    assert_eq!(rib.slots(), 0);
}

#[test]
fn a_peer_that_blocks_too_many_withdrawn_prefixes_is_named() {
    let mut rib = Rib::new(identity(1));
    rib.limit_log(1000);
    let mut source = Link::up(&mut rib, 1, Role::Client);
    let mut stuck = Link::up(&mut rib, 2, Role::Client);
    stuck.view(&mut rib);
    for start in (0..80_000).step_by(1000) {
        let nets = nets(start..start + 1000);
        source.announce(&mut rib, &attributes(address(1)), &nets);
        source.view(&mut rib);
        source.withdraw(&mut rib, &nets);
        source.view(&mut rib);
    }
    assert_eq!(rib.hopeless(), Some(stuck.index));
    rib.peer_down(stuck.index);
    rib.flush();
    assert_eq!((rib.hopeless(), rib.slots()), (None, 0));
}

#[test]
fn equal_peers_share_one_encoding() {
    let mut rib = Rib::new(identity(1));
    let mut links: Vec<Link> = (1..50).map(|n| Link::up(&mut rib, n, Role::Client)).collect();
    for link in &mut links {
        link.view(&mut rib);
        assert_eq!(link.receiver.end_of_rib, Families::ALL);
    }
    assert_eq!(rib.update_groups(), 1);
    links[0].announce(&mut rib, &attributes(address(1)), &nets(0..10));
    rib.flush();
    let mut addresses = Vec::new();
    for link in &links[1..] {
        let mut out = Vec::new();
        rib.transmit(link.index, &mut out, 1000);
        addresses.extend(out.iter().map(|chunk| chunk.as_ptr()));
    }
    assert_eq!(addresses.len(), 48);
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "the same octets for everybody");
    let handed = rib.transmit(links[0].index, &mut Vec::new(), 1000);
    assert_eq!(handed.bytes, 0, "the announcing peer needs no copy");
}

#[test]
fn everybody_is_told_once_that_there_is_something_to_send() {
    let mut rib = Rib::new(identity(1));
    let mut links = [1, 2].map(|n| Link::up(&mut rib, n, Role::Client));
    let mut ready = Vec::new();
    while let Some(peer) = rib.poll_ready() {
        ready.push(peer);
    }
    assert_eq!(ready, [links[0].index, links[1].index]);
    for link in &mut links {
        link.view(&mut rib);
    }
    assert_eq!(rib.poll_ready(), None);
    for n in 0..3 {
        links[0].announce(&mut rib, &attributes(address(1)), &nets(n..n + 1));
        rib.flush();
    }
    assert_eq!(rib.poll_ready(), Some(links[0].index));
    assert_eq!(rib.poll_ready(), Some(links[1].index));
    assert_eq!(rib.poll_ready(), None);
    links[1].view(&mut rib);
    links[0].announce(&mut rib, &attributes(address(1)), &nets(9..10));
    rib.flush();
    assert_eq!(rib.poll_ready(), Some(links[1].index));
    assert_eq!(rib.poll_ready(), None);
}
