//! A real agent of the test's own, asked over its control socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use api::control::{EndpointView, PeerView, PolicyView, Problem, RouteView, Status, Synced};
use serde::de::DeserializeOwned;

use crate::netns::{Daemon, Directory, Namespace};
use crate::program;
use crate::wait::eventually;

/// How long anything may take before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A running agent with its store.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
    run: PathBuf,
}

impl Agent {
    /// Starts an agent for `node` in `namespace`; its store is `directory/store`.
    ///
    /// # Panics
    /// When it does not answer on its socket.
    pub fn start(namespace: &Namespace, node: &str, directory: &Directory) -> Self {
        Self::start_with(namespace, node, directory, &[])
    }

    /// The same with more flags.
    ///
    /// # Panics
    /// When it does not answer on its socket.
    pub fn start_with(
        namespace: &Namespace,
        node: &str,
        directory: &Directory,
        options: &[&str],
    ) -> Self {
        let run = directory.join("run");
        let store = format!("dir:{}", directory.join("store").display());
        std::fs::create_dir_all(directory.join("store")).expect("store");
        let arguments = ["agent", "--node-name", node, "--store", &store, "--run-dir"];
        let state = directory.join("state");
        let [run_dir, state_dir] = [&run, &state].map(|path| path.to_str().expect("UTF-8"));
        let arguments = [&arguments[..], &[run_dir, "--state-dir", state_dir], options].concat();
        let log = directory.join("log");
        let daemon = namespace.start(&program::rampart(), &arguments, &log);
        let agent = Self { daemon, run };
        // A socket that a killed agent left behind refuses connections.
        eventually(LIMIT, "the agent answers", || agent.exchange("/v1/version").is_some());
        agent
    }

    /// The process.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Kills it without a chance to clean up.
    pub fn kill(self) {
        self.daemon.kill();
    }

    /// Ends it in order.
    pub fn terminate(self) {
        self.daemon.terminate();
    }

    fn exchange(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.run.join("agent.sock")).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Status and body of an answer.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn ask(&self, path: &str) -> (u16, String) {
        self.exchange(path).expect("an answer of the agent")
    }

    /// A good answer.
    ///
    /// # Panics
    /// When it is not good.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Waits until all that is in the store is in the kernel.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn synced(&self) -> u64 {
        let synced: Synced = self.get(&format!("/v1/synced?timeout_ms={}", LIMIT.as_millis()));
        assert!(synced.synced, "{:?}\n{}", synced.pending, self.daemon.log());
        synced.generation
    }

    /// `/v1/status`.
    pub fn status(&self) -> Status {
        self.get("/v1/status")
    }

    /// What is wrong, without what any start of the agent can bring.
    pub fn problems(&self) -> Vec<Problem> {
        self.status().problems
    }

    /// `/v1/peers`.
    pub fn peers(&self) -> Vec<PeerView> {
        self.get("/v1/peers")
    }

    /// `/v1/routes`.
    pub fn routes(&self) -> Vec<RouteView> {
        self.get("/v1/routes")
    }

    /// `/v1/networkpolicies`.
    pub fn policies(&self) -> Vec<PolicyView> {
        self.get("/v1/networkpolicies")
    }

    /// `/v1/endpoints`.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.get("/v1/endpoints")
    }
}

/// A Node with addresses and pod CIDRs of both families.
pub fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> String {
    let list = |texts: &[&str]| {
        let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
        quoted.join(", ")
    };
    let addresses: Vec<String> = addresses
        .iter()
        .map(|address| format!("{{type: InternalIP, address: '{address}'}}"))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [{}]}}\nstatus: {{addresses: [{}]}}\n",
        list(pod_cidrs),
        addresses.join(", ")
    )
}

/// A running Pod with the label `app: NAME`.
pub fn pod(namespace: &str, name: &str, node: &str, addresses: [&str; 2]) -> String {
    let [v4, v6] = addresses;
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec: {{nodeName: {node}, containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
    )
}

/// A NetworkPolicy with this spec in flow style.
pub fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

/// A BGPPeer with this spec in flow style.
pub fn peer(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: rampart.network/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}
