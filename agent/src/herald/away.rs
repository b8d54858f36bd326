//! Peers that restart gracefully (RFC 4724): that they have no session is no problem while their
//! paths are kept, or every upgrade would be a storm of problems.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::observe::problems::Complaint;

/// What is not said yet.
#[derive(Debug, Default)]
pub(super) struct Away(BTreeMap<IpAddr, Restart>);

#[derive(Debug)]
struct Restart {
    until: Instant,
    /// What would have been said last.
    withheld: Option<Complaint>,
}

impl Away {
    /// The peer may be away for so long.
    pub(super) fn begin(&mut self, peer: IpAddr, now: Instant, time: Duration) {
        let until = now.checked_add(time).unwrap_or(now);
        self.0.insert(peer, Restart { until, withheld: None });
    }

    /// Its session is back, or it is no peer any more, or something else is wrong with it.
    pub(super) fn end(&mut self, peer: IpAddr) {
        self.0.remove(&peer);
    }

    /// Peers that are left are the configured ones.
    pub(super) fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) {
        self.0.retain(|peer, _| keep(*peer));
    }

    /// Keeps a complaint about a session until the peer should be back; gives it back if it is due
    /// now.
    pub(super) fn withhold(&mut self, peer: IpAddr, complaint: Complaint) -> Option<Complaint> {
        match self.0.get_mut(&peer) {
            Some(restart) => {
                restart.withheld = Some(complaint);
                None
            }
            None => Some(complaint),
        }
    }

    /// When the next peer should be back.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|restart| restart.until).min()
    }

    /// Complaints about peers that should be back by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(IpAddr, Complaint)> {
        let late: Vec<IpAddr> =
            self.0.iter().filter(|(_, r)| r.until <= now).map(|(peer, _)| *peer).collect();
        late.into_iter().filter_map(|peer| Some((peer, self.0.remove(&peer)?.withheld?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::error_code::PEER_UNREACHABLE;

    const TIME: Duration = Duration::from_secs(120);

    fn complaint(message: &str) -> Complaint {
        Complaint::new(PEER_UNREACHABLE, "peer n2", message)
    }

    fn peers() -> [IpAddr; 2] {
        ["192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap())
    }

    #[test]
    fn a_restart_that_ends_in_time_is_never_complained_of() {
        let start = Instant::now();
        for peer in peers() {
            let mut away = Away::default();
            away.begin(peer, start, TIME);
            assert_eq!(away.withhold(peer, complaint("connection lost")), None);
            assert_eq!(away.next(), Some(start + TIME));
            assert_eq!(away.due(start + TIME / 2), []);
            away.end(peer);
            assert_eq!((away.next(), away.due(start + 2 * TIME)), (None, vec![]));
        }
    }

    #[test]
    fn a_peer_that_stays_away_is_complained_of_once_its_time_is_over() {
        let (start, [v4, v6]) = (Instant::now(), peers());
        let mut away = Away::default();
        away.begin(v4, start, TIME);
        away.begin(v6, start, 2 * TIME);
        for words in ["connection lost", "connection refused"] {
            assert_eq!(away.withhold(v4, complaint(words)), None);
        }
        assert_eq!(away.due(start + TIME), [(v4, complaint("connection refused"))]);
        assert_eq!(away.withhold(v4, complaint("now")), Some(complaint("now")), "not held back");
        assert_eq!(away.due(start + 2 * TIME), [], "nothing was wrong with the other");
    }

    #[test]
    fn what_is_no_peer_any_more_is_forgotten() {
        let (start, [v4, v6]) = (Instant::now(), peers());
        let mut away = Away::default();
        for peer in [v4, v6] {
            away.begin(peer, start, TIME);
            away.withhold(peer, complaint("connection lost"));
        }
        away.retain(|peer| peer == v6);
        assert_eq!(away.due(start + TIME), [(v6, complaint("connection lost"))]);
    }
}
