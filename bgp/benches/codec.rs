//! Decode and encode of UPDATEs. Bars: 100 M prefixes/s in big messages, 300 ns for a small one.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "criterion's macros; a bench that cannot run must say so"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, Families, Family};
use bgp::wire::attribute::{AsPath, Attributes, Extra, Origin, Segment, SegmentKind};
use bgp::wire::encode::UpdateWriter;
use bgp::wire::{Context, Message, decode, frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

fn context() -> Context {
    Context {
        four_octet_as: true,
        families: Families::ALL,
        peer_asn: Asn(65001),
        ..Context::OPENING
    }
}

/// ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF, COMMUNITIES: what a ToR's route looks like inside.
fn attributes() -> Attributes {
    let asns = [65010, 65020, 4_200_000_000].into_iter().map(Asn).collect();
    let segment = Segment { kind: SegmentKind::Sequence, asns };
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath { segments: [segment].into_iter().collect() },
        next_hop: Ipv4Addr::new(192, 0, 2, 1).into(),
        med: None,
        local_pref: Some(100),
        originator_id: None,
        cluster_list: [].into_iter().collect(),
        extra: Some(Box::new(Extra { communities: vec![0xfde8_0001], ..Extra::default() })),
    }
}

fn prefixes(family: Family, count: u32) -> Vec<IpNet> {
    // /26 and /64 blocks as nodes own them, a few other lengths between.
    (0..count)
        .map(|i| match family {
            Family::Ipv4 => {
                let bits = if i.is_multiple_of(7) { 24 } else { 26 };
                let address = Ipv4Addr::from_bits((10 << 24) | (i << 8));
                IpNet::V4(Ipv4Net::new_assert(address, bits))
            }
            Family::Ipv6 => {
                let address = (0xfd00_u128 << 112) | (u128::from(i) << 64);
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(address), 64))
            }
        })
        .collect()
}

fn next_hop(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn encode(out: &mut Vec<u8>, context: &Context, attributes: &Attributes, prefixes: &[IpNet]) {
    let family = prefixes.first().map_or(Family::Ipv4, Family::of);
    let mut writer = UpdateWriter::announce(out, context, family, next_hop(family), attributes)
        .expect("attributes fit");
    for prefix in prefixes {
        writer.push(None, *prefix);
    }
    writer.finish();
}

/// Decodes every message and visits every prefix, as the RIB does.
fn drain(mut bytes: &[u8], context: &Context) -> usize {
    let mut seen = 0;
    while let Ok(Some((_, len))) = frame(bytes, context.max_len()) {
        let (message, rest) = bytes.split_at(len);
        if let Ok(Message::Update(update)) = decode(message, context) {
            for (nlri, _) in update.announced.iter().flatten() {
                for prefix in nlri {
                    black_box(prefix);
                    seen += 1;
                }
            }
            black_box(&update.attributes);
        }
        bytes = rest;
    }
    seen
}

fn codec(c: &mut Criterion) {
    let (context, attributes) = (context(), attributes());
    let mut group = c.benchmark_group("decode");
    for family in Family::ALL {
        for count in [1, 10, 500] {
            let mut bytes = Vec::new();
            encode(&mut bytes, &context, &attributes, &prefixes(family, count));
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function(format!("{family}/{count}"), |b| {
                b.iter(|| drain(black_box(&bytes), &context));
            });
        }
    }
    group.finish();

    let mut group = c.benchmark_group("encode");
    for family in Family::ALL {
        for count in [1, 10, 500] {
            let prefixes = prefixes(family, count);
            let mut out = Vec::with_capacity(64 * 1024);
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function(format!("{family}/{count}"), |b| {
                b.iter(|| {
                    out.clear();
                    encode(&mut out, &context, &attributes, black_box(&prefixes));
                    out.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
