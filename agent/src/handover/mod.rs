//! From the mesh to reflectors and back, make before break, without anybody's help.
//!
//! # The rule
//!
//! Sessions with all reflectors are there as soon as their pods are, beside the mesh. For each other
//! node the mesh session is *wanted* (we dial), or on *standby* (we do not dial, but the other side
//! may, and then it is there). Each node decides for itself, with each other node:
//!
//! - **To standby**, and the session is closed, when the node's prefixes have been *covered* for the
//!   soak time: each of them, with the next hops in use, is held out by at least two reflectors, or by
//!   the one there is, in sessions that are up and have told everything (End-of-RIB).
//! - **Wanted again** when a prefix of the node has not been held out by *any* reflector for
//!   [`PATIENCE`]. In between (one reflector of two is away) nothing changes: hysteresis.
//! - Each return to the mesh doubles the soak time of that node, up to [`SOAK_LIMIT`], so that a
//!   reflector that flaps does not make the mesh flap.
//! - A start with reflectors begins on standby: they get [`PATIENCE`] to tell us of the others.
//!
//! # Why no packet is lost
//!
//! What matters is the *other side*: it loses our prefixes of the mesh session when we close it.
//! - The reflectors hold out its prefixes to us, so it has sessions with them; so have we. A reflector
//!   that has both sends our prefixes there, at once; the soak time is what "at once" may take.
//! - Should it not have them (the reflector refuses ours, its own sessions are stuck): the session is
//!   closed with Cease 6/4, which under RFC 8538 leaves our routes there, stale, for the restart time of
//!   two minutes. They are not covered in its eyes, so within [`PATIENCE`] it dials us, and we, on
//!   standby, accept. It keeps the session as long as it needs it: we close it again only after a
//!   doubled soak time, in the same way.
//! - Between mesh path and reflected path only the path changes, not the next hop: nothing is written
//!   to the kernel.
//!
//! When reflectors fail, what they told stays by graceful restart (RFC 4724) for two minutes, and the
//! mesh is back after [`PATIENCE`] and a handshake. When their *pods* are deleted, their sessions are
//! kept in the configuration as *leaving*, so that this holds for them, too, until everything that is
//! forwarded is known from somebody who stays, or [`LEAVE_LIMIT`] is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bgp::config::{Config, PeerConfig};
use ipnet::IpNet;

use crate::config::{Desired, MeshPeer};

/// How long a prefix may be without any reflector before the mesh session is wanted again.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long a node must be covered before its mesh session goes.
pub const SOAK: Duration = Duration::from_secs(5);
/// The soak time is not doubled beyond this.
pub const SOAK_LIMIT: Duration = Duration::from_secs(600);
/// How long reflectors whose pods are gone are waited for: as long as their routes would stay.
pub const LEAVE_LIMIT: Duration = Duration::from_secs(120);
/// How often the sessions are looked at while there is anything to decide.
pub const PERIOD: Duration = Duration::from_millis(500);
/// So many reflectors make a node covered, if there are so many.
const ENOUGH: usize = 2;

/// What the speaker says now.
#[derive(Debug, Default)]
pub struct Sight {
    /// Peers whose session is up.
    pub established: Vec<SocketAddr>,
    /// Of each prefix that is forwarded: how many reflectors hold it out, of those that stay.
    pub by_reflectors: BTreeMap<IpNet, usize>,
    /// The same of all peers but those that leave. Needed only while somebody leaves.
    pub by_staying: BTreeMap<IpNet, usize>,
}

/// The mesh in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// Every session is wanted.
    #[default]
    On,
    /// Some are on standby.
    Draining,
    /// All are on standby.
    Off,
}

impl std::fmt::Display for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Draining => "draining",
            Self::Off => "off",
        })
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The configuration has changed: [`Handover::shape`] it again.
    pub changed: bool,
    /// Sessions to close after that.
    pub close: Vec<SocketAddr>,
}

/// Decides. Pure: what is seen and the time come in, the configuration and what to close come out.
#[derive(Debug, Default)]
pub struct Handover {
    mesh: BTreeMap<SocketAddr, Member>,
    reflectors: Vec<SocketAddr>,
    leaving: BTreeMap<SocketAddr, Leaving>,
    /// The last settings of each reflector, for when it leaves.
    settings: BTreeMap<SocketAddr, PeerConfig>,
}

#[derive(Debug)]
struct Member {
    prefixes: Vec<IpNet>,
    wanted: bool,
    /// Since when enough reflectors hold out its prefixes.
    covered: Option<Instant>,
    /// Since when none does.
    bare: Option<Instant>,
    /// Since when its session is up.
    up: Option<Instant>,
    /// We have closed its session once, since it was wanted last.
    closed: bool,
    soak: Duration,
}

#[derive(Debug)]
struct Leaving {
    config: PeerConfig,
    since: Instant,
}

impl Handover {
    /// What is wanted has changed.
    pub fn update(&mut self, now: Instant, desired: &Desired) {
        let is_left = |reflector: &SocketAddr| !desired.reflectors.contains(reflector);
        for reflector in self.reflectors.iter().filter(|reflector| is_left(reflector)) {
            if let Some(config) = self.settings.remove(reflector) {
                // Nobody dials where nobody is.
                let config = PeerConfig { passive: true, standby: true, ..config };
                self.leaving.insert(*reflector, Leaving { config, since: now });
            }
        }
        // One that came back, or whose place somebody else has, does not leave any more.
        let is_wanted =
            |endpoint: &SocketAddr| desired.config.peers.iter().any(|p| p.endpoint() == *endpoint);
        self.leaving.retain(|endpoint, _| !is_wanted(endpoint));
        self.reflectors.clone_from(&desired.reflectors);
        for peer in &desired.config.peers {
            if self.reflectors.contains(&peer.endpoint()) {
                self.settings.insert(peer.endpoint(), peer.clone());
            }
        }
        self.mesh.retain(|endpoint, _| desired.mesh.iter().any(|peer| peer.endpoint == *endpoint));
        for MeshPeer { endpoint, prefixes } in &desired.mesh {
            let reflected = !self.reflectors.is_empty();
            let member = self.mesh.entry(*endpoint).or_insert_with(|| Member {
                prefixes: Vec::new(),
                wanted: !reflected,
                covered: None,
                bare: reflected.then_some(now),
                up: None,
                closed: false,
                soak: SOAK,
            });
            member.prefixes.clone_from(prefixes);
            // Nobody else will tell: not a matter of patience.
            member.wanted |= !reflected;
        }
    }

    /// There is something to decide: call [`Handover::step`] every [`PERIOD`].
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.reflectors.is_empty() || !self.leaving.is_empty()
    }

    /// The reflectors that stay.
    #[must_use]
    pub fn reflectors(&self) -> &[SocketAddr] {
        &self.reflectors
    }

    /// Some reflector leaves.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// This one leaves.
    #[must_use]
    pub fn is_leaving(&self, peer: &SocketAddr) -> bool {
        self.leaving.contains_key(peer)
    }

    /// The mesh as a whole.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        let wanted = self.mesh.values().filter(|member| member.wanted).count();
        match wanted {
            0 if !self.reflectors.is_empty() => Mesh::Off,
            all if all == self.mesh.len() => Mesh::On,
            _ => Mesh::Draining,
        }
    }

    /// The configuration as it should be now.
    #[must_use]
    pub fn shape(&self, mut config: Config) -> Config {
        for peer in &mut config.peers {
            if self.mesh.get(&peer.endpoint()).is_some_and(|member| !member.wanted) {
                (peer.passive, peer.standby) = (true, true);
            }
        }
        config.peers.extend(self.leaving.values().map(|leaving| leaving.config.clone()));
        config.peers.sort_by_key(PeerConfig::endpoint);
        config
    }

    /// Looks at the sessions.
    pub fn step(&mut self, now: Instant, sight: &Sight) -> Step {
        let mut step = Step::default();
        let enough = self.reflectors.len().min(ENOUGH);
        let usable = self.reflectors.iter().filter(|r| sight.established.contains(r)).count();
        for (endpoint, member) in &mut self.mesh {
            let held = member.prefixes.iter().map(|net| sight.by_reflectors.get(net).copied());
            // A node without prefixes: whether it is a client there is not to be seen.
            let held = held.map(|count| count.unwrap_or(0)).min().unwrap_or(usable).min(usable);
            step.changed |= member.turn(now, held, enough);
            if member.is_spare(now, sight.established.contains(endpoint)) {
                step.close.push(*endpoint);
            }
        }
        let before = self.leaving.len();
        let everything_stays = !sight.by_staying.values().any(|holders| *holders == 0);
        self.leaving.retain(|endpoint, leaving| {
            let away = now.saturating_duration_since(leaving.since);
            let settled = everything_stays && away >= PATIENCE;
            // One that is still there has not been stopped yet: what it tells is as good as ever.
            let up = sight.established.contains(endpoint);
            away < LEAVE_LIMIT && (up || !settled)
        });
        step.changed |= self.leaving.len() != before;
        step
    }
}

impl Member {
    /// Takes note of how many reflectors hold it out; true if it changes sides.
    fn turn(&mut self, now: Instant, held: usize, enough: usize) -> bool {
        let for_so_long = |since: Instant| now.saturating_duration_since(since);
        let before = self.wanted;
        if enough > 0 && held >= enough {
            self.bare = None;
            let covered = for_so_long(*self.covered.get_or_insert(now));
            self.wanted &= covered < self.soak;
            if covered >= SOAK_LIMIT {
                self.soak = SOAK;
            }
        } else if held > 0 {
            (self.covered, self.bare) = (None, None);
        } else {
            self.covered = None;
            let bare = for_so_long(*self.bare.get_or_insert(now));
            if !self.wanted && bare >= PATIENCE {
                (self.wanted, self.closed) = (true, false);
                self.soak = (self.soak * 2).min(SOAK_LIMIT);
            }
        }
        self.wanted != before
    }

    /// Its session is up and neither side should need it: true once, then not for a while.
    fn is_spare(&mut self, now: Instant, established: bool) -> bool {
        if !established {
            self.up = None;
            return false;
        }
        let up = *self.up.get_or_insert(now);
        let soaked = |since: Instant, soak: Duration| now.saturating_duration_since(since) >= soak;
        let spare = !self.wanted
            && soaked(up, self.soak)
            && self.covered.is_some_and(|since| soaked(since, self.soak));
        if spare {
            self.up = None;
            if std::mem::replace(&mut self.closed, true) {
                // The other side opened it again, so it needed it: not so soon the next time.
                self.soak = (self.soak * 2).min(SOAK_LIMIT);
            }
        }
        spare
    }
}

#[cfg(test)]
mod tests;
