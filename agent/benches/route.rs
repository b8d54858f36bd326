//! Routes into the kernel through the whole writer, to the last acknowledgement, and out again.
//!
//! Runs in a network namespace of its own; needs root. Also prints routes a second.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run must not")]

use std::net::IpAddr;
use std::process::Command;

use agent::kernel::route::{Options, RouteChange, Routes, Target, spawn};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::{Builder, Runtime};

/// What the driver hands over at a time.
const BATCH: usize = 1000;

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
}

fn namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for line in [
        "link add v0 type veth peer name v0p",
        "link set v0 up",
        "link set v0p up",
        "addr add 192.0.2.1/24 dev v0",
        "addr add fd00:a::1/64 dev v0 nodad",
    ] {
        ip(line);
    }
}

/// Prefixes 0.. of a family, each with one of `hops` next hops.
fn changes(v6: bool, count: u32, want: bool) -> Vec<Vec<RouteChange>> {
    let one = |i: u32| {
        let (net, hop): (IpNet, IpAddr) = if v6 {
            let [_, _, high, low] = i.to_be_bytes();
            let third = u16::from_be_bytes([high, low]);
            let second = u16::try_from(i >> 16).unwrap();
            let net = std::net::Ipv6Addr::new(0x2001, 0xdb8, second, third, 0, 0, 0, 0);
            (IpNet::new(net.into(), 64).unwrap(), "fd00:a::2".parse().unwrap())
        } else {
            let net = std::net::Ipv4Addr::from(0x1400_0000 + (i << 8));
            (IpNet::new(net.into(), 24).unwrap(), "192.0.2.2".parse().unwrap())
        };
        RouteChange { prefix: net, target: want.then(|| Target::NextHops(vec![hop])) }
    };
    let all: Vec<RouteChange> = (0..count).map(one).collect();
    all.chunks(BATCH).map(<[_]>::to_vec).collect()
}

fn apply(runtime: &Runtime, routes: &Routes, batches: Vec<Vec<RouteChange>>, left: usize) {
    runtime
        .block_on(async {
            for batch in batches {
                routes.apply(batch).await.unwrap();
            }
            routes.wait_for(|s| s.installed == left && s.desired == left && s.queued == 0).await
        })
        .unwrap();
}

fn bench(criterion: &mut Criterion) {
    namespace();
    let runtime = Builder::new_current_thread().build().unwrap();
    let (routes, _events, _thread) = spawn(Options::default()).unwrap();
    runtime.block_on(routes.in_sync()).unwrap();
    let mut group = criterion.benchmark_group("route");
    group.sample_size(10);
    for (family, v6) in [("ipv4", false), ("ipv6", true)] {
        for count in [10_000_u32, 100_000] {
            let all = usize::try_from(count).unwrap();
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function(format!("add/{family}/{count}"), |b| {
                b.iter_batched(
                    || {
                        apply(&runtime, &routes, changes(v6, count, false), 0);
                        changes(v6, count, true)
                    },
                    |batches| apply(&runtime, &routes, batches, all),
                    BatchSize::PerIteration,
                );
            });
            group.bench_function(format!("remove/{family}/{count}"), |b| {
                b.iter_batched(
                    || {
                        apply(&runtime, &routes, changes(v6, count, true), all);
                        changes(v6, count, false)
                    },
                    |batches| apply(&runtime, &routes, batches, 0),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
