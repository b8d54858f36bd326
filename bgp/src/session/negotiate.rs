//! What two OPENs agree on: a pure function, so both ends and every test see the same.

use std::time::Duration;

use crate::config::PeerConfig;
use crate::session::Local;
use crate::types::{Asn, Families, Family, RouterId};
use crate::wire::Context;
use crate::wire::open::{Capability, Open, VERSION};

/// The result of a capability exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// How to read what the peer sends.
    pub receive: Context,
    /// How to write to the peer.
    pub send: Context,
    /// The smaller of the two proposals; zero = no keepalives, no hold timer (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// A third of the hold time, before jitter.
    pub keepalive: Duration,
    /// Families that both sides have.
    pub families: Families,
    /// The peer understands ROUTE-REFRESH (RFC 2918), plain or enhanced.
    pub route_refresh: bool,
    /// The session is external.
    pub external: bool,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer's BGP Identifier.
    pub peer_router_id: RouterId,
    /// The peer's hostname (FQDN capability), as sent.
    pub peer_hostname: Option<Vec<u8>>,
    /// What the peer says about graceful restart (RFC 4724), if we offered it as well.
    pub graceful_restart: Option<GracefulRestart>,
    /// Names of the capabilities that both sides have, for display.
    pub capabilities: Vec<&'static str>,
}

/// A peer's graceful restart capability, as it holds on a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: it has restarted.
    pub restarted: bool,
    /// N bit of both sides: a NOTIFICATION that is no Hard Reset leaves routes alone (RFC 8538).
    pub notification: bool,
    /// How long it asks us to keep its routes.
    pub restart_time: Duration,
    /// Families it lists, of those that we route: their routes may be kept when the session ends.
    pub families: Families,
    /// F bit: those of `families` that it went on forwarding in before this session.
    pub forwarding: Families,
}

/// Longest restart time that the 12 bits of the field hold.
const MAX_RESTART_SECONDS: u16 = 4095;

/// Our OPEN for a peer.
///
/// Offers what this speaker really does: no add-path. The F bit is always set: the kernel forwards
/// without us, whatever happens to this process. `restarted` is the R bit: this speaker has just
/// started and may have run before; a peer that restarts at the same time need not wait for us.
#[must_use]
pub fn local_open(local: &Local, peer: &PeerConfig, restarted: bool) -> Open {
    let mut capabilities: Vec<_> =
        peer.families.iter().map(|f| Capability::Multiprotocol(f.afi(), 1)).collect();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::ExtendedMessage,
        Capability::FourOctetAs(local.asn),
        Capability::EnhancedRouteRefresh,
    ]);
    capabilities.extend(peer.graceful_restart.map(|settings| {
        let seconds = u16::try_from(settings.restart_time.as_secs()).unwrap_or(u16::MAX);
        Capability::GracefulRestart {
            restarted,
            notification: settings.notification,
            restart_time_seconds: seconds.min(MAX_RESTART_SECONDS),
            families: peer.families.iter().map(|family| (family.afi(), 1, true)).collect(),
        }
    }));
    if !local.hostname.is_empty() {
        capabilities.push(Capability::Fqdn(local.hostname.clone().into_bytes(), Vec::new()));
    }
    Open {
        version: VERSION,
        my_as: Open::my_as_of(local.asn),
        hold_time_seconds: u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX),
        router_id: local.router_id.0,
        capabilities,
    }
}

/// Families an OPEN offers. Without any multiprotocol capability that is IPv4 unicast, as before
/// RFC 4760.
#[must_use]
pub fn families_of(open: &Open) -> Families {
    let mut families = Families::NONE;
    let mut any = false;
    for capability in &open.capabilities {
        if let Capability::Multiprotocol(afi, safi) = capability {
            any = true;
            if let Some(family) = Family::from_afi_safi(*afi, *safi) {
                families.insert(family);
            }
        }
    }
    if any { families } else { Families { ipv4: true, ipv6: false } }
}

/// What holds on a session between these two.
#[must_use]
pub fn negotiate(local: &Open, remote: &Open) -> Negotiated {
    let common = |wanted: &Capability| has(local, wanted) && has(remote, wanted);
    let families = families_of(local).intersection(families_of(remote));
    let four_octet_as = four_octet(local) && four_octet(remote);
    // RFC 8654 lets a peer that did not offer it send long messages to one that did. No speaker
    // does, and a stray length is likelier a broken stream than such a peer.
    let extended_message = common(&Capability::ExtendedMessage);
    let enhanced_refresh = common(&Capability::EnhancedRouteRefresh);
    let external = local.asn() != remote.asn();
    let hold_seconds = local.hold_time_seconds.min(remote.hold_time_seconds);
    let hold_time = Duration::from_secs(hold_seconds.into());
    let context = |add_path| Context {
        four_octet_as,
        extended_message,
        families,
        add_path,
        enhanced_refresh,
        external,
        peer_asn: remote.asn(),
    };
    Negotiated {
        receive: context(families.intersection(add_path(remote, local))),
        send: context(families.intersection(add_path(local, remote))),
        hold_time,
        keepalive: hold_time / 3,
        families,
        route_refresh: common(&Capability::RouteRefresh) || enhanced_refresh,
        external,
        peer_asn: remote.asn(),
        peer_router_id: RouterId(remote.router_id),
        peer_hostname: remote.capabilities.iter().find_map(|c| match c {
            Capability::Fqdn(hostname, _) => Some(hostname.clone()),
            _ => None,
        }),
        graceful_restart: agreed_restart(local, remote),
        capabilities: common_names(local, remote),
    }
}

fn has(open: &Open, wanted: &Capability) -> bool {
    open.capabilities.contains(wanted)
}

fn four_octet(open: &Open) -> bool {
    open.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)))
}

/// Families in which `sender` may send several paths and `receiver` takes them (RFC 7911 §4).
fn add_path(sender: &Open, receiver: &Open) -> Families {
    const RECEIVE: u8 = 1;
    const SEND: u8 = 2;
    let with = |open: &Open, bit: u8| {
        let mut families = Families::NONE;
        for capability in &open.capabilities {
            if let Capability::AddPath(entries) = capability {
                for (afi, safi, direction) in entries {
                    if direction & bit != 0
                        && let Some(family) = Family::from_afi_safi(*afi, *safi)
                    {
                        families.insert(family);
                    }
                }
            }
        }
        families
    };
    with(sender, SEND).intersection(with(receiver, RECEIVE))
}

/// Both must have offered it.
fn agreed_restart(local: &Open, remote: &Open) -> Option<GracefulRestart> {
    let ours = graceful_restart(local)?;
    let theirs = graceful_restart(remote)?;
    Some(GracefulRestart { notification: ours.notification && theirs.notification, ..theirs })
}

fn graceful_restart(remote: &Open) -> Option<GracefulRestart> {
    remote.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart { restarted, notification, restart_time_seconds, families } => {
            let (mut listed, mut forwarding) = (Families::NONE, Families::NONE);
            for (afi, safi, preserved) in families {
                if let Some(family) = Family::from_afi_safi(*afi, *safi) {
                    listed.insert(family);
                    if *preserved {
                        forwarding.insert(family);
                    }
                }
            }
            Some(GracefulRestart {
                restarted: *restarted,
                notification: *notification,
                restart_time: Duration::from_secs((*restart_time_seconds).into()),
                families: listed,
                forwarding,
            })
        }
        _ => None,
    })
}

/// Name of a capability for display; `None` where the pair needs a closer look, or we have none.
const fn name(capability: &Capability) -> Option<&'static str> {
    Some(match capability {
        Capability::Multiprotocol(1, 1) => "ipv4-unicast",
        Capability::Multiprotocol(2, 1) => "ipv6-unicast",
        Capability::RouteRefresh => "route-refresh",
        Capability::ExtendedNextHop(_) => "extended-next-hop",
        Capability::ExtendedMessage => "extended-message",
        Capability::Role(_) => "role",
        Capability::GracefulRestart { .. } => "graceful-restart",
        Capability::FourOctetAs(_) => "4-octet-as",
        Capability::AddPath(_) => "add-path",
        Capability::EnhancedRouteRefresh => "enhanced-route-refresh",
        Capability::Fqdn(..) => "fqdn",
        Capability::Multiprotocol(..) | Capability::Unknown(..) => return None,
    })
}

/// Names in the order of our own OPEN.
fn common_names(local: &Open, remote: &Open) -> Vec<&'static str> {
    let theirs: Vec<_> = remote.capabilities.iter().filter_map(name).collect();
    local.capabilities.iter().filter_map(name).filter(|n| theirs.contains(n)).collect()
}
