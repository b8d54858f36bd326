//! What the speaker and the route thread have to say, for people: one log line an event, and the
//! list of problems.

mod away;

use std::net::IpAddr;
use std::time::Instant;

use ::bgp::config::PeerConfig;
use ::bgp::md5::Md5;
use ::bgp::speaker::{DownReason, OpenRefusal, SpeakerEvent};
use ::bgp::wire::notification::{self, cease};
use api::error_code::{self, Code};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use self::away::Away;
use crate::bgp::DriverEvent;
use crate::cni::gate::Gate;
use crate::kernel::route::{Events, Overridden, RouteEvent, Routes};
use crate::kernel::tcp_md5;
use crate::observe::problems::Complaint;
use crate::observe::recorder::{Direction, Stage};
use crate::observe::{Area, Problems, Recorder};
use crate::reconcile::View;
use crate::reconcile_policy::Message;

/// The task.
#[derive(Debug)]
pub struct Herald {
    problems: Problems,
    recorder: Recorder,
    view: watch::Receiver<View>,
    policy: mpsc::Sender<Message>,
    routes: Routes,
    gate: Gate,
    away: Away,
}

impl Herald {
    /// A herald; it looks peers up in `view`.
    #[must_use]
    pub fn new(
        problems: Problems,
        recorder: Recorder,
        view: watch::Receiver<View>,
        policy: mpsc::Sender<Message>,
        routes: Routes,
        gate: Gate,
    ) -> Self {
        Self { problems, recorder, view, policy, routes, gate, away: Away::default() }
    }

    /// Runs until both sources have ended.
    pub async fn run(mut self, mut speaker: mpsc::Receiver<DriverEvent>, mut routes: Events) {
        loop {
            let late = self.away.next();
            tokio::select! {
                Some(event) = speaker.recv() => self.driver(event),
                Some(event) = routes.recv() => self.route(event).await,
                // Peers that are no longer configured have no problems.
                Ok(()) = self.view.changed() => self.forget_strangers(),
                () = tokio::time::sleep_until(late.unwrap_or_else(Instant::now).into()), if late.is_some() => {
                    for (peer, complaint) in self.away.due(Instant::now()) {
                        self.problems.raise(Area::Peer, format!("{peer}|session"), complaint);
                    }
                }
                else => return,
            }
        }
    }

    fn forget_strangers(&mut self) {
        let Some(desired) = self.view.borrow().desired.clone() else { return };
        self.away.retain(|peer| desired.config.peers.iter().any(|p| p.address == peer));
        let known = |id: &str| {
            let address = id.split('|').next().unwrap_or(id);
            let peers = desired.config.peers.iter();
            peers.filter(|peer| !peer.standby).any(|peer| peer.address.to_string() == address)
        };
        self.problems.retain(Area::Peer, |id| id.starts_with("unknown") || known(id));
        self.recorder.retain_peers(|name| desired.config.peers.iter().any(|p| p.name == name));
    }

    fn driver(&mut self, event: DriverEvent) {
        match event {
            DriverEvent::Speaker(event) => self.speaker(event),
            DriverEvent::Listening(port) => {
                info!(port, "listening for bgp");
                self.problems.resolve(Area::Listen, "port");
            }
            DriverEvent::ListenFailed { port, reason } => {
                let message = format!("cannot listen on port {port}: {reason}");
                let complaint = Complaint::new(error_code::LISTEN_FAILED, "bgp", message);
                self.problems.raise(Area::Listen, "port", complaint);
            }
            DriverEvent::Defect { peer } => {
                let message = "what it sent met a defect of the speaker; the session was closed";
                let code = error_code::MALFORMED_MESSAGE;
                self.problems.note(
                    Area::Peer,
                    format!("{peer}|defect"),
                    self.about(code, peer, message),
                );
            }
        }
    }

    fn speaker(&mut self, event: SpeakerEvent) {
        match event {
            SpeakerEvent::SessionUp { peer, router_id, families } => {
                let (name, _) = self.name(peer);
                info!(peer = %name, address = %peer, %router_id, ipv4 = families.ipv4, ipv6 = families.ipv6, "bgp session up");
                self.recorder.session_up(name);
                self.away.end(peer);
                self.problems.resolve(Area::Peer, &format!("{peer}|session"));
                self.problems.resolve(Area::Peer, &format!("{peer}|open"));
            }
            SpeakerEvent::SessionDown { peer, reason, established } => {
                self.session_down(peer, &reason, established);
            }
            SpeakerEvent::OpenRefused { peer, reason } => {
                let (code, words) = refused(reason);
                self.away.end(peer);
                self.problems.resolve(Area::Peer, &format!("{peer}|session"));
                let id = format!("{peer}|open");
                self.problems.raise(Area::Peer, id, self.about(code, peer, &words));
            }
            SpeakerEvent::MalformedMessage { peer, offset, reason } => {
                let words = format!("{reason} (octet {offset}); the session was reset");
                let id = format!("{peer}|message");
                let complaint = self.about(error_code::MALFORMED_MESSAGE, peer, &words);
                self.problems.note(Area::Peer, id, complaint);
            }
            SpeakerEvent::MalformedAttribute { peer, fault, disposition } => {
                let words = format!("attribute {}: {} ({disposition:?})", fault.code, fault.reason);
                let id = format!("{peer}|attribute");
                let complaint = self.about(error_code::MALFORMED_ATTRIBUTE, peer, &words);
                self.problems.note(Area::Peer, id, complaint);
            }
            SpeakerEvent::UnknownNeighbour { remote } => {
                let words = "is no configured peer; its connection was closed";
                let subject = format!("neighbour {}", remote.ip());
                let complaint = Complaint::new(error_code::UNKNOWN_NEIGHBOUR, subject, words)
                    .at(remote.to_string());
                self.problems.note(Area::Peer, format!("unknown {}", remote.ip()), complaint);
            }
            SpeakerEvent::EndOfRib { peer, family } => {
                let (name, _) = self.name(peer);
                debug!(peer = %name, address = %peer, %family, "bgp peer has told everything");
            }
            SpeakerEvent::PathsKept { peer, paths, restart_time } => {
                let (name, _) = self.name(peer);
                let seconds = restart_time.as_secs();
                info!(peer = %name, address = %peer, paths, seconds, "bgp peer restarts, its paths are kept");
                self.away.begin(peer, Instant::now(), restart_time);
            }
            SpeakerEvent::StaleRemoved { peer, paths } => {
                let (name, _) = self.name(peer);
                info!(peer = %name, address = %peer, paths, "kept paths were not sent again and are gone");
            }
            SpeakerEvent::Withheld { peer, prefixes: 0 } => {
                self.problems.resolve(Area::Peer, &format!("{peer}|next hop"));
            }
            SpeakerEvent::Withheld { peer, prefixes } => {
                let words = withheld(prefixes);
                let complaint = self.about(error_code::NO_NEXT_HOP, peer, &words);
                self.problems.raise(Area::Peer, format!("{peer}|next hop"), complaint);
            }
            SpeakerEvent::PrefixLimit { peer, limit } => {
                let words = format!("it sent more than {limit} prefixes (maxPrefixes)");
                let id = format!("{peer}|session");
                let complaint = self.about(error_code::PREFIX_LIMIT, peer, &words);
                self.problems.raise(Area::Peer, id, complaint);
            }
        }
    }

    fn session_down(&mut self, peer: IpAddr, reason: &DownReason, established: bool) {
        let (name, _) = self.name(peer);
        // Told again when there is a session again.
        self.problems.resolve(Area::Peer, &format!("{peer}|next hop"));
        let (mut code, mut words) = down(reason);
        if !established && self.is_any(peer, |config| config.ttl_security) {
            words += "; with ttlSecurity nothing gets through unless the peer sends with TTL 255";
        }
        let silent = matches!(reason, DownReason::ConnectFailed(why) if why.contains("timed out"));
        if silent && self.is_any(peer, |config| config.md5 != Md5::Off) {
            code = error_code::PASSWORD_MISMATCH;
            words = format!("{words}; {}", tcp_md5::SUSPICION);
        }
        info!(peer = %name, address = %peer, established, %code, reason = %words, "bgp session down");
        if let Some((direction, code)) = notified(reason) {
            self.recorder.notification(name, direction, code);
        }
        // Who falls silent does not restart, whatever is kept.
        if matches!(reason, DownReason::HoldTimerExpired | DownReason::SendHoldTimerExpired) {
            self.away.end(peer);
        }
        // The session that was kept speaks for itself, and OPENs that do not fit together have said
        // why: what follows from that is no news.
        let open = self.problems.stands(Area::Peer, &format!("{peer}|open"));
        if *reason == DownReason::Collision
            || open
            || self.is_meant(peer, reason)
            || !self.is_configured(peer)
        {
            return;
        }
        let complaint = self.about(code, peer, &words);
        if let Some(complaint) = self.away.withhold(peer, complaint) {
            self.problems.raise(Area::Peer, format!("{peer}|session"), complaint);
        }
    }

    async fn route(&self, event: RouteEvent) {
        match event {
            RouteEvent::Drift { prefix, count } => {
                let message = format!("changed by someone else and repaired, {count} routes");
                let subject = format!("route {prefix}");
                let complaint = Complaint::new(error_code::ROUTE_DRIFT, subject, message);
                self.problems.note(Area::Route, "drift", complaint);
            }
            RouteEvent::Refused { prefix, reason, count } => {
                self.recorder.failed(Stage::Routes);
                let subject = format!("route {prefix}");
                let message = format!("{reason} ({count} routes)");
                let complaint = Complaint::new(error_code::ROUTE_REFUSED, subject, message);
                if self.routes.summary().failed > 0 {
                    self.problems.raise(Area::Route, "refused", complaint);
                }
            }
            RouteEvent::Settled(took) => self.recorder.converged(took),
            RouteEvent::Overridden(None) => self.problems.resolve(Area::Route, "overridden"),
            RouteEvent::Overridden(Some(Overridden { prefix, by, count })) => {
                let message = format!("not used, the kernel prefers {by} ({count} routes)");
                let subject = format!("route {prefix}");
                let complaint = Complaint::new(error_code::ROUTE_OVERRIDDEN, subject, message);
                self.problems.raise(Area::Route, "overridden", complaint);
            }
            RouteEvent::Trouble(what) => warn!(problem = %what, "route netlink failed"),
            RouteEvent::Interface { address, interface } => {
                if interface.is_none() && self.gate.restore(address).await.is_err() {
                    warn!("the task of attachments has ended");
                }
                if self.policy.send(Message::Interface { address, interface }).await.is_err() {
                    warn!("the policy task has ended");
                }
            }
        }
        if self.routes.summary().failed == 0 {
            self.problems.resolve(Area::Route, "refused");
        }
    }

    fn about(&self, code: Code, peer: IpAddr, words: &str) -> Complaint {
        let (name, port) = self.name(peer);
        Complaint::new(code, format!("peer {name}"), words)
            .at(std::net::SocketAddr::new(peer, port).to_string())
    }

    /// That this session ended is no trouble: somebody meant it (Cease 6/4), or nobody needs it. Should
    /// it be needed and not come back, the attempts will tell.
    fn is_meant(&self, address: IpAddr, reason: &DownReason) -> bool {
        let desired = self.view.borrow().desired.clone();
        let peers: &[PeerConfig] = desired.as_ref().map_or(&[], |d| &d.config.peers);
        let mut there = peers.iter().filter(|peer| peer.address == address).peekable();
        let spare = there.peek().is_some() && there.all(|peer| peer.standby);
        spare
            || matches!(
                reason,
                DownReason::NotificationSent(n) | DownReason::NotificationReceived(n)
                    if (n.code, n.subcode) == (notification::error_code::CEASE, cease::ADMIN_RESET)
            )
    }

    /// The end of a session with somebody who is no peer any more comes in after the configuration
    /// that took him away: nobody would take back what is said then.
    fn is_configured(&self, address: IpAddr) -> bool {
        let desired = self.view.borrow().desired.clone();
        desired.is_none_or(|d| d.config.peers.iter().any(|peer| peer.address == address))
    }

    fn is_any(&self, address: IpAddr, what: fn(&PeerConfig) -> bool) -> bool {
        let desired = self.view.borrow().desired.clone();
        let peers: &[PeerConfig] = desired.as_ref().map_or(&[], |d| &d.config.peers);
        peers.iter().any(|peer| peer.address == address && what(peer))
    }

    /// Name and port of a peer.
    fn name(&self, address: IpAddr) -> (String, u16) {
        let desired = self.view.borrow().desired.clone();
        let peers: &[PeerConfig] = desired.as_ref().map_or(&[], |d| &d.config.peers);
        peers.iter().find(|peer| peer.address == address).map_or_else(
            || (address.to_string(), api::constant::BGP_PORT),
            |peer| (peer.name.clone(), peer.port),
        )
    }
}

/// A reason in words, with its code.
#[must_use]
pub fn down(reason: &DownReason) -> (Code, String) {
    match reason {
        DownReason::ConnectFailed(why) => {
            (error_code::PEER_UNREACHABLE, format!("connection failed: {why}"))
        }
        DownReason::ConnectionLost(why) => {
            (error_code::PEER_UNREACHABLE, format!("connection lost: {why}"))
        }
        DownReason::LinkDown => (
            error_code::PEER_UNREACHABLE,
            "the link to it is down, or has lost its address".to_owned(),
        ),
        DownReason::HoldTimerExpired => {
            (error_code::HOLD_TIMER_EXPIRED, "nothing was heard for the hold time".to_owned())
        }
        DownReason::SendHoldTimerExpired => (
            error_code::HOLD_TIMER_EXPIRED,
            "it took no octets for the send hold time (RFC 9687)".to_owned(),
        ),
        DownReason::NotificationSent(n) if n.code == 2 => {
            (error_code::OPEN_REFUSED, format!("we sent NOTIFICATION {n}"))
        }
        DownReason::NotificationSent(n) if n.code == 6 => {
            (error_code::NOTIFICATION_RECEIVED, format!("we sent NOTIFICATION {n}"))
        }
        DownReason::NotificationSent(n) => {
            (error_code::MALFORMED_MESSAGE, format!("we sent NOTIFICATION {n}"))
        }
        DownReason::NotificationReceived(n) if n.code == 2 => {
            (error_code::OPEN_REFUSED, format!("it sent NOTIFICATION {n}"))
        }
        DownReason::NotificationReceived(n) => {
            (error_code::NOTIFICATION_RECEIVED, format!("it sent NOTIFICATION {n}"))
        }
        DownReason::Collision => {
            (error_code::PEER_UNREACHABLE, "the other of two connections was kept".to_owned())
        }
        DownReason::Unexpected => {
            (error_code::MALFORMED_MESSAGE, "it sent a message out of turn".to_owned())
        }
    }
}

/// The NOTIFICATION that ended a session, if one did.
fn notified(reason: &DownReason) -> Option<(Direction, u8)> {
    match reason {
        DownReason::NotificationSent(n) => Some((Direction::Sent, n.code)),
        DownReason::NotificationReceived(n) => Some((Direction::Received, n.code)),
        // RFC 4271 section 6.5: the peer is told so.
        DownReason::HoldTimerExpired => Some((Direction::Sent, 4)),
        _ => None,
    }
}

fn withheld(prefixes: usize) -> String {
    format!("{prefixes} prefixes are not announced: we have no next hop of their family there")
}

fn refused(reason: OpenRefusal) -> (Code, String) {
    match reason {
        OpenRefusal::BadPeerAs { expected, got } => {
            (error_code::BAD_PEER_AS, format!("sent AS {got}, expected {expected}"))
        }
        OpenRefusal::OurRouterId(id) => {
            (error_code::OPEN_REFUSED, format!("it has our own BGP Identifier {id}"))
        }
        OpenRefusal::NoCommonFamily { .. } => {
            (error_code::OPEN_REFUSED, "it has no address family in common with us".to_owned())
        }
    }
}

/// What last went wrong with a peer, in words.
#[must_use]
pub fn last_error(event: &SpeakerEvent) -> (Code, String) {
    match event {
        SpeakerEvent::SessionUp { .. } => (error_code::PEER_UNREACHABLE, "session up".to_owned()),
        SpeakerEvent::EndOfRib { family, .. } => {
            (error_code::PEER_UNREACHABLE, format!("End-of-RIB for {family}"))
        }
        SpeakerEvent::PathsKept { paths, .. } => {
            (error_code::PEER_UNREACHABLE, format!("restarts, {paths} paths kept"))
        }
        SpeakerEvent::Withheld { prefixes, .. } => (error_code::NO_NEXT_HOP, withheld(*prefixes)),
        SpeakerEvent::StaleRemoved { paths, .. } => {
            (error_code::PEER_UNREACHABLE, format!("{paths} kept paths removed"))
        }
        SpeakerEvent::SessionDown { reason, .. } => down(reason),
        SpeakerEvent::OpenRefused { reason, .. } => refused(*reason),
        SpeakerEvent::MalformedMessage { offset, reason, .. } => {
            (error_code::MALFORMED_MESSAGE, format!("{reason} (octet {offset})"))
        }
        SpeakerEvent::MalformedAttribute { fault, .. } => {
            (error_code::MALFORMED_ATTRIBUTE, format!("attribute {}: {}", fault.code, fault.reason))
        }
        SpeakerEvent::UnknownNeighbour { remote } => {
            (error_code::UNKNOWN_NEIGHBOUR, format!("connection from {remote}"))
        }
        SpeakerEvent::PrefixLimit { limit, .. } => {
            (error_code::PREFIX_LIMIT, format!("more than {limit} prefixes"))
        }
    }
}
