//! Bytes to UPDATEs through an Established session. Bar: 1 M one-prefix UPDATEs/s.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "criterion's macros; a bench that cannot run must say so"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::config::{PeerConfig, PeerKind, Policy};
use bgp::session::negotiate::local_open;
use bgp::session::{ConnectionId, Local, Peer, SessionEvent, State};
use bgp::types::{Asn, Family, RouterId};
use bgp::wire::attribute::{AsPath, Attributes, Origin, Segment, SegmentKind};
use bgp::wire::encode::{self, UpdateWriter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};

fn local(asn: u32) -> Local {
    let [.., last] = asn.to_be_bytes();
    let router_id = RouterId(Ipv4Addr::new(10, 0, 0, last));
    Local { asn: Asn(asn), router_id, hostname: String::new() }
}

fn config(asn: u32) -> PeerConfig {
    PeerConfig {
        connect_retry: Duration::from_secs(5),
        passive: true,
        import: Policy::All,
        export: Policy::All,
        graceful_restart: None,
        ..PeerConfig::new("peer".to_owned(), PeerKind::Tor, IpAddr::from([192, 0, 2, 1]), Asn(asn))
    }
}

fn established(now: Instant) -> (Peer, ConnectionId) {
    let mut peer = Peer::new(now, 1, local(65001), config(65010), 1);
    peer.start(now);
    let conn = peer.accept(now, SocketAddr::from(([192, 0, 2, 2], 179))).expect("accepted");
    let mut bytes = Vec::new();
    encode::open(&local_open(&local(65010), &config(65001), false), &mut bytes);
    encode::keepalive(&mut bytes);
    peer.receive(now, conn, &bytes, &mut |_| {});
    assert_eq!(peer.state(), State::Established);
    (peer, conn)
}

/// One UPDATE for each of `count` prefixes.
fn stream(peer: &Peer, count: u32) -> Vec<u8> {
    let segment = Segment {
        kind: SegmentKind::Sequence,
        asns: [65010, 65020, 4_200_000_000].into_iter().map(Asn).collect(),
    };
    let attributes = Attributes {
        origin: Origin::Igp,
        as_path: AsPath { segments: [segment].into_iter().collect() },
        next_hop: Ipv4Addr::new(192, 0, 2, 1).into(),
        med: None,
        local_pref: None,
        originator_id: None,
        cluster_list: [].into_iter().collect(),
        extra: None,
    };
    let negotiated = peer.negotiated().expect("negotiated");
    let mut bytes = Vec::new();
    for i in 0..count {
        let address = Ipv4Addr::from_bits((10 << 24) | (i << 8));
        let prefix = IpNet::V4(Ipv4Net::new_assert(address, 24));
        let context = &negotiated.receive;
        let mut writer = UpdateWriter::announce(
            &mut bytes,
            context,
            Family::Ipv4,
            attributes.next_hop,
            &attributes,
        )
        .expect("fits");
        assert!(writer.push(None, prefix));
        writer.finish();
    }
    bytes
}

fn receive(c: &mut Criterion) {
    const UPDATES: u32 = 10_000;
    let now = Instant::now();
    let (mut peer, conn) = established(now);
    let bytes = stream(&peer, UPDATES);
    let mut group = c.benchmark_group("session/receive one-prefix UPDATEs");
    group.throughput(Throughput::Elements(UPDATES.into()));
    for chunk in [65_536, 1460, 100] {
        group.bench_function(format!("{chunk} octets a read"), |b| {
            b.iter(|| {
                let mut updates = 0;
                for chunk in bytes.chunks(chunk) {
                    peer.receive(now, conn, chunk, &mut |event| {
                        updates += u32::from(matches!(black_box(event), SessionEvent::Update(_)));
                    });
                }
                assert_eq!(updates, UPDATES);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, receive);
criterion_main!(benches);
