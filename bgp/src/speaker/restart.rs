//! Graceful restart (RFC 4724, RFC 8538): what stays when a session ends, and until when.
//!
//! As helper: paths of a peer that negotiated it stay, stale, when its session ends in a way that
//! looks like a restart. They go when the peer is not back within its restart time, when it comes
//! back without having gone on forwarding (F bit), when it has told everything again (End-of-RIB),
//! or at the stale time at last.
//!
//! As the one who restarts: what we know is sent at once, nothing is ever held back for others. Only
//! a reflector's End-of-RIB waits for that of its clients, within [`DEFERRAL`]: it tells each client
//! to drop what the reflector has not sent again, and the reflector has it from the others.

use std::time::{Duration, Instant};

use super::neighbour::{Neighbour, Record, Stage, Up};
use super::output::SpeakerEvent;
use super::{ConnectionId, Speaker};
use crate::rib::PeerIndex;
use crate::session::Fault;
use crate::types::{Families, Family};
use crate::wire::error::Notification;
use crate::wire::notification::{cease, error_code};

/// How long after its start a reflector waits for its clients to tell everything.
pub const DEFERRAL: Duration = Duration::from_secs(30);

/// Paths of a peer that has no session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) index: PeerIndex,
    /// How long the peer may be away.
    pub(super) restart_time: Duration,
}

impl Record {
    /// The session has ended: its paths stay, or go.
    pub(super) fn end_session(&mut self, stage: &mut Stage<'_>, up: &Up, fault: &Fault) {
        let Some(restart_time) = self.restart_time(up, fault) else {
            stage.rib.peer_down(up.index);
            return;
        };
        let families = up
            .negotiated
            .graceful_restart
            .as_ref()
            .map_or(Families::NONE, |peer| peer.families.intersection(up.negotiated.families));
        let paths = stage.rib.peer_away(up.index, families, stage.now);
        if paths > 0 {
            self.kept = Some(Kept { index: up.index, restart_time });
            let peer = self.config.address;
            self.tell(stage, SpeakerEvent::PathsKept { peer, paths, restart_time });
        }
    }

    /// How long the peer may be away without losing its paths; `None`: it loses them now.
    fn restart_time(&self, up: &Up, fault: &Fault) -> Option<Duration> {
        let settings = self.config.graceful_restart.filter(|settings| settings.helper)?;
        let peer = up.negotiated.graceful_restart.as_ref()?;
        let restarts = match fault {
            Fault::ConnectFailed(_) | Fault::ConnectionLost(_) | Fault::Collision => true,
            Fault::HoldTimerExpired(_)
            | Fault::SendHoldTimerExpired
            | Fault::Malformed(_)
            | Fault::Unexpected { .. } => peer.notification,
            Fault::NotificationReceived(n) => {
                peer.notification && (n.code, n.subcode) != (error_code::CEASE, cease::HARD_RESET)
            }
            // A reset that somebody asked for, or that makes room, is no reason to lose packets.
            Fault::Stopped(n) => {
                let kept = [cease::ADMIN_RESET, cease::OUT_OF_RESOURCES];
                peer.notification && n.code == error_code::CEASE && kept.contains(&n.subcode)
            }
            // Nobody forwards over a link that is down.
            Fault::OpenRefused(_) | Fault::LinkDown => false,
        };
        let time = settings.restart_time.min(peer.restart_time);
        (restarts && !self.leaving && !time.is_zero()).then_some(time)
    }

    /// `notification` as something that ends the session and all that was learnt in it, which a
    /// plain one does not where RFC 8538 was negotiated.
    pub(super) fn final_word(&self, notification: Notification) -> Notification {
        let restart = self.up.as_ref().and_then(|up| up.negotiated.graceful_restart.as_ref());
        match restart {
            Some(restart) if restart.notification => notification.hard_reset(),
            Some(_) | None => notification,
        }
    }

    /// What stays of the paths that were kept, now that there is a session again.
    pub(super) fn families_to_keep(&self, up: &crate::session::Negotiated) -> Families {
        let helper = self.config.graceful_restart.is_some_and(|settings| settings.helper);
        match &up.graceful_restart {
            Some(peer) if helper => peer.forwarding.intersection(up.families),
            Some(_) | None => Families::NONE,
        }
    }

    /// The peer has told everything of a family again.
    pub(super) fn sweep(&self, stage: &mut Stage<'_>, index: PeerIndex, family: Family) {
        let paths = stage.rib.sweep(index, family);
        self.tell_swept(stage, paths);
    }

    fn tell_swept(&self, stage: &mut Stage<'_>, paths: usize) {
        if paths > 0 {
            let event = SpeakerEvent::StaleRemoved { peer: self.config.address, paths };
            stage.outputs.push_back(super::Output::Event(event));
        }
    }

    /// Forgets what was kept without a session.
    pub(super) fn drop_kept(&mut self, stage: &mut Stage<'_>) {
        if let Some(kept) = self.kept.take() {
            let paths = stage.rib.peer_down(kept.index);
            self.tell_swept(stage, paths);
        }
    }

    /// How long paths may be stale.
    fn patience(&self) -> (Option<PeerIndex>, Duration) {
        match (&self.up, &self.kept) {
            (Some(up), _) => {
                let settings = self.config.graceful_restart.filter(|settings| settings.helper);
                let time = settings.map_or(Duration::ZERO, |s| s.stale_time.max(s.restart_time));
                (Some(up.index), time)
            }
            (None, Some(kept)) => (Some(kept.index), kept.restart_time),
            (None, None) => (None, Duration::ZERO),
        }
    }

    /// When the next stale paths go.
    pub(super) fn stale_until(&self, rib: &crate::rib::Rib) -> Option<Instant> {
        let (index, patience) = self.patience();
        rib.stale_since(index?)?.checked_add(patience)
    }

    /// Removes the stale paths whose time is over.
    pub(super) fn expire_stale(&mut self, stage: &mut Stage<'_>) {
        let (Some(index), patience) = self.patience() else { return };
        let Some(limit) = stage.now.checked_sub(patience) else { return };
        let paths = stage.rib.sweep_until(index, limit);
        self.tell_swept(stage, paths);
        if self.up.is_none() && stage.rib.stale_since(index).is_none() {
            self.drop_kept(stage);
        }
    }
}

impl Speaker {
    /// What to send on `conn` when this speaker ends for good and the peer shall not wait for it:
    /// Cease, Administrative Shutdown (6/2), as a Hard Reset where that is needed (RFC 8538).
    #[must_use]
    pub fn shutdown_notification(&self, conn: ConnectionId) -> Notification {
        let notification = Notification::new(error_code::CEASE, cease::ADMIN_SHUTDOWN);
        match self.neighbours.get(conn.peer()) {
            Some(neighbour) => neighbour.record.final_word(notification),
            None => notification,
        }
    }

    /// Ends the wait for clients when it is over, or pointless.
    pub(super) fn review_deferral(&mut self, now: Instant) {
        let Some(until) = self.deferred_until else { return };
        let mut clients = self
            .by_endpoint
            .values()
            .filter_map(|number| self.neighbours.get(*number))
            .filter(|neighbour| {
                let config = &neighbour.record.config;
                config.route_reflector_client && !config.standby
            })
            .peekable();
        // Without any peer the configuration is still to come.
        let decided = clients.peek().is_some() || !self.by_endpoint.is_empty();
        if now >= until || (decided && clients.all(has_told_all)) {
            self.deferred_until = None;
            self.rib.release_end_of_rib();
        }
    }
}

/// A peer that does not know of graceful restart never says that it is done.
fn has_told_all(neighbour: &Neighbour) -> bool {
    let up = neighbour.record.up.as_ref();
    up.is_some_and(|up| up.negotiated.graceful_restart.is_none() || up.is_complete())
}
