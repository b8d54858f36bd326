//! Ports, paths and numbers that more than one crate must know.

/// API group of our kinds.
pub const GROUP: &str = "rampart.network";
/// API version of our kinds.
pub const VERSION: &str = "v1alpha1";
/// BGP port (RFC 4271 §8.2.1).
pub const BGP_PORT: u16 = 179;
/// Default AS number, as in Calico.
pub const DEFAULT_ASN: u32 = 64512;
/// rtnetlink protocol number that tags our routes (in the range left to daemons by the kernel's
/// `rtnetlink.h`; unused by iproute2's `rt_protos`).
pub const ROUTE_PROTOCOL: u8 = 82;
/// File name of the control socket inside the run directory.
pub const SOCKET_NAME: &str = "agent.sock";
/// Default run directory.
pub const RUN_DIR: &str = "/run/rampart";
/// Default address of `/healthz`, `/readyz` and `/metrics`.
pub const METRICS_ADDRESS: &str = "127.0.0.1:9472";
/// Node label that names the rack.
pub const RACK_LABEL: &str = "topology.rampart.network/rack";
/// The lab's directory of run state: `rctl` merges all agents found below it.
pub const LAB_DIR: &str = "/run/rampart-lab";
/// Default directory of what must outlive a restart: snapshot of the input, CNI attachments.
pub const STATE_DIR: &str = "/var/lib/rampart";
/// BGP port of the route reflectors: an agent on the same node has 179.
pub const REFLECTOR_PORT: u16 = 1790;
/// Default address of `/healthz`, `/readyz` and `/metrics` of a route reflector.
pub const REFLECTOR_METRICS_ADDRESS: &str = "127.0.0.1:9473";
/// Secret, in the namespace of Rampart, that agents may read: passwords of peers, by key.
pub const PASSWORD_SECRET: &str = "rampart-bgp-passwords";
/// Namespace that Rampart is installed in.
pub const NAMESPACE: &str = "rampart-system";
/// Pod label that tells what a pod of ours is.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Value of [`COMPONENT_LABEL`] of the DaemonSet's pods.
pub const COMPONENT_AGENT: &str = "agent";
/// Value of [`COMPONENT_LABEL`] of the reflector Deployment's pods.
pub const COMPONENT_REFLECTOR: &str = "route-reflector";
/// Value of [`COMPONENT_LABEL`] of the pods that clean nodes for `rctl uninstall`.
pub const COMPONENT_CLEANUP: &str = "cleanup";
/// Where pods of ours have directories of the host.
pub const HOST_MOUNT: &str = "/host";
/// Node condition that is False where pods have a network.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
/// Our reason in [`NETWORK_UNAVAILABLE`].
pub const NETWORK_UNAVAILABLE_REASON: &str = "RampartIsUp";
/// Image without its tag; the tag is the version.
pub const IMAGE: &str = "rampart.network/rampart";
/// Name of the CNI network, and of host-local's directory of addresses.
pub const CNI_NETWORK: &str = "rampart";
/// Where host-local keeps the addresses that it gave out, a directory for each network.
pub const IPAM_DIR: &str = "/var/lib/cni/networks";
/// File name of the plugin.
pub const CNI_PLUGIN: &str = "rampart-cni";
/// File name of the conflist that the agent writes; runtimes take the first by name.
pub const CNI_CONFLIST: &str = "10-rampart.conflist";
/// Prefix of the host side interfaces of pods.
pub const POD_INTERFACE_PREFIX: &str = "rv";
/// IPv4 gateway of every pod (proxied by the host side of its veth).
pub const POD_GATEWAY: &str = "169.254.1.1";
/// IPv6 gateway of every pod: a link-local address of the host side of its veth.
pub const POD_GATEWAY_V6: &str = "fe80::1";
/// rtnetlink protocol number of the host's routes to its own pods: not [`ROUTE_PROTOCOL`], so that
/// what BGP writes and what the CNI plugin writes are never taken for each other.
pub const POD_ROUTE_PROTOCOL: u8 = 83;
/// Directory of CNI attachments inside the state directory.
pub const ATTACHMENTS_DIR: &str = "attachments";
/// Name of the overlay interface.
pub const OVERLAY_INTERFACE: &str = "rampart-vxlan";
/// Default VXLAN network identifier.
pub const VXLAN_VNI: u32 = 4179;
/// Default UDP port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
