//! What an event costs, from `handle` to the transaction for the kernel.

#![allow(clippy::expect_used, missing_docs, reason = "a bench fails by panicking")]

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use policy::Engine;
use policy::event::{Event, Kind, Object};
use policy::nft::transaction::Transaction;
use serde_json::{Value, json};

const KINDS: [Kind; 4] = [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy];

fn pod(namespace: &str, name: &str, app: &str, node: &str, host: u32) -> Event {
    let [_, a, b, c] = host.to_be_bytes();
    let value = json!({
        "metadata": {"namespace": namespace, "name": name, "labels": {
            "app": app, "version": "1", "pod-template-hash": "5d4f8c7b9",
        }},
        "spec": {"nodeName": node, "containers": [
            {"name": "main", "ports": [{"name": "http", "containerPort": 8080}]},
        ]},
        "status": {"phase": "Running", "podIPs": [
            {"ip": format!("10.{a}.{b}.{c}")}, {"ip": format!("fd00::{a:x}:{b:x}:{c:x}")},
        ]},
    });
    Event::Apply(Object::Pod(Box::new(serde_json::from_value(value).expect("pod"))))
}

fn policy(name: &str, spec: Value) -> Event {
    let value = json!({"metadata": {"namespace": "app", "name": name}, "spec": spec});
    Event::Apply(Object::NetworkPolicy(Box::new(serde_json::from_value(value).expect("policy"))))
}

/// Ingress to all pods of `app` from the peers, on one port.
fn peers_policy(port: u16) -> Event {
    policy(
        "peers",
        json!({
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "peer"}}}],
                "ports": [{"port": port}],
            }],
            "egress": [{
                "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
                "ports": [{"port": 443}],
            }],
        }),
    )
}

/// All there is at the start: local pods, peers elsewhere, policies.
fn cluster(local: u32, peers: u32, policies: u32) -> Vec<Event> {
    let node = json!({
        "metadata": {"name": "n1"},
        "spec": {"podCIDRs": ["10.1.0.0/16", "fd00::1:0:0/96"]},
    });
    let mut events =
        vec![Event::Apply(Object::Node(Box::new(serde_json::from_value(node).expect("node"))))];
    for name in ["app", "peers"] {
        let value = json!({"metadata": {"name": name}});
        let namespace = serde_json::from_value(value).expect("namespace");
        events.push(Event::Apply(Object::Namespace(Box::new(namespace))));
    }
    events.extend((0..local).map(|i| pod("app", &format!("local-{i}"), "web", "n1", 0x1_0000 + i)));
    events
        .extend((0..peers).map(|i| pod("peers", &format!("peer-{i}"), "peer", "n2", 0x2_0000 + i)));
    events.push(peers_policy(8080));
    for i in 0..policies {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": format!("client-{i}")}}}],
                "ports": [{"port": 1000 + i}],
            }],
        });
        events.push(policy(&format!("policy-{i}"), spec));
    }
    events
}

fn started(events: Vec<Event>) -> (Engine, Transaction) {
    let mut engine = Engine::new("n1");
    for kind in KINDS {
        engine.handle(Event::RelistBegin(kind));
    }
    for event in events {
        engine.handle(event);
    }
    for kind in KINDS {
        engine.handle(Event::RelistEnd(kind));
    }
    let transaction = engine.poll_transaction().expect("a table");
    (engine, transaction)
}

fn programmed(events: Vec<Event>) -> Engine {
    let (mut engine, transaction) = started(events);
    engine.acknowledge(transaction.id, Ok(()));
    engine
}

fn take(engine: &mut Engine, event: Event) -> Transaction {
    engine.handle(event);
    let transaction = engine.poll_transaction().expect("a change");
    engine.acknowledge(transaction.id, Ok(()));
    transaction
}

/// Takes the two events in turn; both are changes.
fn alternate(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: String,
    cluster: Vec<Event>,
    events: [Event; 2],
) {
    let mut engine = programmed(cluster);
    // The closure runs several times, each of any length: the turn goes on from one to the next.
    let mut turn = events.iter().cycle();
    group.bench_function(name, |bench| {
        bench.iter_batched(
            || turn.next().expect("cycle").clone(),
            |event| take(&mut engine, event),
            BatchSize::PerIteration,
        );
    });
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event to transaction");
    group.throughput(Throughput::Elements(1));
    for policies in [0, 1000] {
        let peer = |app| pod("peers", "peer-new", app, "n2", 0x7_0000);
        let name =
            format!("pod joins or leaves a selector of 10k, 100 local pods, {policies} policies");
        let events = [peer("peer"), peer("other")];
        alternate(&mut group, name, cluster(100, 10_000, policies), events);
    }
    for policies in [0, 100] {
        let new = |node| pod("app", "new", "web", node, 0x1_8000);
        let name = format!("pod added or removed beside 500, {policies} policies on it");
        alternate(&mut group, name, cluster(500, 10_000, policies), [new("n1"), new("n2")]);
    }
    group.throughput(Throughput::Elements(200));
    for (peers, policies) in [(100, 0), (10_000, 0), (100, 100)] {
        let name =
            format!("policy changed at 200 local pods, {peers} peers, {policies} other policies");
        let events = [peers_policy(9090), peers_policy(8080)];
        alternate(&mut group, name, cluster(200, peers, policies), events);
    }
    group.finish();
}

fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("start");
    group.sample_size(10);
    for policies in [0, 1000] {
        let events = cluster(500, 10_000, policies);
        group.throughput(Throughput::Elements(10_500));
        group.bench_function(
            format!("500 local pods, 10k peers, {policies} policies: first transaction"),
            |bench| {
                bench.iter_batched(|| events.clone(), started, BatchSize::PerIteration);
            },
        );
    }
    group.finish();
}

/// Policies that come one after the other and select the same pods, each in a transaction of its own
/// and all in one.
fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1000 policies of the same pod");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1000));
    let policies = || {
        let cluster = cluster(1, 100, 1000);
        cluster.into_iter().filter(|event| {
            matches!(event, Event::Apply(Object::NetworkPolicy(policy))
                if policy.metadata.name.as_deref() != Some("peers"))
        })
    };
    let start = || (programmed(cluster(1, 100, 0)), policies().collect::<Vec<_>>());
    for at_once in [1, 10, 1000] {
        group.bench_function(format!("{at_once} in a transaction"), |bench| {
            bench.iter_batched(
                start,
                |(mut engine, policies)| {
                    for some in policies.chunks(at_once) {
                        for event in some {
                            engine.handle(event.clone());
                        }
                        let transaction = engine.poll_transaction().expect("a change");
                        engine.acknowledge(transaction.id, Ok(()));
                    }
                    engine
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, events, cold, load);
criterion_main!(benches);
