//! What policy costs: from event to kernel acknowledge, and on the packet path.
//!
//! `cargo bench -p agent --bench nft` (root needed); prints one Markdown table each. It works in
//! network namespaces of its own. A plain program instead of criterion: what is measured changes
//! the kernel, so a round cannot be repeated at will, and packets need namespaces and pinning.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that fails has nothing to measure, and says what it measured"
)]

mod packet;
mod scene;

use std::time::{Duration, Instant};

use agent::kernel::nft::{Monitor, NftWriter, encode};
use nix::sched::{CloneFlags, unshare};
use policy::Engine;
use policy::event::{Event, Key, Kind};

use scene::{Scene, local_pod, peer, policy};

const ROUNDS: usize = 300;

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    std::thread::spawn(programming).join().unwrap();
    std::thread::spawn(|| cold_start(500, 10_000)).join().unwrap();
    std::thread::spawn(packet::report).join().unwrap();
}

/// Engine and kernel of one node.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) writer: NftWriter,
}

impl Node {
    pub(crate) fn start(scene: &Scene) -> Self {
        let mut node = Self { engine: Engine::new("n1"), writer: NftWriter::open().unwrap() };
        scene.events().into_iter().for_each(|event| drop(node.engine.handle(event)));
        node.program();
        node
    }

    /// Sends what there is to send; returns the number of steps.
    pub(crate) fn program(&mut self) -> usize {
        let mut steps = 0;
        while let Some(transaction) = self.engine.poll_transaction() {
            let result = self.writer.apply(&transaction);
            self.engine.acknowledge(transaction.id, result.clone());
            result.unwrap();
            steps += transaction.steps.len();
        }
        steps
    }

    /// From the events to the acknowledgement of all they lead to.
    fn time(&mut self, events: Vec<Event>) -> Duration {
        let start = Instant::now();
        events.into_iter().for_each(|event| drop(self.engine.handle(event)));
        let steps = self.program();
        let took = start.elapsed();
        assert!(steps > 0, "nothing to do, so nothing was measured");
        took
    }
}

pub(crate) fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

/// The agent always listens for changes by others, and the kernel then tells it its own as well:
/// part of the price.
fn listen(port: u32) {
    let mut monitor = Monitor::open(port).unwrap();
    std::thread::spawn(move || while monitor.wait(Duration::from_secs(60)).unwrap().is_none() {});
}

fn programming() {
    enter_namespace();
    println!(
        "| event -> kernel acknowledge | pods | peers | median | p99 |\n|---|---|---|---|---|"
    );
    for (pods, peers) in [(100, 10_000), (500, 10_000)] {
        let scene = Scene { pods, peers, policies: 10 };
        let mut node = Node::start(&scene);
        listen(node.writer.port());
        let row = |what: &str, mut times: Vec<Duration>| {
            times.sort();
            let at = |share: usize| times.get((times.len() - 1) * share / 100).unwrap();
            println!("| {what} | {pods} | {peers} | {:.1?} | {:.1?} |", at(50), at(99));
        };
        let mut each = |what: &str, even: Vec<Event>, odd: Vec<Event>| {
            let turns = [even, odd];
            let both = turns.iter().cycle().take(2 * ROUNDS);
            row(what, both.map(|events| node.time(events.clone())).collect());
        };
        let extra = peers;
        each(
            "one address joins or leaves a selector (1 element)",
            vec![peer(extra, "role-0")],
            vec![peer(extra, "nothing")],
        );
        let delete = |name: &str| {
            let key = Key { kind: Kind::Pod, namespace: "app".to_owned(), name: name.to_owned() };
            Event::Delete(key)
        };
        each(
            "one isolated pod comes or goes, both families",
            local_pod(pods),
            vec![delete(&format!("pod-{pods}"))],
        );
        for (what, n) in
            [("a tenth of the pods, 100 peers", 1), ("a tenth of the pods, 9900 peers", 0)]
        {
            each(
                &format!("a policy of {what}, changes its port"),
                vec![policy(n, 81)],
                vec![policy(n, 80)],
            );
        }
        // The same in the way of other agents: a process for each change.
        let spawned = ["add", "delete"].iter().cycle().take(60).map(|verb| {
            let start = Instant::now();
            let command = format!("{verb} element inet rampart pods4 {{ 203.0.113.9 }}");
            packet::run("nft", &["-f", "-"], &command);
            start.elapsed()
        });
        row("a spawned `nft` adds or deletes 1 element", spawned.collect());
        delete_table(&mut node.writer);
    }
}

fn cold_start(pods: u32, peers: u32) {
    enter_namespace();
    let scene = Scene { pods, peers, policies: 10 };
    let mut compile = Vec::new();
    let mut encoding = Vec::new();
    let mut bytes = 0;
    let mut kernel = Vec::new();
    let mut adopt = Vec::new();
    for _ in 0..10 {
        let events = scene.events();
        let start = Instant::now();
        let mut node = Node { engine: Engine::new("n1"), writer: NftWriter::open().unwrap() };
        listen(node.writer.port());
        events.into_iter().for_each(|event| drop(node.engine.handle(event)));
        let transaction = node.engine.poll_transaction().unwrap();
        compile.push(start.elapsed());
        let start = Instant::now();
        let batch = encode(&transaction, None).unwrap();
        encoding.push(start.elapsed());
        bytes = batch.bytes().len();
        drop(batch);
        let start = Instant::now();
        let result = node.writer.apply(&transaction);
        kernel.push(start.elapsed());
        node.engine.acknowledge(transaction.id, result.clone());
        result.unwrap();
        let start = Instant::now();
        let observed = node.writer.readback(node.engine.desired()).unwrap();
        node.engine.adopt(observed);
        assert!(node.engine.poll_transaction().is_none(), "adoption changes something");
        adopt.push(start.elapsed());
        delete_table(&mut node.writer);
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap()
    };
    println!("\n| node start, {pods} pods, {peers} peers | median |\n|---|---|");
    println!("| engine: all events to transaction | {:.1?} |", median(compile));
    println!("| writer: encode, one batch, acknowledge | {:.1?} |", median(kernel));
    println!("| of that, encoding {} kB | {:.1?} |", bytes / 1000, median(encoding));
    println!("| restart: read back, compare, nothing to do | {:.1?} |", median(adopt));
}

fn delete_table(writer: &mut NftWriter) {
    use policy::nft::transaction::{Step, Transaction};
    writer.apply(&Transaction { id: 0, steps: vec![Step::DeleteTable] }).unwrap();
}
