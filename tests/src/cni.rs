//! A node whose pods get their interface as a container runtime does it: the plugin that the agent has
//! installed is executed with environment and standard input, and delegates to the real host-local.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use api::constant::{CNI_CONFLIST, CNI_PLUGIN};
use serde_json::{Value, json};

use crate::agent::{Agent, LIMIT};
use crate::netns::{Directory, Namespace};
use crate::wait::eventually;

/// Where the distribution keeps the plugins of others.
const PLUGINS: &str = "/usr/lib/cni";
/// Port that pods and the node serve.
pub const PORT: u16 = 8080;

/// What the runtime says of a pod.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_ARGS`.
    pub args: String,
}

impl Sandbox {
    /// Of the pod `shop/NAME`, whose uid is `uid-NAME`.
    pub fn of(name: &str, namespace: &Namespace) -> Self {
        Self {
            container: format!("container-{name}"),
            netns: format!("/run/netns/{}", namespace.name()),
            // Runtimes begin with this: plugins of others do not know the rest.
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}"
            ),
        }
    }
}

/// A Pod that runs here and has no address yet.
pub fn pending_pod(name: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: uid-{name}, labels: {{app: {name}}}}}\nspec: {{nodeName: {node}, containers: [{{name: c}}]}}\n"
    )
}

/// What the plugin said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// It ended with 0.
    pub ok: bool,
    /// What it printed; `Null` for nothing.
    pub value: Value,
}

impl Answer {
    fn from(output: &Output) -> Self {
        let value = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
                panic!("{error}: {}", String::from_utf8_lossy(&output.stdout))
            })
        };
        Self { ok: output.status.success(), value }
    }

    /// Code of a refusal, 0 for none.
    pub fn code(&self) -> u64 {
        self.value.get("code").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Message of a refusal.
    pub fn message(&self) -> &str {
        self.value.get("msg").and_then(Value::as_str).unwrap_or_default()
    }

    /// The result of an ADD that worked.
    ///
    /// # Panics
    /// When it did not.
    pub fn good(self) -> Value {
        assert!(self.ok, "{}", self.value);
        self.value
    }
}

/// Addresses in the result of an ADD.
///
/// # Panics
/// When it has none.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).expect("ips");
    let address = |ip: &Value| {
        let text = ip.get("address").and_then(Value::as_str).expect("address");
        text.split('/').next().and_then(|text| text.parse().ok()).expect("an address")
    };
    ips.iter().map(address).collect()
}

/// See the module.
#[derive(Debug)]
pub struct CniNode {
    agent: Option<Agent>,
    /// The node's network namespace.
    pub namespace: Namespace,
    /// Everything on disk.
    pub directory: Directory,
}

/// The node's object.
pub fn node_object() -> String {
    crate::agent::node("n1", &["192.0.2.10", "2001:db8::10"], &["10.1.0.0/24", "fd00:1::/64"])
}

impl CniNode {
    /// A node `n1` with an uplink of MTU 1400, a namespace `shop`, and these objects beside; the agent
    /// does not run yet.
    pub fn new(purpose: &str, objects: &str) -> Self {
        let namespace = Namespace::new(purpose);
        namespace.ip(&[
            "link add up0 mtu 1400 type veth peer name up1",
            "link set up0 up",
            "link set up1 up",
            "addr add 192.0.2.10/24 dev up0",
            "addr add 2001:db8::10/64 dev up0 nodad",
            "route add default via 192.0.2.1",
            "route add default via 2001:db8::1",
        ]);
        let directory = Directory::new(purpose);
        for name in ["store", "bin", "conf", "leases"] {
            fs::create_dir_all(directory.join(name)).expect("a directory");
        }
        for name in ["host-local", "portmap"] {
            fs::copy(Path::new(PLUGINS).join(name), directory.join("bin").join(name))
                .expect("package containernetworking-plugins is installed");
        }
        directory.write("store/node.yaml", &node_object());
        let shop = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        directory.write("store/namespace.yaml", shop);
        directory.write("store/objects.yaml", objects);
        Self { agent: None, namespace, directory }
    }

    /// Starts the agent and waits until it has written the network list.
    pub fn start(&mut self) {
        self.start_agent();
        eventually(LIMIT, "the network list is written", || self.conflist().exists());
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) {
        let [bin, conf] = ["bin", "conf"].map(|name| self.directory.join(name));
        let [bin, conf] = [&bin, &conf].map(|path| path.to_str().expect("UTF-8"));
        let options = ["--cni-bin-dir", bin, "--cni-conf-dir", conf];
        self.agent = Some(Agent::start_with(&self.namespace, "n1", &self.directory, &options));
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the agent runs")
    }

    /// Kills the agent (SIGKILL).
    pub fn kill_agent(&mut self) {
        self.agent.take().expect("the agent runs").kill();
    }

    /// Path of the network list.
    pub fn conflist(&self) -> PathBuf {
        self.directory.join("conf").join(CNI_CONFLIST)
    }

    /// The network list.
    pub fn list(&self) -> Value {
        let text = fs::read(self.conflist()).expect("the network list");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Configuration of the main plugin as a runtime makes it of the list; leases are the test's own.
    pub fn network(&self) -> Value {
        let list = self.list();
        let mut main = list["plugins"][0].clone();
        main["cniVersion"] = list["cniVersion"].clone();
        main["name"] = list["name"].clone();
        main["ipam"]["dataDir"] = json!(self.directory.join("leases"));
        main
    }

    /// Starts a plugin as a runtime does it.
    pub fn spawn(&self, plugin: &str, command: &str, sandbox: &Sandbox, stdin: &[u8]) -> Child {
        let program = self.directory.join("bin").join(plugin);
        let child = self.namespace.within(|| {
            Command::new(program)
                .env_clear()
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", &sandbox.container)
                .env("CNI_NETNS", &sandbox.netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", self.directory.join("bin"))
                .env("CNI_ARGS", &sandbox.args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        });
        let mut child = child.expect("the plugin starts");
        // One that ended before it read everything has its reasons.
        child.stdin.take().expect("stdin").write_all(stdin).ok();
        child
    }

    /// Runs a plugin to its end.
    pub fn run(&self, plugin: &str, command: &str, sandbox: &Sandbox, stdin: &[u8]) -> Output {
        self.spawn(plugin, command, sandbox, stdin).wait_with_output().expect("its output")
    }

    /// Runs ours with this configuration.
    pub fn call_with(&self, command: &str, sandbox: &Sandbox, config: &Value) -> Answer {
        self.call_plugin(CNI_PLUGIN, command, sandbox, config)
    }

    /// Runs any plugin that is installed.
    pub fn call_plugin(
        &self,
        plugin: &str,
        command: &str,
        sandbox: &Sandbox,
        config: &Value,
    ) -> Answer {
        Answer::from(&self.run(plugin, command, sandbox, config.to_string().as_bytes()))
    }

    /// Runs ours with the configuration of the list.
    pub fn call(&self, command: &str, sandbox: &Sandbox) -> Answer {
        self.call_with(command, sandbox, &self.network())
    }

    /// What is left of pods: host side interfaces, leases, attachments.
    pub fn remains(&self) -> Vec<String> {
        let links = self.namespace.output("ip", &["-br", "link"]);
        let links = links.lines().filter(|line| line.starts_with("rv")).map(str::to_owned);
        let files = |directory: PathBuf| -> Vec<String> {
            let entries = fs::read_dir(directory).into_iter().flatten();
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect()
        };
        let leases = files(self.directory.join("leases/rampart"));
        let leases = leases.into_iter().filter(|name| name.parse::<IpAddr>().is_ok());
        links.chain(leases).chain(files(self.directory.join("state/attachments"))).collect()
    }
}

/// Accepts connections of both families in a namespace until the test ends.
pub fn serve(namespace: &Namespace) {
    let listener = namespace.within(|| TcpListener::bind(("::", PORT)));
    let listener = listener.expect("bind");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.write_all(b"x").ok();
        }
    });
}

/// Whether a TCP connection from the namespace to the address works, within `limit`.
pub fn connects(namespace: &Namespace, to: IpAddr, limit: Duration) -> bool {
    let attempt = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.read_exact(&mut [0])
    };
    namespace.within(|| attempt().is_ok())
}
