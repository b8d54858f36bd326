//! Pods get their interface here. Two sides, one binary:
//!
//! - [`plugin`]: what the container runtime executes as `rampart-cni` for each pod. It has no state of
//!   its own; all names follow from container id and interface name, so whatever a killed ADD left
//!   behind is found by the DEL (or GC) after it.
//! - [`gate`], [`store`] and [`install`]: the agent's side. The gate lets an ADD return when the pod's policy
//!   is in the kernel, the store keeps attachments over a restart, the installer puts plugin and network
//!   list on the node.
//!
//! The plugin never programs policy, and the agent never makes a pod's interface; but when somebody
//! else takes routes of a pod away, the agent puts them back as the plugin made them.

pub(crate) mod conflist;
pub mod gate;
pub mod install;
pub mod name;
pub mod plugin;
pub mod store;
pub(crate) mod uplink;
pub(crate) mod waiters;
