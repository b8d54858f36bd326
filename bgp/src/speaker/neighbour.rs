//! A configured peer: its session, its place in the RIB, its counters.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::ConnectionId;
use super::output::{Disposition, DownReason, Output, SpeakerEvent};
use super::restart::Kept;
use crate::config::PeerConfig;
use crate::rib::{GroupKey, PeerIndex, PrefixLimitExceeded, Rib, Session};
use crate::session::{self, Fault, Negotiated, PeerEvent, SessionEvent};
use crate::types::{Families, Family};
use crate::view::MalformedCounts;
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::{AttributeFault, Update};

/// Different faults of one session that are told; what comes beyond is only counted.
const MAX_FAULTS: usize = 16;

/// A configured peer.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) session: session::Peer,
    pub(super) record: Record,
}

/// All of a peer but its session: what is changed while the session reads bytes.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) config: PeerConfig,
    /// In Established: where the RIB knows it, and the connection that carries it.
    pub(super) up: Option<Up>,
    /// Without a session: paths that stay while the peer restarts.
    pub(super) kept: Option<Kept>,
    /// Removed from the configuration; only its last words are left to be sent.
    pub(super) leaving: bool,
    pub(super) malformed: MalformedCounts,
    /// BoRR and EoRR sent.
    pub(super) refreshes_sent: u64,
    pub(super) last_error: Option<(Instant, SpeakerEvent)>,
    /// `last_error` tells why the session is down; what follows from it is no news.
    explained: bool,
    /// Faults of this session that were told.
    told: Vec<(AttributeFault, Disposition)>,
    /// It holds more prefixes than it may; its session is to be closed.
    pub(super) exceeded: Option<PrefixLimitExceeded>,
}

/// An established session.
#[derive(Clone, Debug)]
pub(super) struct Up {
    pub(super) index: PeerIndex,
    pub(super) conn: ConnectionId,
    pub(super) local: Option<SocketAddr>,
    pub(super) negotiated: Arc<Negotiated>,
    /// Families for which it has told everything.
    pub(super) end_of_rib: Families,
    /// Prefixes without a next hop, as last told.
    pub(super) withheld: usize,
}

impl Up {
    /// It has told everything.
    pub(super) fn is_complete(&self) -> bool {
        self.negotiated.families.iter().all(|family| self.end_of_rib.contains(family))
    }
}

/// What a session acts upon.
pub(super) struct Stage<'a> {
    pub(super) now: Instant,
    pub(super) number: u32,
    pub(super) rib: &'a mut Rib,
    pub(super) by_index: &'a mut Vec<u32>,
    pub(super) outputs: &'a mut VecDeque<Output>,
}

/// Peers by number: found with one look, a thousand times in a turn.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// A number is never used again; the place of a peer that was removed stays empty.
    places: Vec<Option<Box<Neighbour>>>,
}

impl Neighbours {
    /// The number of the next peer.
    pub(super) fn next_number(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Adds the next peer.
    pub(super) fn push(&mut self, neighbour: Neighbour) {
        self.places.push(Some(Box::new(neighbour)));
    }

    pub(super) fn remove(&mut self, number: u32) {
        if let Some(place) = self.places.get_mut(number as usize) {
            *place = None;
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Neighbour> {
        self.places.get(number as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Neighbour> {
        self.places.get_mut(number as usize)?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Neighbour)> {
        (0..).zip(&self.places).filter_map(|(number, place)| Some((number, place.as_deref()?)))
    }
}

impl Neighbour {
    pub(super) fn new(session: session::Peer, config: PeerConfig) -> Self {
        let record = Record {
            config,
            up: None,
            kept: None,
            leaving: false,
            malformed: MalformedCounts::default(),
            refreshes_sent: 0,
            last_error: None,
            explained: false,
            told: Vec::new(),
            exceeded: None,
        };
        Self { session, record }
    }
}

impl Record {
    /// Takes what a session hands out, in the order of its stream.
    pub(super) fn take(&mut self, stage: &mut Stage<'_>, event: SessionEvent<'_>) {
        match event {
            SessionEvent::Peer(event) => self.changed(stage, event),
            SessionEvent::Update(update) => self.update(stage, update),
            SessionEvent::RouteRefresh(refresh) => self.refresh(stage, refresh),
        }
    }

    /// The session came up, went down, or failed to come up.
    pub(super) fn changed(&mut self, stage: &mut Stage<'_>, event: PeerEvent) {
        match event {
            PeerEvent::Up { conn, local, negotiated } => self.up(stage, conn, local, negotiated),
            PeerEvent::Down { fault, established, .. } => self.down(stage, &fault, established),
        }
    }

    fn up(
        &mut self,
        stage: &mut Stage<'_>,
        conn: ConnectionId,
        local: Option<SocketAddr>,
        negotiated: Arc<Negotiated>,
    ) {
        if let Some(local) = local {
            stage.rib.add_own_address(local.ip().to_canonical());
        }
        let key = group_key(&self.config, &negotiated, local);
        let session = rib_session(&self.config, &negotiated);
        let index = match self.kept.take() {
            Some(kept) => {
                let families = self.families_to_keep(&negotiated);
                stage.rib.peer_back(kept.index, session, key, families);
                kept.index
            }
            None => match stage.rib.peer_up(session, key) {
                Some(index) => index,
                // 65534 sessions at a time; one more gets no routes and takes none.
                None => return,
            },
        };
        if stage.by_index.len() <= index.position() {
            stage.by_index.resize(index.position() + 1, u32::MAX);
        }
        if let Some(number) = stage.by_index.get_mut(index.position()) {
            *number = stage.number;
        }
        self.told.clear();
        let event = SpeakerEvent::SessionUp {
            peer: self.config.address,
            router_id: negotiated.peer_router_id,
            families: negotiated.families,
        };
        self.up =
            Some(Up { index, conn, local, negotiated, end_of_rib: Families::NONE, withheld: 0 });
        self.tell(stage, event);
    }

    fn down(&mut self, stage: &mut Stage<'_>, fault: &Fault, established: bool) {
        let peer = self.config.address;
        if let Some(up) = self.up.take() {
            self.end_session(stage, &up, fault);
        }
        if let Fault::Malformed(error) = fault {
            self.malformed.session_reset += 1;
            let reason = error.reason;
            self.tell(stage, SpeakerEvent::MalformedMessage { peer, offset: error.offset, reason });
        }
        if let Fault::OpenRefused(refusal) = fault {
            self.tell(stage, SpeakerEvent::OpenRefused { peer, reason: refusal.into() });
        }
        // One of two connections that collided is no news, nor is the end of what never came up
        // for a reason that was told just now.
        let quiet = match fault {
            Fault::Collision | Fault::Stopped(_) | Fault::Malformed(_) | Fault::OpenRefused(_) => {
                !established
            }
            _ => false,
        };
        if !quiet {
            let reason = DownReason::from(fault);
            self.tell(stage, SpeakerEvent::SessionDown { peer, reason, established });
        }
    }

    fn update(&mut self, stage: &mut Stage<'_>, update: Update<'_>) {
        let Some(index) = self.up.as_ref().map(|up| up.index) else { return };
        // What a peer sends on top of too much is not looked at.
        if self.exceeded.is_some() {
            return;
        }
        if let Some(fault) = update.treat_as_withdraw {
            self.malformed.treat_as_withdraw += 1;
            self.tell_fault(stage, fault, Disposition::TreatAsWithdraw);
        }
        for fault in &update.discarded {
            self.malformed.attribute_discard += 1;
            self.tell_fault(stage, *fault, Disposition::AttributeDiscard);
        }
        let end_of_rib = update.end_of_rib;
        if let Err(exceeded) = stage.rib.update(index, update) {
            self.exceeded = Some(exceeded);
        }
        if let Some(family) = end_of_rib {
            self.end_of_rib(stage, family);
        }
    }

    /// The peer has told everything of a family (RFC 4724 §2).
    fn end_of_rib(&mut self, stage: &mut Stage<'_>, family: Family) {
        let Some(up) = self.up.as_mut() else { return };
        if !up.end_of_rib.contains(family) {
            up.end_of_rib.insert(family);
            let index = up.index;
            self.sweep(stage, index, family);
            self.tell(stage, SpeakerEvent::EndOfRib { peer: self.config.address, family });
        }
    }

    fn refresh(&mut self, stage: &mut Stage<'_>, refresh: RouteRefresh) {
        let Some(index) = self.up.as_ref().map(|up| up.index) else { return };
        let Some(family) = refresh.family() else { return };
        match refresh.kind {
            RefreshKind::Request => stage.rib.refresh(index, family),
            RefreshKind::Begin => stage.rib.begin_refresh(index, family),
            RefreshKind::End => stage.rib.end_refresh(index, family),
            RefreshKind::Unknown(_) => {}
        }
    }

    /// The first time in a session that a fault is seen, it is told.
    fn tell_fault(
        &mut self,
        stage: &mut Stage<'_>,
        fault: AttributeFault,
        disposition: Disposition,
    ) {
        if self.told.len() < MAX_FAULTS && !self.told.contains(&(fault, disposition)) {
            self.told.push((fault, disposition));
            let peer = self.config.address;
            self.tell(stage, SpeakerEvent::MalformedAttribute { peer, fault, disposition });
        }
    }

    pub(super) fn tell(&mut self, stage: &mut Stage<'_>, event: SpeakerEvent) {
        // "Connection refused" must not hide "wrong AS", of which it is the consequence.
        let explained = self.explained && matches!(event, SpeakerEvent::SessionDown { .. });
        if event.is_trouble() && !explained {
            self.last_error = Some((stage.now, event.clone()));
        }
        match &event {
            SpeakerEvent::SessionUp { .. } => self.explained = false,
            SpeakerEvent::OpenRefused { .. }
            | SpeakerEvent::MalformedMessage { .. }
            | SpeakerEvent::PrefixLimit { .. } => self.explained = true,
            SpeakerEvent::SessionDown { .. }
            | SpeakerEvent::EndOfRib { .. }
            | SpeakerEvent::PathsKept { .. }
            | SpeakerEvent::StaleRemoved { .. }
            | SpeakerEvent::Withheld { .. }
            | SpeakerEvent::MalformedAttribute { .. }
            | SpeakerEvent::UnknownNeighbour { .. } => {}
        }
        stage.outputs.push_back(Output::Event(event));
    }
}

/// What the RIB must know of a session that came up.
fn rib_session(config: &PeerConfig, negotiated: &Negotiated) -> Session {
    Session {
        address: config.address,
        router_id: negotiated.peer_router_id,
        external: negotiated.external,
        client: config.route_reflector_client && !negotiated.external,
        import: config.import.clone(),
        max_prefixes: config.max_prefixes,
        families: negotiated.families,
        enhanced_refresh: negotiated.send.enhanced_refresh,
    }
}

/// Which update group a session belongs to.
pub(super) fn group_key(
    config: &PeerConfig,
    negotiated: &Negotiated,
    local: Option<SocketAddr>,
) -> GroupKey {
    let (local_v4, local_v6) = match local.map(|local| local.ip().to_canonical()) {
        Some(IpAddr::V4(address)) => (Some(address), None),
        // A link-local address is no next hop for anybody but the neighbour on that link.
        Some(IpAddr::V6(address)) if !address.is_unicast_link_local() => (None, Some(address)),
        Some(IpAddr::V6(_)) | None => (None, None),
    };
    GroupKey {
        external: negotiated.external,
        client: config.route_reflector_client && !negotiated.external,
        policy: config.export.clone(),
        context: negotiated.send.clone(),
        next_hop_v4: config.next_hop_v4.or(local_v4),
        next_hop_v6: config.next_hop_v6.or(local_v6),
        default_originate: config.default_originate,
    }
    .new()
}
