//! Catalogue of the `RCnnnn` codes. A code never changes its meaning.

use serde::{Deserialize, Serialize};

/// What kind of trouble; the number is what users search for.
///
/// 1xxx input, 2xxx BGP, 3xxx routes and host, 4xxx policy and nftables, 5xxx control and lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u16);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RC{:04}", self.0)
    }
}

/// One entry of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// Short name.
    pub title: &'static str,
    /// What it means and what usually causes it.
    pub why: &'static str,
    /// What to do.
    pub next: &'static str,
}

macro_rules! catalogue {
    ($($name:ident = $code:literal, $title:literal, $why:literal, $next:literal;)*) => {
        $(#[doc = $title] pub const $name: Code = Code($code);)*
        /// Every code, ascending.
        pub const CATALOGUE: &[Entry] = &[
            $(Entry { code: Code($code), title: $title, why: $why, next: $next },)*
        ];
    };
}

catalogue! {
    MANIFEST_SYNTAX = 1001, "manifest does not parse", "The file is not valid YAML, or a value has the wrong type.", "Fix the file at the line shown; the last good version stays in force.";
    UNKNOWN_FIELD = 1002, "unknown field", "The object has a field that its kind does not define.", "Fix the spelling, or remove the field.";
    UNKNOWN_KIND = 1003, "unknown kind", "The apiVersion and kind are none that Rampart reads.", "Remove the object from the store, or fix its apiVersion and kind.";
    INVALID_OBJECT = 1004, "invalid object", "A required field is missing or a name is not valid.", "Fix the field shown.";
    INVALID_CIDR = 1005, "invalid CIDR", "A CIDR does not parse, or an except is not inside it.", "Fix the CIDR; until then the rule admits nothing.";
    INVALID_PORT = 1006, "invalid port", "A port is outside 1-65535, an endPort is below its port or beside a named port, or a protocol is unknown.", "Fix the port; until then the rule admits nothing.";
    INVALID_SELECTOR = 1007, "invalid selector", "A label selector has an unknown operator or wrong values.", "Fix the selector; until then a peer selector admits nothing, and a podSelector isolates what its readable part selects.";
    DUPLICATE_ADDRESS = 1008, "two objects with one address", "Two Nodes, two BGPPeers or two Pods claim the same address.", "Remove one. Of two Nodes the first (by name) stays in force, of two BGPPeers the older. Of two Pods the newer has the address (the first by name if they are of one age); the other counts as a pod without it.";
    DUPLICATE_OBJECT = 1009, "object defined twice", "Two files of the store define the same object.", "Remove one; the first (by file name) stays in force.";
    INVALID_NODE = 1010, "invalid Node", "An address or podCIDR of a Node does not parse.", "Fix the Node; its last good version stays in force.";
    INVALID_BGP_CONFIG = 1011, "invalid BGP configuration", "A field of BGPConfiguration or BGPPeer does not hold.", "Fix the field shown; the last good version stays in force (of objects in the API server until the agent restarts).";
    STORE_UNREADABLE = 1012, "store cannot be read", "The directory of manifests, or a file in it, vanished or cannot be read.", "Restore it, or its permissions; until then what was read from it stays in force.";
    SOURCE_UNREACHABLE = 1013, "API server not reachable", "The API server does not answer, answers with errors, or the way to it is cut.", "Check the API server and the network to it. All that was read before stays in force; the agent connects again by itself.";
    SOURCE_UNAUTHORIZED = 1014, "API server refuses the credentials", "The token has expired, its user was removed, or the kubeconfig is of another cluster.", "Give the agent a valid token or kubeconfig; the file is read again by itself. All that was read before stays in force.";
    SOURCE_FORBIDDEN = 1015, "not allowed to read a kind", "RBAC does not let the agent list or watch a kind that it needs.", "Apply the ClusterRole and its binding of this version again. All that was read before stays in force.";
    CRD_MISSING = 1016, "kinds of Rampart not installed", "The API server does not know kinds of rampart.network.", "Apply the CustomResourceDefinitions of this version; until then nodes peer with each other with default settings, and NetworkPolicy is enforced.";
    SOURCE_STALE = 1017, "API server is behind", "The API server answers with a state that is older than what was read before: a stale replica or cache, or etcd was restored from a backup.", "Repair the API server; what was read before stays in force. If etcd was restored on purpose there is nothing to do: what stays behind and goes forward for five minutes, with nothing newer of any kind, is taken as the present state.";
    SNAPSHOT_REFUSED = 1018, "snapshot not usable", "The snapshot of the last state on this node is damaged, of another version or of another cluster.", "Nothing: it is written anew once the API server was read. Until then rules and routes in the kernel stay as they are.";
    SNAPSHOT_UNWRITABLE = 1019, "snapshot cannot be written", "The state directory is full, read-only or not there.", "Make it writable; until then a restart without an API server starts from an older state.";
    INVALID_NETWORK = 1020, "invalid network configuration", "A field of NetworkConfiguration does not hold.", "Fix the field shown; the last good version stays in force.";
    SECRET_FORBIDDEN = 1021, "not allowed to read a Secret", "A BGPPeer names a Secret that RBAC does not let the agent read: it may read `rampart-bgp-passwords`, and no other.", "Use that Secret, or grant list and watch of the one named with a Role in the namespace of Rampart (resourceNames); until then there is no session with the peer, unless the Secret was read before.";
    RANGE_MISMATCH = 1022, "range fits no pod CIDR", "A CIDR of clusterCIDRs or of a pool does not cover the pod CIDRs of the nodes: usually it is mistyped, or the nodes got theirs from another range.", "Compare it with `kubectl get nodes -o custom-columns=N:.metadata.name,C:.spec.podCIDRs`. clusterCIDRs that name CIDRs of a family and cover no pod CIDR of it are not applied to that family; a family of which they name none is not accepted; a pool that covers none has no effect.";
    PEER_UNREACHABLE = 2031, "TCP connection failed", "The peer refused the connection, did not answer, or reset it.", "Check the address, the route to it and that a BGP speaker listens there.";
    BAD_PEER_AS = 2107, "wrong AS number", "The peer's OPEN carries another AS than configured.", "Correct peerASN here, or the AS at the peer.";
    OPEN_REFUSED = 2108, "OPEN refused", "One side did not accept the other's OPEN.", "Look at the code and subcode shown, and compare both configurations.";
    HOLD_TIMER_EXPIRED = 2109, "hold timer expired", "Nothing was heard from the peer for the hold time.", "Check the link and the peer's load.";
    NOTIFICATION_RECEIVED = 2110, "peer closed the session", "The peer sent a NOTIFICATION.", "Look at the code and subcode shown, and at the peer's log.";
    MALFORMED_MESSAGE = 2111, "malformed message", "The peer sent bytes that are not valid BGP.", "The session was reset; report it to the peer's vendor with the offset shown.";
    UNKNOWN_NEIGHBOUR = 2112, "connection from unknown address", "Someone who is no configured peer connected to the BGP port.", "Add a BGPPeer if it should be one.";
    OWN_ADDRESS = 2113, "peer address is our own", "A BGPPeer names an address of this node.", "Correct peerAddress or its nodeSelector.";
    MALFORMED_ATTRIBUTE = 2114, "malformed path attribute", "An UPDATE carried a malformed attribute (RFC 7606).", "Its routes were withdrawn; the session stayed up. Report it to the peer's vendor.";
    LISTEN_FAILED = 2115, "cannot listen for BGP", "The BGP port is taken or may not be bound.", "Stop the other speaker, or set listenPort; see `ss -ltnp`.";
    PREFIX_LIMIT = 2116, "too many prefixes", "The peer announced more prefixes than maxPrefixes allows, and its session was closed.", "Find out why the peer announces so many, or raise maxPrefixes.";
    NO_NEXT_HOP = 2117, "prefixes without a next hop", "Prefixes of a family are not announced to a peer, because this node has no address of that family towards it.", "Give the interface an address of that family (`ip -6 addr`), or set the node's address.";
    PASSWORD_MISSING = 2118, "password of a peer not there", "A BGPPeer has a passwordSecretRef, and the Secret in the namespace of Rampart, its key or a usable value is missing.", "Put the password into the Secret (`kubectl -n rampart-system create secret generic rampart-bgp-passwords --from-literal=KEY=PASSWORD`, or if it exists `kubectl -n rampart-system patch secret rampart-bgp-passwords -p '{\"stringData\":{\"KEY\":\"PASSWORD\"}}'`); until then there is no session with that peer, least of all one without a password.";
    PASSWORD_MISMATCH = 2119, "no answer from a peer with a password", "The kernel drops what is not signed with the same TCP MD5 password (RFC 2385), on both sides and without a word: the passwords may differ, or the peer may have none.", "Compare the passwords; `nstat -az TcpExtTCPMD5*` counts what this node has dropped. If they are the same, the peer is not there: check the address and the route to it.";
    NODE_ADDRESS = 2120, "peer address is that of a node", "A BGPPeer names the address and BGP port of a Node, and nodes peer with each other already (nodeMesh).", "Remove the BGPPeer, or correct its peerAddress. To use a node as a route reflector set nodeMesh: false; for another BGP speaker on a node give its port. The session of the mesh stays. A new BGPPeer is not used; one that was changed keeps its last good version until the agent restarts.";
    NO_PEERS = 2121, "no BGP session configured", "There are other nodes, nodeMesh is off, no BGPPeer selects this node and there is no route reflector: routes to the pods of other nodes are not learnt.", "Set nodeMesh: true, apply the route reflectors, or add a BGPPeer that selects the node. If something else than Rampart routes between nodes there is nothing to do.";
    ROUTE_REFUSED = 3001, "kernel refused a route", "The next hop is not reachable, or the route is invalid.", "Check `ip route get NEXTHOP`.";
    ROUTE_DRIFT = 3002, "route changed by someone else", "A route of ours was deleted or replaced out of band.", "It was repaired. Find out who did it: `ip monitor route`.";
    FORWARDING_DISABLED = 3003, "IP forwarding is off", "net.ipv4.ip_forward or net.ipv6.conf.all.forwarding is 0.", "Set both to 1 on the node: `sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`, and in /etc/sysctl.d so that it stays; find out who sets them to 0.";
    METRICS_LISTEN_FAILED = 3004, "cannot serve metrics", "The metrics address is taken or may not be bound.", "Stop the other program, or set --metrics-address.";
    BEHIND_ROUTER = 3005, "nodes behind a router that may not know their pods", "Other nodes are not on a link of this node, no BGPPeer tells the fabric about pods, and there is no overlay.", "Add a BGPPeer for the routers between the nodes, or set spec.overlay.mode: VXLANCrossSubnet in NetworkConfiguration. If the routers have static routes to all pod CIDRs there is nothing to do.";
    OVERLAY_FAILED = 3006, "overlay cannot be set up", "The kernel refused the VXLAN interface or an entry of it, or a node has no address of the underlay's family.", "Look at the message; `ip -d link show rampart-vxlan` shows what is there. The agent tries again.";
    NETWORKD_ROUTES = 3007, "systemd-networkd may remove our routes", "systemd-networkd removes routes that it did not make when it reconfigures an interface, unless it is told not to.", "Set ManageForeignRoutes=no in /etc/systemd/networkd.conf; until then the agent puts them back each time.";
    ROUTE_OVERRIDDEN = 3008, "kernel prefers somebody else's route", "Another program or a person has a route to the same prefix with a lower metric, and it leads elsewhere: packets go that way, and ours is not used.", "See who makes it (`ip route show PREFIX`; the message says its protocol) and remove it, or keep that prefix out of what BGP imports; ours takes over when it goes.";
    CNI_NO_POD_CIDR = 3020, "node without podCIDR", "The Node has no spec.podCIDRs; usually kube-controller-manager runs without --allocate-node-cidrs.", "Let the controller-manager allocate them, or set them; until then the node stays NotReady.";
    CNI_SHADOWED = 3021, "another network list comes first", "Runtimes take the first list by name in the CNI configuration directory, and it is not ours.", "Remove the other network's list if it is no longer wanted.";
    CNI_PLUGIN_MISSING = 3022, "CNI plugin missing on the node", "host-local gives pods their addresses, portmap serves hostPort; one is not in the CNI binary directory.", "Install the CNI plugins on the node (package containernetworking-plugins, or the release of github.com/containernetworking/plugins).";
    CNI_INSTALL_FAILED = 3023, "CNI files cannot be installed", "The plugin or the network list cannot be written.", "Check that the directories given by --cni-bin-dir and --cni-conf-dir are mounted writable and not full.";
    CNI_STATE_UNREADABLE = 3024, "stored attachment unreadable", "A file in the state directory is damaged or cannot be read or written.", "Remove the file shown; its pod's address is then taken from the API server.";
    POD_INTERFACE_GONE = 3025, "interface of a pod gone", "The host side of a pod's veth was deleted while the pod runs, and nobody can put it back: the pod is cut off.", "Delete the pod, so that a new one takes its place; find out who deleted it: `ip monitor link`.";
    KERNEL_TOO_OLD = 3030, "kernel too old", "The kernel misses something that Rampart programs.", "Use Linux 5.10 or later.";
    CAPABILITY_MISSING = 3031, "capability missing", "The agent runs without a capability that it needs.", "Restore the securityContext of the DaemonSet: `rctl upgrade`.";
    FOREIGN_FIREWALL = 3032, "another firewall drops forwarded packets", "A base chain of somebody else has the policy drop where packets of pods pass: what it does not accept is lost after we accept it.", "Let it accept the pod CIDRs, or switch that firewall off on nodes.";
    LEFTOVER_CNI = 3033, "remains of another network plugin", "Chains or interfaces of another network plugin are on the node; its rules may drop packets or change their addresses.", "Remove that plugin, then its remains (its own clean-up, or a reboot).";
    RP_FILTER_STRICT = 3034, "strict reverse path filter", "rp_filter is 1: a packet that arrives by another uplink than the way back is dropped, as happens with two ToR switches.", "Set net.ipv4.conf.all.rp_filter and that of the uplink to 2 or 0.";
    MTU_MISMATCH = 3035, "MTU of pods larger than that of the uplink", "Packets of pods do not fit the uplink: large transfers stall where path MTU discovery is filtered.", "Lower the pods' MTU (NetworkConfiguration spec.mtu) or raise the uplink's; pods get it when they start.";
    NO_SERVICE_PROXY = 3036, "no kube-proxy seen", "Nothing on the node looks like kube-proxy: Services do not work, unless another program serves them.", "Start kube-proxy, in iptables or nftables mode.";
    NFT_REFUSED = 4001, "kernel refused a transaction", "nf_tables did not take a change; the last good ruleset stays.", "Report it with the log line; the agent retries and rebuilds.";
    NFT_DRIFT = 4002, "table changed by someone else", "Someone else changed table inet rampart.", "It was repaired. Find out who did it: `nft monitor`.";
    POLICY_RULE_UNREADABLE = 4003, "policy rule cannot be understood", "A rule of a NetworkPolicy is not valid; it admits nothing, and the policy still isolates.", "Fix the field shown.";
    GATE_NOT_IN_SYNC = 4020, "agent not in sync", "A pod starts and the agent does not know all objects yet, or has not written the table.", "See `rctl status` for what is missing; the runtime tries again.";
    GATE_POD_UNKNOWN = 4021, "pod not seen yet", "A pod starts, and its Pod object has not reached the agent: the API server is slow or away, or the Pod is already gone.", "Check the API server; the runtime tries again.";
    GATE_NOT_PROGRAMMED = 4022, "policy of a pod not in the kernel", "A pod starts, and the kernel has not acknowledged its policy in time.", "See `rctl status` and the agent's log for what the kernel refused; the runtime tries again.";
    GATE_UNKNOWN_ATTACHMENT = 4023, "attachment not known", "The runtime asks for an attachment that the agent does not have, or has otherwise.", "Restart the pod.";
    GATE_INVALID_REQUEST = 4024, "CNI request cannot be read", "The plugin's request is not what this agent expects: plugin and agent are of different versions.", "Let the agent install its own plugin, or install the same version.";
    AGENT_UNREACHABLE = 5001, "agent not reachable", "No agent answers on the control socket.", "Start the agent, or give its socket with --socket.";
    NOT_PRIVILEGED = 5002, "not enough privilege", "The command needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).", "Run it with sudo.";
    MISSING_PROGRAM = 5003, "program missing", "The lab needs a program that is not installed.", "Install the package shown.";
    NOT_FOUND = 5004, "not found", "No object of that name.", "List them with `rctl get`.";
    TIMED_OUT = 5005, "timed out", "What was waited for did not happen in time.", "See `rctl status` for what is pending.";
    KUBECONFIG = 5010, "no usable kubeconfig", "No agent runs on this machine, and there is no kubeconfig that leads to a cluster.", "Give one with --kubeconfig or KUBECONFIG (and --context), or run rctl on a node.";
    CLUSTER_UNREACHABLE = 5011, "API server not reachable", "The API server of the kubeconfig does not answer.", "Check the server address, the network and the proxy: `kubectl --context ... version`.";
    FORBIDDEN = 5012, "not permitted", "RBAC does not give this user what rctl needs.", "Let an administrator bind the Role rampart-remote (in the namespace of Rampart) and the ClusterRole rampart-viewer to the user.";
    UNAUTHENTICATED = 5013, "credentials not accepted", "The API server does not accept the user's certificate or token; it may have expired.", "Log in again, or fix the user in the kubeconfig.";
    NOT_INSTALLED = 5014, "no agents installed", "No pod of the agent exists in the cluster.", "Install Rampart with `rctl install`, or name its namespace with --agent-namespace. If its objects were deleted (`kubectl delete -f`), the nodes still route and filter as they did, and no new pod starts: `rctl uninstall` cleans them.";
    POD_NOT_RUNNING = 5015, "agent pod not running", "The agent's pod on that node is not running.", "See which it is and why: `kubectl -n rampart-system get pods -o wide`, then `describe pod` of it.";
    API_REFUSED = 5016, "API server refused a request", "The API server answered with an error.", "The message is the API server's own.";
    VERSION_SKEW = 5017, "versions differ", "Agents and rctl are of different versions; an upgrade may be under way, or have stopped half-way.", "Finish it: `rctl upgrade`, or use the rctl of the agents' version.";
    IMAGE_NOT_PULLED = 5018, "image cannot be pulled", "The kubelet of that node cannot get the image of Rampart.", "Import it into every node (`ctr -n k8s.io images import rampart-image.tar`), or push it to a registry that the nodes reach and name that: `rctl upgrade --set image.repository=REGISTRY/rampart --set image.tag=TAG`.";
    REPORT_REFUSED = 5101, "API server refuses reports", "RBAC does not let the agent write its status, or the API server does not know its kinds.", "Apply the CustomResourceDefinitions and the ClusterRole of this version again; routes and policy do not need it.";
}
