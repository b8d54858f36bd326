//! How long a change takes to be in force, and what a policy costs a new connection.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::Scene;
use super::resources::{began, cpu_seconds};
use crate::cluster::api::Api;
use crate::cluster::probe::{self, Flow};
use crate::cluster::scenario::{HTTP, becomes};

/// Port of the datagrams.
const PORT: u16 = 9000;
/// Time between two of them: the resolution.
const PACE: Duration = Duration::from_micros(500);
/// Without a datagram for so long, the flow is cut.
const QUIET: Duration = Duration::from_millis(400);
/// How long one change may take at all.
const LIMIT: Duration = Duration::from_secs(30);
/// Connections of one measurement.
const CONNECTS: usize = 2000;

/// Times of many changes.
#[derive(Clone, Debug)]
pub struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> anyhow::Result<Self> {
        ensure!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Ok(Self(times))
    }

    /// The time that this share of them, in percent, does not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            f,
            "median {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}",
            ms(self.percentile(50)),
            ms(self.percentile(99)),
            ms(self.percentile(100)),
            self.0.len()
        )
    }
}

/// Changes, from before the API call to what was to be.
#[derive(Clone, Debug)]
pub struct Changes {
    in_force: Times,
    /// The API call alone: what no agent can make faster.
    calls: Times,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; the API call alone: {}", self.in_force, self.calls)
    }
}

fn policy(name: &str, ingress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress},
    })
}

/// Isolates and opens every pod of the namespace, in turn: from before the API call to the last
/// datagram that still came, or to the first that came again. Beside it, `background` other
/// changes a second.
///
/// # Errors
/// When a change is not in force in time.
pub fn of_changes(scene: &Scene<'_>, rounds: usize, background: u32) -> anyhow::Result<Changes> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| churn(scene, background, &stop));
        let times = toggle(scene, rounds);
        stop.store(true, Ordering::Release);
        match churn.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        times
    })
}

fn toggle(scene: &Scene<'_>, rounds: usize) -> anyhow::Result<Changes> {
    let (api, path) = (scene.cluster.api(), scene.policies());
    let deny = policy("toggle", &json!([]));
    let flow =
        Flow::start(&scene.client_network, &scene.server_network, scene.server.v4, PORT, PACE)?;
    flow.wait_first_after(Instant::now(), LIMIT)?;
    let (mut times, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..rounds.div_ceil(2) {
        let since = Instant::now();
        api.create(&path, &deny)?;
        calls.push(since.elapsed());
        let last = flow.wait_silence(QUIET, LIMIT)?.context("a datagram")?;
        times.push(last.saturating_duration_since(since));
        let since = Instant::now();
        api.delete(&format!("{path}/toggle"))?;
        calls.push(since.elapsed());
        times.push(flow.wait_first_after(since, LIMIT)?.saturating_duration_since(since));
        // The next one begins with a flow that flows.
        std::thread::sleep(Duration::from_millis(50));
    }
    flow.finish()?;
    Ok(Changes { in_force: Times::new(times)?, calls: Times::new(calls)? })
}

/// Changes other policies, `rate` times a second, until it shall stop.
fn churn(scene: &Scene<'_>, rate: u32, stop: &AtomicBool) -> anyhow::Result<()> {
    if rate == 0 {
        return Ok(());
    }
    let (api, path) = (scene.cluster.api(), scene.policies());
    let other = |number: u32, port: u32| {
        let mut other = policy(&format!("churn-{number}"), &json!([{"ports": [{"port": port}]}]));
        other["spec"]["podSelector"] = json!({"matchLabels": {"app": format!("idle-{number}")}});
        other
    };
    for number in 0..10 {
        api.create(&path, &other(number, 1))?;
    }
    let (pace, mut next) = (Duration::from_secs(1) / rate, Instant::now());
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        count += 1;
        let name = format!("{path}/churn-{}", count % 10);
        api.patch(&name, &json!({"spec": other(count % 10, 2 + count)["spec"]}))?;
        next += pace;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for number in 0..10 {
        api.delete(&format!("{path}/churn-{number}"))?;
    }
    Ok(())
}

/// Median time to connect to the server from its own node through `policies` that select it, as a
/// ratio to the same without an agent's table; and the processor time that loading them took.
///
/// # Errors
/// When the table does not come and go.
pub fn of_connects(scene: &Scene<'_>, policies: usize) -> anyhow::Result<(String, String)> {
    let node = scene.cluster.node("n1")?;
    let before = cpu_seconds(&node)?;
    load_policies(scene, policies)?;
    let cpu = cpu_seconds(&node)? - before;
    let to = SocketAddr::from((scene.server.v4, HTTP));
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let with = connect_median(&scene.neighbour_network, to)?;
        // Nobody is there who would repair it.
        let pid = node.agent_pid()?.to_string();
        node.exec(&["kill", "-STOP", &pid])?;
        let without = node
            .exec(&["nft", "delete", "table", "inet", "rampart"])
            .and_then(|_| connect_median(&scene.neighbour_network, to));
        node.exec(&["kill", "-CONT", &pid])?;
        pairs.push((with.as_secs_f64(), without?.as_secs_f64()));
        scene.cluster.eventually(LIMIT, "the agent puts its table back", || {
            Ok(node.output(&["nft", "list", "table", "inet", "rampart"])?.status.success())
        })?;
        // Putting back is work; what is measured next is rest.
        std::thread::sleep(Duration::from_secs(1));
    }
    pairs.sort_by(|(a, b), (c, d)| (a / b).total_cmp(&(c / d)));
    let (with, without) = pairs.get(pairs.len() / 2).copied().context("pairs")?;
    let ratio = format!("{:.3} ({:.1} / {:.1} us)", with / without, with * 1e6, without * 1e6);
    Ok((ratio, format!("{cpu:.2} s")))
}

fn connect_median(from: &Path, to: SocketAddr) -> anyhow::Result<Duration> {
    let times = probe::inside(from, || {
        (0..CONNECTS)
            .map(|_| {
                let began = Instant::now();
                let stream = TcpStream::connect_timeout(&to, LIMIT)?;
                let elapsed = began.elapsed();
                // A reset: thousands in TIME_WAIT would leave no port for the next.
                let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&stream, sockopt::Linger, &now)?;
                Ok(elapsed)
            })
            .collect::<std::io::Result<Vec<_>>>()
    })??;
    Ok(Times::new(times)?.percentile(50))
}

/// `count` policies that select the server; only the last lets the neighbour in.
fn load_policies(scene: &Scene<'_>, count: usize) -> anyhow::Result<()> {
    let (api, path) = (scene.cluster.api(), scene.policies());
    for number in 0..count {
        let who =
            if number + 1 == count { "neighbour".to_owned() } else { format!("nobody-{number}") };
        let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": who}}}]}]);
        let mut one = policy(&format!("load-{number}"), &from);
        one["spec"]["podSelector"] = json!({"matchLabels": {"app": "server"}});
        api.create(&path, &one)?;
    }
    let node = scene.cluster.node("n1")?;
    let wanted = u64::try_from(count)?;
    scene.cluster.eventually(LIMIT, "the agent has them all", || {
        let status: api::control::Status = node.agent("/v1/status")?;
        let done = status.programmed_generation == status.desired_generation;
        Ok(done && status.policy.policies >= wanted)
    })?;
    scene.cluster.eventually(LIMIT, "the neighbour is let in", || {
        super::connects(&scene.neighbour_network, &scene.server)
    })
}

/// Removes what the measurement of connections loaded.
///
/// # Errors
/// When the API server refuses.
pub fn remove_policies(scene: &Scene<'_>) -> anyhow::Result<()> {
    scene.cluster.api().delete(&scene.policies())?;
    becomes(scene.cluster, &scene.client, &scene.server, HTTP, true)?;
    Ok(())
}

/// Kills the agent, opens what was closed while it is away, and measures from the start of the new
/// process to the first datagram.
///
/// # Errors
/// When it does not come back.
pub fn of_restarts(scene: &Scene<'_>, rounds: usize) -> anyhow::Result<Restarts> {
    let (api, path): (Api, String) = (scene.cluster.api(), scene.policies());
    let node = scene.cluster.node("n1")?;
    let flow =
        Flow::start(&scene.client_network, &scene.server_network, scene.server.v4, PORT + 1, PACE)?;
    let (mut times, mut own) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        flow.wait_first_after(Instant::now(), LIMIT)?;
        api.create(&path, &policy("restart", &json!([])))?;
        flow.wait_silence(QUIET, LIMIT)?;
        let old = node.agent_pid()?;
        node.exec(&["kill", "-9", &old.to_string()])?;
        let since = Instant::now();
        api.delete(&format!("{path}/restart"))?;
        let open = flow.wait_first_after(since, Duration::from_secs(300))?;
        // proc(5): start time in ticks of 10 ms after boot, as /proc/uptime counts.
        let pid = node.agent_pid()?.to_string();
        let started = node.exec(&["awk", "{print $22}", &format!("/proc/{pid}/stat")])?;
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        let now = Instant::now();
        let up: f64 = uptime.split(' ').next().context("uptime")?.parse()?;
        let started: f64 = started.trim().parse::<f64>()? / 100.0;
        let age = up - started - now.duration_since(open).as_secs_f64();
        times.push(Duration::from_secs_f64(age.max(0.0)));
        // That process was the container runtime's first, until the container was ready.
        let open = SystemTime::now().checked_sub(open.elapsed()).context("now")?;
        let open = open.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        own.push(Duration::from_secs_f64((open - began(&node)?).max(0.0)));
    }
    flow.finish()?;
    Ok(Restarts { process: Times::new(times)?, own: Times::new(own)? })
}

/// Times from the start of an agent.
#[derive(Clone, Debug)]
pub struct Restarts {
    /// Of its process, which makes its container first.
    process: Times,
    /// Of the agent itself.
    own: Times,
}

impl fmt::Display for Restarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; from the agent's own start: {}", self.process, self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times::new((1..=80).rev().map(Duration::from_millis).collect()).unwrap();
        assert_eq!(times.percentile(50), Duration::from_millis(40));
        assert_eq!(times.percentile(100), Duration::from_millis(80));
    }
}
