//! The RIB and the speaker without sockets.
//!
//! | bench | bar |
//! |---|---|
//! | `best_path` | 1 M paths decided in <= 0.1 s |
//! | `flush` | 1 M prefixes, 100 k attribute sets: decided, packed, encoded in <= 0.3 s |
//! | `in_out` | the same as bytes in, bytes out, through a speaker: <= 0.6 s, <= 110 octets a prefix |
//! | `churn` | one-prefix UPDATEs with fresh attributes: >= 1 M/s |
//! | `reflect` | 1000 clients, a prefix each, to all: <= 0.25 s with the sockets, which are not here |
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "criterion's macros; a bench needs a clock and says when it cannot run"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::config::{Config, PeerConfig, PeerKind, Policy};
use bgp::rib::{Candidate, decide};
use bgp::session::Local;
use bgp::session::negotiate::local_open;
use bgp::speaker::{ConnectionId, Output, Speaker};
use bgp::types::{Asn, Families, Family, RouterId};
use bgp::wire::attribute::{AsPath, Attributes, Origin, Segment, SegmentKind};
use bgp::wire::encode::{self, UpdateWriter};
use bgp::wire::{Context, HEADER_LEN};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};

const OUR_ASN: u32 = 64512;
const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0000 + n)
}

fn peer(n: u32, asn: u32, client: bool) -> PeerConfig {
    PeerConfig {
        connect_retry: Duration::from_secs(5),
        passive: true,
        route_reflector_client: client,
        import: Policy::All,
        export: Policy::All,
        graceful_restart: None,
        ..PeerConfig::new(format!("p{n}"), PeerKind::Mesh, address(n).into(), Asn(asn))
    }
}

fn context(external: bool, asn: u32) -> Context {
    Context {
        four_octet_as: true,
        families: Families::ALL,
        external,
        peer_asn: Asn(asn),
        ..Context::OPENING
    }
}

/// A speaker with established sessions.
struct Bench {
    speaker: Speaker,
    now: Instant,
    conns: Vec<ConnectionId>,
    out: Vec<Bytes>,
}

impl Bench {
    fn new(peers: Vec<PeerConfig>) -> Self {
        let now = Instant::now();
        let config = Config {
            asn: Asn(OUR_ASN),
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, 1)),
            cluster_id: Ipv4Addr::new(10, 0, 0, 1),
            hostname: String::new(),
            peers: peers.clone(),
        };
        let mut speaker = Speaker::new(now, config).without_fib();
        let mut conns = Vec::new();
        for peer in &peers {
            let remote = SocketAddr::new(peer.address, 40_000);
            let conn = speaker.accept(now, remote, SocketAddr::new(US, 179)).expect("wanted");
            let IpAddr::V4(id) = peer.address else { continue };
            let them = Local { asn: peer.asn, router_id: RouterId(id), hostname: String::new() };
            let us = PeerConfig { asn: Asn(OUR_ASN), ..peer.clone() };
            let mut bytes = Vec::new();
            encode::open(&local_open(&them, &us, false), &mut bytes);
            encode::keepalive(&mut bytes);
            speaker.receive(now, conn, &bytes);
            conns.push(conn);
        }
        assert_eq!(speaker.summary().peers_established, peers.len());
        let mut bench = Self { speaker, now, conns, out: Vec::new() };
        bench.turn();
        bench
    }

    /// A driver's turn with sockets that take everything; octets written.
    fn turn(&mut self) -> usize {
        self.speaker.flush(self.now);
        let mut written = 0;
        while let Some(output) = self.speaker.poll_output() {
            let Output::Transmit { conn } = output else { continue };
            loop {
                self.out.clear();
                self.speaker.transmit(self.now, conn, &mut self.out, 256 * 1024);
                if self.out.is_empty() {
                    break;
                }
                written += self.out.iter().map(Bytes::len).sum::<usize>();
            }
        }
        written
    }
}

fn attributes(path: &[u32], next_hop: Ipv4Addr, external: bool) -> Attributes {
    let segment =
        Segment { kind: SegmentKind::Sequence, asns: path.iter().copied().map(Asn).collect() };
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath { segments: path.iter().take(1).map(|_| segment.clone()).collect() },
        next_hop: next_hop.into(),
        med: None,
        local_pref: (!external).then_some(100),
        originator_id: None,
        cluster_list: [].into_iter().collect(),
        extra: None,
    }
}

fn prefix(n: u32) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(0x1000_0000 + (n << 8)), 24).into()
}

/// `count` prefixes, `share` of them with the same attributes, as an external peer sends them.
fn table(asn: u32, next_hop: Ipv4Addr, count: u32, share: u32) -> Vec<u8> {
    let context = context(true, asn);
    let mut out = Vec::new();
    for set in 0..count / share {
        let path = [asn, 1 + set / 60_000, 1 + set % 60_000];
        let attributes = attributes(&path, next_hop, true);
        let mut writer = UpdateWriter::announce(
            &mut out,
            &context,
            Family::Ipv4,
            attributes.next_hop,
            &attributes,
        )
        .expect("fits");
        for n in 0..share {
            // Scattered, as in a real table.
            writer.push(None, prefix(set + n * (count / share)));
        }
        writer.finish();
    }
    out
}

/// Resident octets of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

const MILLION: u32 = 1_000_000;
const READ: usize = 256 * 1024;

fn receive_all(bench: &mut Bench, conn: ConnectionId, bytes: &[u8]) -> usize {
    let mut written = 0;
    for chunk in bytes.chunks(READ) {
        bench.speaker.receive(bench.now, conn, chunk);
        written += bench.turn();
    }
    written
}

fn in_out(c: &mut Criterion) {
    let peers = vec![peer(1, 65001, false), peer(2, 65002, false)];
    let bytes = table(65001, address(1), MILLION, 10);
    let before = resident();
    let mut bench = Bench::new(peers.clone());
    let conn = bench.conns[0];
    assert!(receive_all(&mut bench, conn, &bytes) > bytes.len() / 2);
    let summary = bench.speaker.summary();
    assert_eq!(summary.prefixes, 1_000_000);
    let octets = (resident() - before) / 1_000_000;
    eprintln!("in_out: {octets} octets a prefix, {} attribute sets", summary.attribute_sets);
    drop(bench);

    let mut group = c.benchmark_group("in_out");
    group.sample_size(10).throughput(Throughput::Elements(MILLION.into()));
    group.bench_function("1M", |b| {
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let mut bench = Bench::new(peers.clone());
                let conn = bench.conns[0];
                let start = Instant::now();
                black_box(receive_all(&mut bench, conn, &bytes));
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
    group.finish();
}

fn flush(c: &mut Criterion) {
    let peers = vec![peer(1, 65001, false), peer(2, 65002, false)];
    let bytes = table(65001, address(1), MILLION, 10);
    let mut group = c.benchmark_group("flush");
    group.sample_size(10).throughput(Throughput::Elements(MILLION.into()));
    group.bench_function("1M", |b| {
        b.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let mut bench = Bench::new(peers.clone());
                bench.speaker.receive(bench.now, bench.conns[0], &bytes);
                let start = Instant::now();
                bench.speaker.flush(bench.now);
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
    group.finish();
}

fn churn(c: &mut Criterion) {
    const PREFIXES: u32 = 10_000;
    const WINDOW: usize = 2000;
    let peers = vec![peer(1, 65001, false), peer(2, 65002, false)];
    // A million UPDATEs, none with the attributes of another.
    let bytes = {
        let context = context(true, 65001);
        let mut out = Vec::new();
        for n in 0..MILLION {
            let attributes = attributes(&[65001, 1 + n / 60_000, 1 + n % 60_000], address(1), true);
            let mut writer = UpdateWriter::announce(
                &mut out,
                &context,
                Family::Ipv4,
                attributes.next_hop,
                &attributes,
            )
            .expect("fits");
            writer.push(None, prefix(n % PREFIXES));
            writer.finish();
        }
        out
    };
    let one = bytes.len() / usize::try_from(MILLION).expect("64 bit");
    assert!(one > HEADER_LEN);
    let mut bench = Bench::new(peers);
    let mut group = c.benchmark_group("churn");
    group.sample_size(10).throughput(Throughput::Elements(MILLION.into()));
    group.bench_function("1M_updates", |b| {
        b.iter(|| {
            let mut written = 0;
            for chunk in bytes.chunks(one * WINDOW) {
                bench.speaker.receive(bench.now, bench.conns[0], chunk);
                written += bench.turn();
            }
            written
        });
    });
    group.finish();
}

fn reflect(c: &mut Criterion) {
    let peers: Vec<PeerConfig> = (1..=1000).map(|n| peer(n, OUR_ASN, true)).collect();
    let context = context(false, OUR_ASN);
    let mut bench = Bench::new(peers);
    let updates: Vec<[Vec<u8>; 2]> = (0..1000)
        .map(|n| {
            let attributes = attributes(&[], address(n + 1), false);
            let mut announce = Vec::new();
            let mut writer = UpdateWriter::announce(
                &mut announce,
                &context,
                Family::Ipv4,
                attributes.next_hop,
                &attributes,
            )
            .expect("fits");
            writer.push(None, prefix(n));
            writer.finish();
            let mut withdraw = Vec::new();
            let mut writer = UpdateWriter::withdraw(&mut withdraw, &context, Family::Ipv4);
            writer.push(None, prefix(n));
            writer.finish();
            [announce, withdraw]
        })
        .collect();
    let mut group = c.benchmark_group("reflect");
    group.sample_size(10).throughput(Throughput::Elements(1000 * 999));
    // How many clients a turn hears decides how well the loop packs.
    for per_turn in [1, 16, 1000] {
        group.bench_function(format!("1000_clients_{per_turn}_per_turn"), |b| {
            b.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    let start = Instant::now();
                    let mut written = 0;
                    for clients in (0..1000).collect::<Vec<usize>>().chunks(per_turn) {
                        for n in clients {
                            bench.speaker.receive(bench.now, bench.conns[*n], &updates[*n][0]);
                        }
                        written += bench.turn();
                    }
                    elapsed += start.elapsed();
                    assert!(written > 1000 * 999 * 40 / 2);
                    for (conn, [_, withdraw]) in bench.conns.iter().zip(&updates) {
                        bench.speaker.receive(bench.now, *conn, withdraw);
                    }
                    bench.turn();
                }
                elapsed
            });
        });
    }
    group.finish();
}

fn best_path(c: &mut Criterion) {
    let candidate = |n: u32| Candidate {
        own: false,
        local_pref: 100,
        hops: 2 + n % 2,
        origin: Origin::Igp,
        neighbour: Some(Asn(65000 + n % 3)),
        med: n % 5,
        external: true,
        igp_cost: 0,
        router_id: address(n),
        cluster_list_len: 0,
        address: address(n).into(),
    };
    let candidates: Vec<Candidate> = (0..MILLION).map(candidate).collect();
    let mut group = c.benchmark_group("best_path");
    group.sample_size(10).throughput(Throughput::Elements(MILLION.into()));
    for paths in [2, 4, 16] {
        group.bench_function(format!("1M_paths_{paths}_per_prefix"), |b| {
            b.iter(|| {
                let decisions = candidates.chunks(paths).map(decide);
                decisions.flatten().map(|decision| decision.best).sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, in_out, flush, churn, reflect, best_path);
criterion_main!(benches);
