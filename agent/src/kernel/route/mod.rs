//! Kernel routes: what BGP learnt and what we own, written into the main table and kept there.
//!
//! One thread owns everything (`writer`); others talk to it through a [`Routes`] handle.
//!
//! # How a restarted agent knows what is its own
//!
//! Every route carries `rtprot` [`api::constant::ROUTE_PROTOCOL`] and the metric [`METRIC`]. At
//! start the main table is read, routes with that tag are adopted as they are, and after
//! [`Routes::in_sync`] only differences are written. On exit everything stays.
//!
//! # Foreign routes
//!
//! A route without our tag is never changed or removed:
//! - The metric is the same high number for both families, above what people, DHCP clients (100 to
//!   1024), router advertisements and connected routes (256 and 1024 in IPv6) use. The kernel keeps
//!   routes to one prefix with different metrics side by side and prefers the lower one, so
//!   somebody else's route wins while it exists, and ours takes over when it goes. That another
//!   one wins and leads elsewhere is told ([`RouteState::Overridden`]).
//! - A first write is `NLM_F_EXCL`: it fails when the prefix and the metric are taken, which is
//!   shown as the route's state and tried again when the other route goes. `NLM_F_REPLACE` is used
//!   only on a route known to be ours, and a removal names our `rtprot`.
//!
//! # Next hops
//!
//! A BGP next hop need not be on a link of ours. It is looked up in the kernel's FIB and the route
//! is written with the gateway and interface found there; looked up again when a route, address or
//! link that may matter changes. A route whose next hops all have no path is pending, not an error.
//! A next hop behind the overlay ([`Routes::set_overlay`]) is not looked up: it is a neighbour there.

mod events;
mod handle;
mod hops;
mod links;
mod lookup;
mod message;
mod pods;
mod rivals;
mod socket;
mod sweep;
mod tracker;
mod types;
mod writer;

pub use handle::{Events, Routes, Stopped};
pub(crate) use message::Batch;
pub use socket::NetlinkError;
pub(crate) use socket::Requests;
pub use sweep::{PodRemains, pod_remains, sweep_link, sweep_routes};
pub use types::{
    Installed, OverlayLink, Overridden, Path, RouteChange, RouteEvent, RouteReport, RouteState,
    Summary, Target, Unresolved,
};
pub use writer::{Options, spawn};

/// Metric of every route we write, both families; see the module's text for why it is high.
pub const METRIC: u32 = 2048;
