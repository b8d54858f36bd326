//! One agent and one foreign router on one link, in namespaces of their own.
//!
//! The oracle is the kernel: each side must have put the other's prefixes there, with the right
//! next hop.

pub mod cases;
pub mod passwords;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::control::PeerView;
use api::crd::{BGPConfiguration, BGPConfigurationSpec, BGPPeer};
use ctl::client::Client;
use ctl::lab::tor::FRR_DIRECTORY;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::netns::{Daemon, Directory, Namespace, connect};
use crate::program;
use crate::wait::eventually;

/// AS of the agent.
pub const NODE_ASN: u32 = 64512;
/// Hold time in seconds, both sides.
pub const HOLD_TIME: u16 = 3;
/// Address of the agent on the link.
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:ffff::1"];
/// Address of the router on the link.
pub const ROUTER: [&str; 2] = ["192.0.2.2", "2001:db8:ffff::2"];
/// What the agent originates.
pub const NODE_PREFIXES: [&str; 2] = ["10.244.1.0/24", "fd00:244:0:1::/64"];
/// What the router originates.
pub const ROUTER_PREFIXES: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/48"];
const SECOND: Duration = Duration::from_secs(1);
/// How long sessions may take to come up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The foreign side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// BIRD 2.
    Bird,
    /// FRR.
    Frr,
}

/// What a pair does beyond the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The router does graceful restart (RFC 4724).
    pub graceful: bool,
    /// The agent does TTL security (RFC 5082).
    pub node_ttl_security: bool,
    /// The router does.
    pub router_ttl_security: bool,
    /// The BGPPeers of the agent name a password each (RFC 2385): key `v4` or `v6` of the Secret that
    /// [`Pair::write_passwords`] writes.
    pub node_passwords: bool,
    /// Password that the router wants, on every session.
    pub router_password: Option<&'static str>,
    /// Who opens connections.
    pub opens: Opens,
    /// The agent does no graceful restart.
    pub node_abrupt: bool,
}

/// Who opens connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opens {
    /// Each side.
    #[default]
    Both,
    /// The agent; the router waits.
    Agent,
    /// The router; the agent waits.
    Router,
}

/// How the two families travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Both over one session over IPv4.
    SharedV4,
    /// Both over one session over IPv6.
    SharedV6,
    /// One session for each family.
    PerFamily,
}

impl Transport {
    /// Indexes into the address arrays: which transport carries which families.
    fn sessions(self) -> Vec<(usize, Vec<usize>)> {
        match self {
            Self::SharedV4 => vec![(0, vec![0, 1])],
            Self::SharedV6 => vec![(1, vec![0, 1])],
            Self::PerFamily => vec![(0, vec![0]), (1, vec![1])],
        }
    }
}

/// The two sides.
#[derive(Debug)]
pub struct Pair {
    implementation: Implementation,
    sessions: usize,
    options: Options,
    // Fields drop in this order: what runs goes before where it runs.
    agent: Option<Daemon>,
    router: Vec<Daemon>,
    /// Namespace of the agent.
    pub node_namespace: Arc<Namespace>,
    /// Namespace of the router.
    pub router_namespace: Namespace,
    directory: Directory,
}

impl Pair {
    /// Wires and configures both sides, and starts them.
    ///
    /// # Panics
    /// When that fails.
    pub fn start(implementation: Implementation, router_asn: u32, transport: Transport) -> Self {
        Self::start_with(implementation, router_asn, transport, Options::default())
    }

    /// The same with something more than the usual.
    ///
    /// # Panics
    /// When that fails.
    pub fn start_with(
        implementation: Implementation,
        router_asn: u32,
        transport: Transport,
        options: Options,
    ) -> Self {
        let pair = Self {
            implementation,
            options,
            sessions: transport.sessions().len(),
            agent: None,
            router: Vec::new(),
            node_namespace: Arc::new(Namespace::new("node")),
            router_namespace: Namespace::new("router"),
            directory: Directory::new("interop"),
        };
        pair.wire();
        pair.write_store(router_asn, transport);
        let mut pair = pair;
        pair.configure_router(router_asn, transport, options);
        pair.start_router();
        pair.start_agent();
        pair
    }

    /// Writes the router's configuration, for its next start.
    ///
    /// # Panics
    /// When that fails.
    pub fn configure_router(&mut self, asn: u32, transport: Transport, options: Options) {
        self.options = options;
        match self.implementation {
            Implementation::Bird => {
                self.directory.write("bird.conf", &bird(asn, transport, options));
            }
            Implementation::Frr => {
                self.directory.write("zebra.conf", "log stdout\n");
                self.directory.write("bgpd.conf", &frr(asn, transport, options));
                give_to_frr(self.directory.path());
            }
        }
    }

    fn wire(&self) {
        connect(&self.node_namespace, "uplink", &self.router_namespace, "node");
        for (namespace, interface, [v4, v6]) in
            [(&*self.node_namespace, "uplink", NODE), (&self.router_namespace, "node", ROUTER)]
        {
            namespace.ip(&[
                &format!("addr add {v4}/24 dev {interface}"),
                &format!("addr add {v6}/64 dev {interface} nodad"),
            ]);
        }
    }

    fn write_store(&self, router_asn: u32, transport: Transport) {
        let store = self.directory.join("store");
        std::fs::create_dir_all(&store).expect("store");
        std::fs::create_dir_all(self.directory.join("run")).expect("run directory");
        let write = |name: &str, text: String| {
            std::fs::write(store.join(name), text).expect("manifest");
        };
        write(
            "node.yaml",
            yaml(&json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": { "name": "n1" },
                "spec": { "podCIDRs": NODE_PREFIXES },
                "status": { "addresses": [
                    { "type": "InternalIP", "address": NODE[0] },
                    { "type": "InternalIP", "address": NODE[1] },
                ] },
            })),
        );
        write(
            "bgp.yaml",
            yaml(&BGPConfiguration::new(
                "default",
                BGPConfigurationSpec {
                    asn: Some(NODE_ASN),
                    node_mesh: Some(false),
                    ..BGPConfigurationSpec::default()
                },
            )),
        );
        for (over, _families) in transport.sessions() {
            let mut spec = json!({
                "peerAddress": ROUTER[over],
                "peerASN": router_asn,
                "holdTimeSeconds": HOLD_TIME,
                "ttlSecurity": self.options.node_ttl_security,
                "import": ROUTER_PREFIXES.map(|prefix| json!({ "prefix": prefix })),
            });
            if self.options.opens == Opens::Router {
                spec["passive"] = json!(true);
            }
            if self.options.node_abrupt {
                spec["gracefulRestart"] = json!({ "enabled": false });
            }
            if self.options.node_passwords {
                let key = ["v4", "v6"][over];
                spec["passwordSecretRef"] = json!({ "key": key });
            }
            let spec = serde_json::from_value(spec).expect("a BGPPeer");
            let name = format!("router-v{}", [4, 6][over]);
            write(&format!("{name}.yaml"), yaml(&BGPPeer::new(&name, spec)));
        }
    }

    /// Starts the router.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_router(&mut self) {
        let file = |name: &str| self.directory.join(name).display().to_string();
        match self.implementation {
            Implementation::Bird => {
                let recovers = self.options.graceful && self.directory.join("bird.log").exists();
                let (config, socket) = (file("bird.conf"), file("bird.ctl"));
                let mut arguments = vec!["-f", "-c", &config, "-s", &socket];
                arguments.extend(recovers.then_some("-R"));
                let log = self.directory.join("bird.log");
                let bird = self.router_namespace.start(Path::new("bird"), &arguments, &log);
                self.router.push(bird);
            }
            Implementation::Frr => {
                for daemon in ["zebra", "bgpd"] {
                    let arguments = [
                        "-F",
                        "datacenter",
                        "-P",
                        "0",
                        "--log",
                        "stdout",
                        "-f",
                        &file(&format!("{daemon}.conf")),
                        "-i",
                        &file(&format!("{daemon}.pid")),
                        "-z",
                        &file("zserv.api"),
                        "--vty_socket",
                        &self.directory.path().display().to_string(),
                    ];
                    let log = self.directory.join(&format!("{daemon}.log"));
                    let program = PathBuf::from(FRR_DIRECTORY).join(daemon);
                    // bgpd looks for zebra once, and then only ten seconds later again.
                    let socket = self.directory.join("zserv.api");
                    if daemon == "zebra" {
                        std::fs::remove_file(&socket).ok();
                    }
                    let process = self.router_namespace.start(&program, &arguments, &log);
                    self.router.push(process);
                    eventually(PATIENCE, "zebra listens", || socket.exists());
                }
            }
        }
    }

    /// Starts the agent.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_agent(&mut self) {
        let store = format!("dir:{}", self.directory.join("store").display());
        let run = self.directory.join("run").display().to_string();
        let state = self.directory.join("state").display().to_string();
        let arguments = ["agent", "--node-name", "n1", "--store", &store, "--run-dir", &run];
        let arguments = [&arguments[..], &["--state-dir", &state]].concat();
        let log = self.directory.join("agent.log");
        self.agent = Some(self.node_namespace.start(&program::rampart(), &arguments, &log));
    }

    /// Kills the agent (SIGKILL).
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_agent(&mut self) {
        self.agent.take().expect("the agent runs").kill();
    }

    /// Ends the agent (SIGTERM).
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn terminate_agent(&mut self) {
        self.agent.take().expect("the agent runs").terminate();
    }

    /// Kills all daemons of the router (SIGKILL).
    pub fn kill_router(&mut self) {
        for daemon in self.router.drain(..) {
            daemon.kill();
        }
    }

    /// Sends a signal to the agent.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal_agent(&self, signal: Signal) {
        self.agent.as_ref().expect("the agent runs").signal(signal);
    }

    /// Sends a signal to all daemons of the router.
    pub fn signal_router(&self, signal: Signal) {
        for daemon in &self.router {
            daemon.signal(signal);
        }
    }

    /// The agent's view of its peers; empty while it does not answer.
    pub fn peers(&self) -> Vec<PeerView> {
        let socket = self.directory.join("run").join(api::constant::SOCKET_NAME);
        Client::new(&socket, Duration::from_secs(2)).get_blocking("/v1/peers").unwrap_or_default()
    }

    /// What the agent complains about, as JSON; empty while it does not answer.
    pub fn problems(&self) -> String {
        let socket = self.directory.join("run").join(api::constant::SOCKET_NAME);
        let client = Client::new(&socket, Duration::from_secs(2));
        let status: Option<api::control::Status> = client.get_blocking("/v1/status").ok();
        status.map_or(String::new(), |status| format!("{:?}", status.problems))
    }

    /// Whether the agent says that every session is established.
    pub fn established(&self) -> bool {
        let peers = self.peers();
        peers.len() == self.sessions && peers.iter().all(|peer| peer.state == "Established")
    }

    /// What the router says about its sessions.
    pub fn router_sessions(&self) -> String {
        let directory = self.directory.path().display().to_string();
        match self.implementation {
            Implementation::Bird => {
                let socket = self.directory.join("bird.ctl").display().to_string();
                self.router_namespace.output("birdc", &["-s", &socket, "show", "protocols"])
            }
            Implementation::Frr => self
                .router_namespace
                .output("vtysh", &["--vty_socket", &directory, "-c", "show bgp neighbors"]),
        }
    }

    /// Whether the router says that every session is established.
    pub fn router_established(&self) -> bool {
        let text = self.router_sessions();
        let word = match self.implementation {
            Implementation::Bird => "Established",
            Implementation::Frr => "BGP state = Established",
        };
        text.matches(word).count() == self.sessions
    }

    /// Whether the agent's kernel routes the router's prefixes to it, both families.
    pub fn node_has_routes(&self) -> bool {
        ROUTER_PREFIXES
            .iter()
            .zip(ROUTER)
            .all(|(prefix, gateway)| self.node_namespace.routes_via(prefix, address(gateway)))
    }

    /// Whether the agent's kernel has no gateway for any of the router's prefixes.
    pub fn node_has_no_routes(&self) -> bool {
        !ROUTER_PREFIXES.iter().any(|prefix| self.node_namespace.reaches(prefix))
    }

    /// Whether the router's kernel routes the node's pod CIDRs to it. FRR prefers the
    /// link-local next hop for IPv6, so any gateway on the link will do there.
    pub fn router_has_routes(&self) -> bool {
        let [v4, v6] = NODE_PREFIXES;
        self.router_namespace.routes_via(v4, address(NODE[0]))
            && match self.implementation {
                Implementation::Bird => self.router_namespace.routes_via(v6, address(NODE[1])),
                Implementation::Frr => self.router_namespace.reaches(v6),
            }
    }

    /// Waits until both kernels have everything.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn converge(&self) {
        eventually(PATIENCE, "every session is established", || {
            self.established() && self.router_established()
        });
        eventually(PATIENCE, "the agent's kernel has the router's prefixes", || {
            self.node_has_routes()
        });
        eventually(PATIENCE, "the router's kernel has the pod CIDRs", || self.router_has_routes());
    }
}

fn yaml(object: &impl serde::Serialize) -> String {
    serde_saphyr::to_string(object).expect("YAML")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// FRR's daemons drop root before they make their sockets.
fn give_to_frr(directory: &Path) {
    let user = nix::unistd::User::from_name("frr").expect("users").expect("user frr");
    nix::unistd::chown(directory, Some(user.uid), Some(user.gid)).expect("chown");
}

fn bird(asn: u32, transport: Transport, options: Options) -> String {
    let (mut in_kernel, mut in_session) = ("", String::new());
    if options.graceful {
        in_kernel = " graceful restart;";
        in_session += "  graceful restart on;\n  graceful restart time 60;\n";
    }
    if options.router_ttl_security {
        in_session += "  ttl security on;\n";
    }
    if let Some(password) = options.router_password {
        in_session += &format!("  password \"{password}\";\n");
    }
    if options.opens == Opens::Agent {
        in_session += "  passive on;\n";
    }
    let mut text =
        "log stderr all;\nrouter id 192.0.2.2;\nprotocol device { scan time 1; }\n".to_owned();
    for (channel, prefix) in ["ipv4", "ipv6"].iter().zip(ROUTER_PREFIXES) {
        text += &format!(
            "protocol kernel {{{in_kernel} {channel} {{ export where source = RTS_BGP; }}; }}\n\
             protocol static {{ {channel}; route {prefix} blackhole; }}\n"
        );
    }
    for (over, families) in transport.sessions() {
        let mut channels = String::new();
        for family in families {
            let channel = ["ipv4", "ipv6"][family];
            // On a session of the other family BIRD has to be told its next hop.
            channels += &format!(
                "  {channel} {{ import all; export where source = RTS_STATIC; \
                 next hop address {}; }};\n",
                ROUTER[family]
            );
        }
        text += &format!(
            "protocol bgp node{over} {{\n  local {} as {asn};\n  neighbor {} as {NODE_ASN};\n  direct;\n  \
             hold time {HOLD_TIME};\n  connect delay time 1;\n  error wait time 1, 2;\n{in_session}{channels}}}\n",
            ROUTER[over], NODE[over]
        );
    }
    text
}

fn frr(asn: u32, transport: Transport, options: Options) -> String {
    let restart = if options.graceful {
        " bgp graceful-restart\n bgp graceful-restart restart-time 60\n \
         bgp graceful-restart preserve-fw-state\n"
    } else {
        ""
    };
    let mut sessions = String::new();
    let mut families = [String::new(), String::new()];
    for (over, carried) in transport.sessions() {
        let peer = NODE[over];
        sessions += &format!(
            " neighbor {peer} remote-as {NODE_ASN}\n neighbor {peer} timers 1 {HOLD_TIME}\n \
             neighbor {peer} timers connect 1\n neighbor {peer} advertisement-interval 0\n"
        );
        if options.router_ttl_security {
            sessions += &format!(" neighbor {peer} ttl-security hops 1\n");
        }
        if let Some(password) = options.router_password {
            sessions += &format!(" neighbor {peer} password {password}\n");
        }
        if options.opens == Opens::Agent {
            sessions += &format!(" neighbor {peer} passive\n");
        }
        for family in carried {
            families[family] += &format!("  neighbor {peer} activate\n");
        }
    }
    let [v4, v6] = families;
    let [prefix_v4, prefix_v6] = ROUTER_PREFIXES;
    format!(
        "log stdout\nrouter bgp {asn}\n bgp router-id 192.0.2.2\n no bgp default ipv4-unicast\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n coalesce-time 50\n{restart}{sessions} \
         address-family ipv4 unicast\n  network {prefix_v4}\n{v4} exit-address-family\n \
         address-family ipv6 unicast\n  network {prefix_v6}\n{v6} exit-address-family\n"
    )
}
