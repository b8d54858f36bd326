//! What is wrong now. Raised and resolved by whoever notices; logged once, when it is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::control::Problem;
use api::error_code::{CATALOGUE, Code};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

/// Problems that are events rather than states are shown for so long: enough for a person to see
/// them, short enough for `rctl status` to serve as a health check.
const PASSING: Duration = Duration::from_secs(120);
/// More than so many of them are not kept: whoever can cause them cannot fill our memory.
const PASSING_LIMIT: usize = 256;

/// Who noticed; each area's problems are identified within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Objects that do not parse.
    Source,
    /// Objects of routing with a wrong meaning.
    Config,
    /// Objects of policy with a wrong meaning.
    Policy,
    /// BGP peers.
    Peer,
    /// The BGP port.
    Listen,
    /// Kernel routes.
    Route,
    /// Kernel table.
    Table,
    /// The machine.
    Host,
    /// CNI plugin, network list and attachments.
    Cni,
    /// What is told to the API server.
    Report,
}

/// A complaint without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Catalogue code.
    pub code: Code,
    /// What it is about.
    pub subject: String,
    /// What.
    pub message: String,
    /// Where.
    pub location: Option<String>,
    /// What to do.
    pub next: String,
}

impl Complaint {
    /// With the catalogue's advice.
    #[must_use]
    pub fn new(code: Code, subject: impl Into<String>, message: impl Into<String>) -> Self {
        let entry = CATALOGUE.iter().find(|entry| entry.code == code);
        Self {
            code,
            subject: subject.into(),
            message: message.into(),
            location: None,
            next: entry.map_or("", |entry| entry.next).to_owned(),
        }
    }

    /// At `location`.
    #[must_use]
    pub fn at(self, location: impl Into<String>) -> Self {
        Self { location: Some(location.into()), ..self }
    }
}

/// A problem as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who noticed.
    pub area: Area,
    /// Identity within the area.
    pub id: String,
    /// What.
    pub complaint: Complaint,
    /// Something that happened rather than a state: it goes by itself.
    pub passing: bool,
    /// How often it happened; 1 for a state.
    pub times: u32,
}

#[derive(Debug)]
struct Entry {
    complaint: Complaint,
    since: Timestamp,
    order: u64,
    until: Option<Instant>,
    times: u32,
}

#[derive(Debug, Default)]
struct Inner {
    standing: BTreeMap<(Area, String), Entry>,
    next: u64,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

/// All that is wrong now. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<Shared>);

impl Problems {
    /// The same `id` in the same area replaces what was there.
    pub fn raise(&self, area: Area, id: impl Into<String>, complaint: Complaint) {
        self.put(area, id.into(), complaint, None);
    }

    /// Something that happened, and is shown for a while.
    pub fn note(&self, area: Area, id: impl Into<String>, complaint: Complaint) {
        let now = Instant::now();
        self.put(area, id.into(), complaint, now.checked_add(PASSING));
        let mut inner = self.lock();
        let passing =
            |inner: &Inner| inner.standing.iter().filter(|(_, s)| s.until.is_some()).count();
        while passing(&inner) > PASSING_LIMIT {
            let oldest = inner.standing.iter().filter(|(_, s)| s.until.is_some());
            let Some(key) = oldest.min_by_key(|(_, s)| s.order).map(|(key, _)| key.clone()) else {
                return;
            };
            inner.standing.remove(&key);
        }
    }

    /// This is wrong now.
    #[must_use]
    pub fn stands(&self, area: Area, id: &str) -> bool {
        self.lock().standing.contains_key(&(area, id.to_owned()))
    }

    /// Something of the input is not in force as it is written.
    #[must_use]
    pub fn input_is_stale(&self) -> bool {
        let of_input = |area| matches!(area, Area::Source | Area::Config | Area::Policy);
        self.lock().standing.keys().any(|(area, _)| of_input(*area))
    }

    /// What was wrong is not any more; does nothing if nothing was.
    pub fn resolve(&self, area: Area, id: &str) {
        let removed = self.lock().standing.remove(&(area, id.to_owned()));
        if let Some(standing) = removed {
            self.changed();
            let Complaint { code, subject, .. } = &standing.complaint;
            info!(%code, %subject, "problem resolved");
        }
    }

    /// All problems of an area are these.
    pub fn replace(&self, area: Area, complaints: Vec<(String, Complaint)>) {
        let ids: BTreeSet<String> = complaints.iter().map(|(id, _)| id.clone()).collect();
        let gone: Vec<String> = self
            .lock()
            .standing
            .keys()
            .filter(|(other, id)| *other == area && !ids.contains(id))
            .map(|(_, id)| id.clone())
            .collect();
        for id in gone {
            self.resolve(area, &id);
        }
        for (id, complaint) in complaints {
            self.raise(area, id, complaint);
        }
    }

    /// Drops what is about something that is no longer there.
    pub fn retain(&self, area: Area, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .lock()
            .standing
            .keys()
            .filter(|(other, id)| *other == area && !keep(id))
            .map(|(_, id)| id.clone())
            .collect();
        for id in gone {
            self.resolve(area, &id);
        }
    }

    /// What stands now, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Problem> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.standing.retain(|_, standing| standing.until.is_none_or(|until| until > now));
        let mut standing: Vec<&Entry> = inner.standing.values().collect();
        standing.sort_by_key(|standing| standing.order);
        standing
            .into_iter()
            .map(|standing| Problem {
                code: standing.complaint.code,
                subject: standing.complaint.subject.clone(),
                message: standing.complaint.message.clone(),
                location: standing.complaint.location.clone(),
                next: standing.complaint.next.clone(),
                since: standing.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            })
            .collect()
    }

    /// Tells that something has changed in the list. What passes goes without a word.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What stands now, oldest first, as it was raised.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        let now = Instant::now();
        let inner = self.lock();
        let stands = |entry: &Entry| entry.until.is_none_or(|until| until > now);
        let mut entries: Vec<_> =
            inner.standing.iter().filter(|(_, entry)| stands(entry)).collect();
        entries.sort_by_key(|(_, entry)| entry.order);
        entries
            .into_iter()
            .map(|((area, id), entry)| Standing {
                area: *area,
                id: id.clone(),
                complaint: entry.complaint.clone(),
                passing: entry.until.is_some(),
                times: entry.times,
            })
            .collect()
    }

    fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn put(&self, area: Area, id: String, complaint: Complaint, until: Option<Instant>) {
        let mut inner = self.lock();
        let order = inner.next;
        inner.next = inner.next.saturating_add(1);
        let key = (area, id);
        if let Some(standing) = inner.standing.get_mut(&key)
            && standing.complaint == complaint
        {
            standing.until = until;
            if until.is_some() {
                standing.times = standing.times.saturating_add(1);
                drop(inner);
                self.changed();
            }
            return;
        }
        let Complaint { code, subject, message, location, next } = &complaint;
        let location = location.as_deref().unwrap_or("-");
        warn!(%code, %subject, location, problem = %message, %next, "problem");
        let entry = Entry { complaint, since: Timestamp::now(), order, until, times: 1 };
        inner.standing.insert(key, entry);
        drop(inner);
        self.changed();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can be left half done.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::error_code::{INVALID_CIDR, UNKNOWN_NEIGHBOUR};

    fn complaint(message: &str) -> Complaint {
        Complaint::new(INVALID_CIDR, "NetworkPolicy shop/web", message)
    }

    fn messages(problems: &Problems) -> Vec<String> {
        problems.list().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn problems_stand_until_resolved_oldest_first() {
        let problems = Problems::default();
        problems.raise(Area::Source, "z", complaint("first"));
        problems.raise(Area::Policy, "a", complaint("second"));
        problems.raise(Area::Source, "z", complaint("first"));
        assert_eq!(messages(&problems), ["first", "second"]);
        problems.raise(Area::Source, "z", complaint("changed"));
        assert_eq!(messages(&problems), ["second", "changed"]);
        problems.resolve(Area::Policy, "a");
        assert_eq!(messages(&problems), ["changed"]);
    }

    #[test]
    fn replacing_an_area_leaves_the_others() {
        let problems = Problems::default();
        problems.raise(Area::Source, "a", complaint("source"));
        problems.replace(
            Area::Config,
            vec![("a".into(), complaint("one")), ("b".into(), complaint("two"))],
        );
        problems.replace(Area::Config, vec![("b".into(), complaint("two"))]);
        assert_eq!(messages(&problems), ["source", "two"]);
    }

    #[test]
    fn changes_are_told_and_what_happens_again_is_counted() {
        let problems = Problems::default();
        let mut changes = problems.subscribe();
        let mut told = || {
            let changed = changes.has_changed().unwrap();
            changes.borrow_and_update();
            changed
        };
        problems.raise(Area::Policy, "a", complaint("one"));
        assert!(told());
        problems.raise(Area::Policy, "a", complaint("one"));
        assert!(!told(), "nothing new");
        problems.note(Area::Route, "drift", complaint("two"));
        problems.note(Area::Route, "drift", complaint("two"));
        assert!(told());
        let standing = problems.standing();
        assert_eq!((standing[0].times, standing[0].passing), (1, false));
        assert_eq!((standing[1].times, standing[1].passing), (2, true));
        problems.resolve(Area::Policy, "a");
        assert!(told());
        problems.resolve(Area::Policy, "a");
        assert!(!told());
    }

    #[test]
    fn passing_problems_are_bounded() {
        let problems = Problems::default();
        problems.raise(Area::Source, "a", complaint("stands"));
        for number in 0..1000 {
            let complaint = Complaint::new(UNKNOWN_NEIGHBOUR, "x", number.to_string());
            problems.note(Area::Peer, number.to_string(), complaint);
        }
        let messages = messages(&problems);
        assert_eq!(messages.len(), PASSING_LIMIT + 1);
        assert_eq!((messages[0].as_str(), messages[PASSING_LIMIT].as_str()), ("stands", "999"));
    }
}
