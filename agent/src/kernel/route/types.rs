//! Words of this module: what is wanted, what the kernel holds, what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// Where packets to a prefix should go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Towards these addresses; more than one is ECMP.
    NextHops(Vec<IpAddr>),
    /// Nowhere: the part of our own pod CIDR that no pod uses. More specific routes win over it.
    Blackhole,
}

/// One change of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: IpNet,
    /// Where to; `None` = no longer wanted.
    pub target: Option<Target>,
}

/// One way out: a gateway on a link. Ordered, so that sets of them compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Neighbour on the link.
    pub gateway: IpAddr,
    /// Interface index.
    pub interface: u32,
    /// The gateway is not inside a connected prefix of the interface, and that is intended.
    pub onlink: bool,
}

/// A route as it is in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Ascending, no duplicates, at least one.
    Paths(Arc<[Path]>),
    /// Drops.
    Blackhole,
    /// Carries our tag, but is nothing we would write (a device route, another type).
    Odd,
}

/// Next hops that are neighbours on the overlay's interface, wherever the kernel's FIB leads for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayLink {
    /// Interface index.
    pub interface: u32,
    /// Each next hop, and the gateway that its routes have there.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
}

/// Why a next hop has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unresolved {
    /// The kernel has no route to it.
    NoRoute,
    /// The kernel's route to it is a blackhole, unreachable or prohibit route.
    Dropped,
    /// It is an address of this node.
    OwnAddress,
    /// The only route to it is one that itself goes through this next hop.
    Recursive,
    /// The link its path uses is down.
    LinkDown,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "no route to the next hop",
            Self::Dropped => "the route to the next hop drops packets",
            Self::OwnAddress => "the next hop is an address of this node",
            Self::Recursive => "the next hop is reachable only through this route itself",
            Self::LinkDown => "the link to the next hop is down",
        })
    }
}

/// What became of a wanted route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// In the kernel, acknowledged.
    Installed,
    /// In the kernel as a blackhole, acknowledged.
    Blackhole,
    /// In the kernel, acknowledged, and not used: somebody else's route to the prefix has a lower
    /// metric and leads elsewhere. In the words of `ip route`.
    Overridden(String),
    /// Not written yet: waits for its turn, or for the start of writing.
    Waiting,
    /// No next hop has a path; tried again when that may have changed.
    Pending(Unresolved),
    /// The kernel refused it; tried again with back-off.
    Failed(String),
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("ok"),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Overridden(by) => write!(f, "overridden: {by}"),
            Self::Waiting => f.write_str("pending"),
            Self::Pending(why) => write!(f, "pending: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// A wanted route and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteReport {
    /// The prefix.
    pub prefix: IpNet,
    /// Next hops wanted; empty for a blackhole.
    pub next_hops: Vec<IpAddr>,
    /// Gateways in the kernel now; empty for a blackhole or nothing.
    pub gateways: Vec<IpAddr>,
    /// State.
    pub state: RouteState,
}

/// Numbers about all routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batches of changes taken from [`super::Routes`] so far, whoever sent them.
    pub batches: u64,
    /// Writing has begun.
    pub in_sync: bool,
    /// Routes wanted.
    pub desired: usize,
    /// Wanted and acknowledged as wanted.
    pub installed: usize,
    /// Of the installed ones, not used by the kernel: see [`RouteState::Overridden`].
    pub overridden: usize,
    /// Wanted, waiting for a path to a next hop.
    pub pending: usize,
    /// Wanted, refused by the kernel.
    pub failed: usize,
    /// Writes and removals that have not been sent to the kernel yet.
    pub queued: usize,
    /// Routes found at start that are left as they are until [`super::Routes::release`].
    pub held: usize,
    /// Times a route of ours was found deleted or changed by someone else.
    pub repaired: u64,
}

/// Routes of ours that the kernel does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// One of them.
    pub prefix: IpNet,
    /// The route that is used instead, in the words of `ip route`.
    pub by: String,
    /// How many there are.
    pub count: usize,
}

/// What the outside hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteEvent {
    /// Someone else deleted or changed routes of ours; they are being repaired.
    Drift {
        /// One of them.
        prefix: IpNet,
        /// How many since the last such event.
        count: u64,
    },
    /// The kernel refused routes.
    Refused {
        /// One of them.
        prefix: IpNet,
        /// Why.
        reason: String,
        /// How many since the last such event.
        count: u64,
    },
    /// Which routes of ours the kernel does not use has changed; `None`: it uses all.
    Overridden(Option<Overridden>),
    /// The kernel now routes a watched pod address to this interface; `None` = to none.
    Interface {
        /// Pod address.
        address: IpAddr,
        /// Interface name.
        interface: Option<String>,
    },
    /// The kernel has acknowledged all that it was asked for: so long after what it follows from
    /// happened. Refused routes, and those without a path to their next hop, are not waited for.
    Settled(Duration),
    /// Netlink itself failed; the thread has resynchronised, or goes on trying to.
    Trouble(String),
}
