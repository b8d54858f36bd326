//! The speaker as an operator sees it.

use std::time::{Duration, Instant};

use super::Speaker;
use super::neighbour::Neighbour;
use crate::rib::{PathEntry, PeerCounts, PeerIndex, PrefixEntry};
use crate::session::State;
use crate::types::Family;
use crate::view::{
    PathFrom, PathView, PeerError, PeerView, RestartPhase, RestartView, RouteView, SessionState,
    Summary,
};

impl Speaker {
    /// All configured peers, by address and port; those on standby while they are up.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<PeerView> {
        self.expected().map(|neighbour| self.peer(now, neighbour)).collect()
    }

    /// Peers that have a session, or should.
    fn expected(&self) -> impl Iterator<Item = &Neighbour> {
        let neighbours = self.by_endpoint.values().filter_map(|n| self.neighbours.get(*n));
        neighbours.filter(|n| n.record.up.is_some() || !n.record.config.standby)
    }

    /// All prefixes with their paths, sorted.
    #[must_use]
    pub fn routes(&self, now: Instant) -> Vec<RouteView> {
        self.rib.prefixes().into_iter().map(|entry| self.route(now, entry)).collect()
    }

    /// The numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            asn: self.config.asn,
            router_id: self.config.router_id.0,
            peers_established: self.expected().filter(|n| n.record.up.is_some()).count(),
            peers: self.expected().count(),
            prefixes: self.rib.reachable(),
            paths: self.rib.paths(),
            attribute_sets: self.rib.attribute_sets(),
            update_groups: self.rib.update_groups(),
        }
    }

    fn peer(&self, now: Instant, neighbour: &Neighbour) -> PeerView {
        let Neighbour { session, record } = neighbour;
        let config = &record.config;
        let stats = session.stats();
        let negotiated = session.negotiated();
        let index = record.up.as_ref().map(|up| up.index);
        let index = index.or_else(|| record.kept.map(|kept| kept.index));
        let counts = index.map_or(PeerCounts::default(), |index| self.rib.counts(index));
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut messages_sent = stats.sent;
        messages_sent.route_refresh += record.refreshes_sent;
        PeerView {
            name: config.name.clone(),
            kind: config.kind,
            address: config.address,
            port: config.port,
            remote_asn: config.asn,
            local_asn: self.config.asn,
            state: session_state(session.state()),
            since: now.saturating_duration_since(stats.since),
            router_id: negotiated.map(|n| n.peer_router_id),
            local_address: session.local_address().map(|local| local.ip().to_canonical()),
            families: negotiated.map_or(Vec::new(), |n| n.families.iter().collect()),
            end_of_rib: record.up.as_ref().map_or(Vec::new(), |up| up.end_of_rib.iter().collect()),
            restart: self.restart(now, neighbour),
            received: number(counts.received),
            accepted: number(counts.accepted),
            sent: number(counts.sent),
            no_next_hop: number(counts.no_next_hop),
            too_big: number(counts.too_big),
            hold_time: negotiated.map_or(Duration::ZERO, |n| n.hold_time),
            keepalive: negotiated.map_or(Duration::ZERO, |n| n.keepalive),
            capabilities: negotiated.map_or(Vec::new(), |n| n.capabilities.clone()),
            established_count: stats.established_count,
            messages_received: stats.received,
            messages_sent,
            malformed: record.malformed,
            last_error: record.last_error.as_ref().map(|(at, event)| PeerError {
                event: event.clone(),
                ago: now.saturating_duration_since(*at),
            }),
            md5: (&config.md5).into(),
            import: config.import.clone(),
            export: config.export.clone(),
        }
    }

    fn restart(&self, now: Instant, neighbour: &Neighbour) -> RestartView {
        let Neighbour { record, .. } = neighbour;
        let up = record.up.as_ref();
        let index = up.map(|up| up.index).or_else(|| record.kept.map(|kept| kept.index));
        let stale: Vec<(Family, usize)> = Family::ALL
            .into_iter()
            .map(|family| (family, index.map_or(0, |index| self.rib.stale(index, family))))
            .filter(|(_, count)| *count > 0)
            .collect();
        let agreed = up.and_then(|up| up.negotiated.graceful_restart.as_ref());
        let phase = match up {
            None if record.kept.is_some() => RestartPhase::Away,
            Some(_) if !stale.is_empty() => RestartPhase::Back,
            Some(up) if agreed.is_some() && self.rib.owes_end_of_rib(up.index) => {
                RestartPhase::Restarting
            }
            Some(_) | None => RestartPhase::None,
        };
        let until = record.stale_until(&self.rib);
        let ours = record.config.graceful_restart.filter(|settings| settings.helper);
        let ours = ours.map_or(Duration::ZERO, |settings| settings.restart_time);
        RestartView {
            phase,
            negotiated: agreed.is_some(),
            notification: agreed.is_some_and(|agreed| agreed.notification),
            peer_restarted: agreed.is_some_and(|agreed| agreed.restarted),
            peer_restart_time: agreed.map_or(Duration::ZERO, |agreed| agreed.restart_time),
            wait: agreed.map_or(Duration::ZERO, |agreed| ours.min(agreed.restart_time)),
            families: agreed.map_or(Vec::new(), |agreed| agreed.families.iter().collect()),
            forwarding: agreed.map_or(Vec::new(), |agreed| agreed.forwarding.iter().collect()),
            stale,
            left: until.map(|until| until.saturating_duration_since(now)),
        }
    }

    fn route(&self, now: Instant, entry: PrefixEntry) -> RouteView {
        let path = |path: PathEntry| {
            let learnt = self.start + Duration::from_secs(path.since.into());
            PathView {
                from: self.origin(path.peer),
                attributes: path.attributes,
                local_pref: path.local_pref,
                verdict: path.verdict,
                age: now.saturating_duration_since(learnt),
            }
        };
        RouteView {
            prefix: entry.prefix,
            paths: entry.paths.into_iter().map(path).collect(),
            next_hops: entry.next_hops,
        }
    }

    fn origin(&self, index: Option<PeerIndex>) -> PathFrom {
        let number = index.and_then(|index| self.by_index.get(index.position()));
        match number.and_then(|number| self.neighbours.get(*number)) {
            None => PathFrom::Local,
            Some(Neighbour { record, .. }) => PathFrom::Peer {
                address: record.config.address,
                name: record.config.name.clone(),
                kind: record.config.kind,
            },
        }
    }
}

const fn session_state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}
