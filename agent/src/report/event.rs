//! Kubernetes Events: what happened, told on the object that it happened to.
//!
//! The same thing is written once a minute at most, with a count and the words of the last time; what
//! does not fit into the queue is counted and given up. Whoever tells never waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::condition::shorten;
use crate::observe::Recorder;

/// The same thing is written at most so often.
const BETWEEN: Duration = Duration::from_secs(60);
/// What did not happen again for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Different things that are remembered.
const CAPACITY: usize = 256;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Severity {
    /// As the API calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Kind, one that the agent may list.
    pub kind: Subjects,
    /// Namespace; empty for kinds without.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Kinds that Events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subjects {
    /// core/v1.
    Node,
    /// core/v1.
    Pod,
    /// networking.k8s.io/v1.
    NetworkPolicy,
    /// Ours.
    BgpPeer,
    /// Ours.
    BgpConfiguration,
    /// Ours.
    NetworkConfiguration,
}

impl Subjects {
    const ALL: [Self; 6] = [
        Self::Node,
        Self::Pod,
        Self::NetworkPolicy,
        Self::BgpPeer,
        Self::BgpConfiguration,
        Self::NetworkConfiguration,
    ];

    /// Kind as the API calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::BgpPeer => "BGPPeer",
            Self::BgpConfiguration => "BGPConfiguration",
            Self::NetworkConfiguration => "NetworkConfiguration",
        }
    }
}

impl Subject {
    /// A node.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self { kind: Subjects::Node, namespace: String::new(), name: name.to_owned() }
    }

    /// A pod.
    #[must_use]
    pub fn pod(namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { kind: Subjects::Pod, namespace, name }
    }

    /// Reads what a problem is about: `NetworkPolicy shop/web`, `BGPPeer tor-a`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(' ')?;
        let kind = Subjects::ALL.into_iter().find(|known| known.name() == kind)?;
        let namespaced = matches!(kind, Subjects::Pod | Subjects::NetworkPolicy);
        let (namespace, name) = match name.split_once('/') {
            Some(both) if namespaced => both,
            None if !namespaced => ("", name),
            _ => return None,
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Some(Self { kind, namespace, name })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {namespace}{slash}{name}", kind.name())
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// To what.
    pub subject: Subject,
    /// How bad.
    pub severity: Severity,
    /// One word, CamelCase.
    pub reason: &'static str,
    /// Tells apart what happens to the same object for the same reason: the name of a peer, a field.
    pub detail: String,
    /// For people: what, why, what next.
    pub message: String,
}

/// What makes two happenings the same thing.
type Key = (Subject, Severity, &'static str, String);

impl Happening {
    fn key(&self) -> Key {
        (self.subject.clone(), self.severity, self.reason, self.detail.clone())
    }
}

/// What is to be written now.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) happening: Happening,
    /// How often it happened.
    pub(super) count: i32,
    /// When it happened first and last.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Name of the Event if it was written before.
    pub(super) written: Option<String>,
}

#[derive(Debug)]
struct Entry {
    due: Due,
    /// It happened since it was written.
    news: bool,
    not_before: Instant,
    last: Instant,
}

/// What is next.
#[derive(Debug)]
enum Next {
    /// This is to be written.
    Now(Box<Due>),
    /// Something is to be written then.
    At(Instant),
    /// There is nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Queue(BTreeMap<Key, Entry>);

impl Queue {
    /// Takes it in; false when there is no room.
    fn tell(&mut self, happening: Happening, now: Instant, time: Timestamp) -> bool {
        let key = happening.key();
        if let Some(entry) = self.0.get_mut(&key) {
            entry.due.happening = happening;
            entry.due.count = entry.due.count.saturating_add(1);
            entry.due.last = time;
            entry.news = true;
            entry.last = now;
            return true;
        }
        if self.0.len() >= CAPACITY {
            self.0.retain(|_, entry| entry.news || now < entry.last + FORGET);
        }
        if self.0.len() >= CAPACITY && !self.forget_oldest() {
            return false;
        }
        let due = Due { happening, count: 1, first: time, last: time, written: None };
        self.0.insert(key, Entry { due, news: true, not_before: now, last: now });
        true
    }

    /// Makes room at the cost of something that was written already.
    fn forget_oldest(&mut self) -> bool {
        let written = self.0.iter().filter(|(_, entry)| !entry.news);
        let oldest = written.min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.0.remove(&key).is_some())
    }

    /// What it gives counts as written from now on.
    fn next(&mut self, now: Instant) -> Next {
        let news = self.0.values_mut().filter(|entry| entry.news);
        match news.min_by_key(|entry| entry.not_before) {
            Some(entry) if entry.not_before <= now => {
                entry.news = false;
                entry.not_before = now + BETWEEN;
                Next::Now(Box::new(entry.due.clone()))
            }
            Some(entry) => Next::At(entry.not_before),
            None => Next::Nothing,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    queue: Mutex<Queue>,
    wake: Notify,
    recorder: Recorder,
}

/// Where what happened is told. Clones share the queue; one that nobody writes from only fills up.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Inner>);

impl Events {
    /// A queue that counts what it gives up.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self(Arc::new(Inner { recorder, ..Inner::default() }))
    }

    /// It happened. Never waits.
    pub fn tell(&self, mut happening: Happening) {
        happening.message = shorten(happening.message);
        if self.lock().tell(happening, Instant::now(), Timestamp::now()) {
            self.0.wake.notify_one();
        } else {
            self.0.recorder.event_dropped();
        }
    }

    /// A pod that the plugin asked for was not let in.
    pub fn pod_gate_timed_out(&self, namespace: &str, pod: &str, message: impl Into<String>) {
        self.tell(Happening {
            subject: Subject::pod(namespace, pod),
            severity: Severity::Warning,
            reason: "NetworkGateTimeout",
            detail: String::new(),
            message: message.into(),
        });
    }

    /// The next that is to be written; it counts as written from now on. Cancel-safe.
    pub(super) async fn due(&self) -> Due {
        loop {
            let wake = self.0.wake.notified();
            let next = match self.lock().next(Instant::now()) {
                Next::Now(due) => return *due,
                Next::At(time) => Some(time),
                Next::Nothing => None,
            };
            tokio::select! {
                () = wake => {}
                () = super::follow::until(next) => {}
            }
        }
    }

    /// It was written under this name.
    pub(super) fn written(&self, happening: &Happening, name: Option<String>) {
        if let Some(entry) = self.lock().0.get_mut(&happening.key()) {
            entry.due.written = name;
        }
    }

    /// It could not be written: again in a while.
    pub(super) fn again(&self, happening: &Happening) {
        if let Some(entry) = self.lock().0.get_mut(&happening.key()) {
            entry.news = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here can be left half done.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(name: &str) -> Happening {
        Happening {
            subject: Subject::node(name),
            severity: Severity::Warning,
            reason: "FIBDrift",
            detail: String::new(),
            message: "x".to_owned(),
        }
    }

    #[test]
    fn subjects_are_read_as_they_are_written() {
        for text in ["NetworkPolicy shop/web", "BGPPeer tor-a", "Node n1", "Pod a/b"] {
            assert_eq!(Subject::read(text).unwrap().to_string(), text);
        }
        for text in ["peer tor-a", "host", "Pod a", "Node a/b", "table inet rampart"] {
            assert_eq!(Subject::read(text), None, "{text}");
        }
    }

    fn due(queue: &mut Queue, now: Instant) -> Due {
        match queue.next(now) {
            Next::Now(due) => *due,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_thing_is_due_once_a_minute_with_its_count() {
        let mut queue = Queue::default();
        let (start, time) = (Instant::now(), Timestamp::now());
        queue.tell(happening("a"), start, time);
        assert_eq!(due(&mut queue, start).count, 1);
        assert!(matches!(queue.next(start), Next::Nothing));
        for number in 0..50 {
            let words = format!("route {number}");
            queue.tell(Happening { message: words, ..happening("a") }, start, time);
        }
        assert!(matches!(queue.next(start), Next::At(at) if at == start + BETWEEN));
        queue.tell(happening("b"), start, time);
        assert_eq!(due(&mut queue, start).happening, happening("b"), "others do not wait for it");
        let again = due(&mut queue, start + BETWEEN);
        assert_eq!((again.count, again.happening.message.as_str()), (51, "route 49"));
    }

    #[test]
    fn the_queue_is_bounded_and_what_was_written_makes_room() {
        let mut queue = Queue::default();
        let (now, time) = (Instant::now(), Timestamp::now());
        for number in 0..CAPACITY {
            assert!(queue.tell(happening(&number.to_string()), now, time));
        }
        assert!(!queue.tell(happening("one too many"), now, time));
        due(&mut queue, now);
        assert!(queue.tell(happening("new"), now, time));
        assert_eq!(queue.0.len(), CAPACITY);
    }

    #[tokio::test]
    async fn who_writes_is_woken_and_a_failed_write_is_due_again() {
        let events = Events::default();
        let writer = events.clone();
        let waiting = tokio::spawn(async move { writer.due().await });
        tokio::task::yield_now().await;
        events.pod_gate_timed_out("shop", "web-1", "no policy");
        let due = waiting.await.unwrap();
        assert_eq!(due.happening.subject.to_string(), "Pod shop/web-1");
        events.again(&due.happening);
        assert!(matches!(events.lock().next(Instant::now() + BETWEEN), Next::Now(_)));
    }
}
