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
