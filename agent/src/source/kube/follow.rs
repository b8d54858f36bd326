//! One kind, followed: list, then watch, for ever.
//!
//! | what happens | what is done |
//! |---|---|
//! | watch ends, connection is cut, 5xx, time-out | watch again from the same version, after a pause |
//! | 410 Gone | list anew; what is known stays meanwhile |
//! | the list is older than what is known | refused; list again after a pause |
//! | 401 | read credentials again |
//! | 403 | try on; what was read stays |
//! | 404 on a kind of ours | an empty listing, unless something is known; look for it again |
//!
//! A kind has one request under way at most. Lists are not repeated because a watch fails.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::Timing;
use super::backoff::{Backoff, jitter};
use super::client::Connection;
use super::keep::Keeper;
use super::known::Known;
use super::request::{self, Failure, Subject, one_line};
use super::rewind::{Heard, Rewind};
use super::state::Reporter;
use super::trouble::{Trouble, Verb};
use crate::source::{Event, Key, Kind};

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// Events in one report.
const MOST: usize = 500;
/// A watch that lives for so long is a good one.
const HEALTHY: Duration = Duration::from_secs(5);
/// A watch that is opened for so long gets a bookmark two seconds before it ends.
const WITH_BOOKMARK: Duration = Duration::from_secs(4);
/// After so many watches without one the kind is listed again; ...
const SILENT_FIRST: u32 = 2;
/// ... at last after so many, as long as that finds nothing wrong.
const SILENT_LAST: u32 = 64;
/// Kinds that do not exist are looked for: at first so often, ...
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// ... and at last so often.
const LOOK_LAST: Duration = Duration::from_secs(4);

/// What a kind tells the one who collects.
#[derive(Debug)]
pub(super) enum Report {
    /// Changes, in order.
    Events(Vec<Event>),
    /// What is wrong with it now.
    Trouble(Subject, Option<Trouble>),
}

/// The task of one kind.
pub(super) struct Follower {
    subject: Subject,
    connection: Connection,
    known: Known,
    keeper: Keeper,
    reports: mpsc::Sender<Report>,
    reporter: Reporter,
    backoff: Backoff,
    /// Requests in a row that were not answered in time.
    timeouts: usize,
    /// What is known is not good enough to watch from.
    relist: bool,
    limit: u32,
    troubled: bool,
    missing_since: Option<Instant>,
    /// When what the snapshot has is told, unless the API server was faster.
    release: Option<Instant>,
    timing: Timing,
    rewind: Rewind,
    /// Watches in a row that have told nothing, and how many of them are one too many.
    silent: u32,
    most_silent: u32,
}

/// What a follower is made of.
pub(super) struct Parts {
    pub(super) subject: Subject,
    /// Name of our own node.
    pub(super) node: String,
    pub(super) connection: Connection,
    pub(super) keeper: Keeper,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) reporter: Reporter,
    pub(super) timing: Timing,
    pub(super) heard: Heard,
}

/// Whoever collects has gone: there is nothing left to do.
struct Ended;

enum Stop {
    Failed(Verb, Failure),
    Ended,
}

impl From<Ended> for Stop {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

impl Follower {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { subject, node, connection, keeper, reports, reporter, timing, heard } = parts;
        Self {
            rewind: Rewind::new(subject.label(), heard, timing.rewind),
            silent: 0,
            most_silent: SILENT_FIRST,
            connection,
            known: Known::new(subject.kind(), &node),
            subject,
            keeper,
            reports,
            reporter,
            backoff: Backoff::default(),
            timeouts: 0,
            relist: true,
            limit: PAGE,
            troubled: false,
            missing_since: None,
            release: Some(Instant::now() + timing.head_start),
            timing,
        }
    }

    /// Runs until nobody collects any more.
    pub(super) async fn run(mut self) {
        let events = tokio::task::block_in_place(|| self.keeper.restore(&mut self.known));
        if self.tell(events).await.is_err() {
            return;
        }
        loop {
            let stopped = match self.round().await {
                Ok(()) => continue,
                Err(Stop::Ended) => return,
                Err(Stop::Failed(verb, failure)) => self.failed(verb, failure).await,
            };
            if stopped.is_err() {
                return;
            }
        }
    }

    /// One list if need be, and one watch.
    async fn round(&mut self) -> Result<(), Stop> {
        if self.relist {
            self.list().await?;
            self.relist = false;
        }
        self.watch().await
    }

    async fn list(&mut self) -> Result<(), Stop> {
        let failed = |failure| Stop::Failed(Verb::List, failure);
        self.reporter.update(|state| state.lists = state.lists.saturating_add(1));
        let mut token: Option<String> = None;
        let mut version = None;
        loop {
            let body = self.page(token.as_deref()).await?.map_err(failed)?;
            let page = Page::read(&body).map_err(failed)?;
            let mut events = Vec::new();
            let listed = match version {
                Some(version) => version,
                None => {
                    events = self.known.begin_list(page.version).map_err(failed)?;
                    *version.insert(page.version)
                }
            };
            for item in &page.items {
                self.known.listed(item.get(), &mut events);
            }
            token = page.token;
            if token.is_some() {
                self.tell(events).await?;
                continue;
            }
            events.extend(self.known.end_list(listed));
            debug!(what = self.subject.label(), version = listed, "listed");
            self.keeper.note(&mut self.known);
            self.tell(events).await?;
            self.rewind.heard(self.known.version(), Instant::now());
            self.well().await?;
            return Ok(());
        }
    }

    async fn page(&mut self, token: Option<&str>) -> Result<Result<Bytes, Failure>, Ended> {
        let (connection, subject) = (self.connection.clone(), self.subject.clone());
        let page = request::list(&connection, &subject, self.limit, token, self.patience());
        self.attend(page).await
    }

    async fn watch(&mut self) -> Result<(), Stop> {
        let failed = |failure| Stop::Failed(Verb::Watch, failure);
        let (connection, subject) = (self.connection.clone(), self.subject.clone());
        let version = self.known.version().to_string();
        let Timing { watch, grace, .. } = self.timing;
        let length = watch + jitter(watch / 4);
        let open = request::watch(&connection, &subject, &version, length, self.patience());
        let mut stream = self.attend(open).await?.map_err(failed)?;
        self.reporter.update(|state| state.watches = state.watches.saturating_add(1));
        self.timeouts = 0;
        self.well().await?;
        let opened = Instant::now();
        let deadline = opened + length + grace;
        let mut told = false;
        loop {
            let next = timeout_at(deadline, stream.next());
            let silent = Err(Failure::TimedOut(length + grace));
            let Some(line) = self.attend(next).await?.unwrap_or(silent).map_err(failed)? else {
                break;
            };
            self.reporter.heard();
            told = true;
            let mut events = Vec::new();
            let before = self.known.version();
            let mut result = self.line(&line, &mut events);
            while result.is_ok() && events.len() < MOST {
                let Some(line) = stream.buffered() else { break };
                result = self.line(&line, &mut events);
            }
            if self.known.version() > before {
                self.rewind.heard(self.known.version(), Instant::now());
            }
            self.keeper.note(&mut self.known);
            self.tell(events).await?;
            result.map_err(failed)?;
            self.backoff.reset();
        }
        self.watched(length, opened, told);
        if opened.elapsed() >= HEALTHY {
            self.backoff.reset();
        } else {
            // An API server that ends every watch at once is not asked in a loop.
            let pause = self.backoff.next();
            self.attend(sleep(pause)).await?;
        }
        Ok(())
    }

    /// One line of a watch.
    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) -> Result<(), Failure> {
        let garbled = |error: serde_json::Error| Failure::Garbled(one_line(&error.to_string()));
        let line: WatchLine<'_> = serde_json::from_slice(line).map_err(garbled)?;
        match line.kind.as_ref() {
            "ADDED" | "MODIFIED" => self.known.changed(line.object.get(), events),
            "DELETED" => self.known.deleted(line.object.get(), events),
            "BOOKMARK" => {
                let bookmark: Versioned =
                    serde_json::from_str(line.object.get()).map_err(garbled)?;
                self.known.bookmark(bookmark.metadata.version()?);
            }
            "ERROR" => {
                #[derive(Deserialize)]
                struct Status {
                    code: Option<u16>,
                }
                let status: Status = serde_json::from_str(line.object.get()).map_err(garbled)?;
                let code = status.code.and_then(|code| StatusCode::from_u16(code).ok());
                let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Err(request::classify(code, None, line.object.get().as_bytes()));
            }
            other => return Err(Failure::Garbled(format!("event type {}", one_line(other)))),
        }
        Ok(())
    }

    /// A watch has come to its end in order. One from a version that the API server does not have
    /// (any more) is open as any other, and tells nothing; a good one tells at least a bookmark before
    /// it ends.
    fn watched(&mut self, length: Duration, opened: Instant, told: bool) {
        if told {
            (self.silent, self.most_silent) = (0, SILENT_FIRST);
        } else if length >= WITH_BOOKMARK && opened.elapsed() + Duration::from_secs(1) >= length {
            self.silent = self.silent.saturating_add(1);
            if self.silent >= self.most_silent {
                // An API server without bookmarks is not asked for all of it again and again.
                self.most_silent = self.most_silent.saturating_mul(2).min(SILENT_LAST);
                self.silent = 0;
                self.relist = true;
            }
        }
    }

    /// Works something out while the chores of the kind are done.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = pin!(work);
        loop {
            let release = self.release.filter(|_| !self.known.is_listed());
            let chore = self.keeper.due();
            tokio::select! {
                done = &mut work => return Ok(done),
                () = sleep_until(release.unwrap_or_else(Instant::now)), if release.is_some() => {
                    self.release = None;
                    self.tell_snapshot().await?;
                }
                () = sleep_until(chore.unwrap_or_else(Instant::now)), if chore.is_some() => {
                    self.keeper.write(&self.known);
                }
                written = self.keeper.written() => {
                    let events = self.keeper.take(written);
                    self.tell(events).await?;
                }
                () = self.reports.closed() => return Err(Ended),
            }
        }
    }

    /// The API server does not answer: what the snapshot has is in force until it does.
    async fn tell_snapshot(&mut self) -> Result<(), Ended> {
        loop {
            let events = self.known.release(MOST);
            if events.is_empty() {
                return Ok(());
            }
            if self.known.is_listed() {
                let (what, objects) = (self.subject.label(), self.known.len());
                info!(what, objects, "no answer yet; the snapshot is in force until there is one");
            }
            self.tell(events).await?;
        }
    }

    async fn tell(&mut self, mut events: Vec<Event>) -> Result<(), Ended> {
        if let Subject::Secret { namespace, name } = &self.subject {
            let key = Key { kind: Kind::Secret, namespace: namespace.clone(), name: name.clone() };
            tell_of_one(&key, self.known.len() == 0, &mut events);
        }
        self.reporter.update(|state| {
            state.listed = self.known.is_listed();
            state.from_snapshot = self.known.is_listed() && self.known.is_restored();
            state.objects = self.known.len();
            state.version = self.known.version();
            state.ignored = self.known.ignored();
            state.rejected = self.known.rejected();
        });
        if events.is_empty() {
            return Ok(());
        }
        self.reports.send(Report::Events(events)).await.map_err(|_| Ended)
    }

    /// The API server answers for this kind.
    async fn well(&mut self) -> Result<(), Ended> {
        self.missing_since = None;
        self.reporter.heard();
        self.reporter.update(|state| {
            state.connected = true;
            state.trouble = None;
        });
        if std::mem::replace(&mut self.troubled, false) {
            let report = Report::Trouble(self.subject.clone(), None);
            return self.reports.send(report).await.map_err(|_| Ended);
        }
        Ok(())
    }

    /// Says so where it should be said, and waits.
    async fn failed(&mut self, verb: Verb, failure: Failure) -> Result<(), Ended> {
        debug!(what = self.subject.label(), ?verb, %failure, "request failed");
        let mut pause = self.backoff.next();
        let mut grave = self.backoff.failures() > 1;
        self.timeouts = match failure {
            Failure::TimedOut(_) => self.timeouts.saturating_add(1),
            _ => 0,
        };
        match &failure {
            Failure::Gone => self.relist = true,
            Failure::NotFound => {
                self.relist = true;
                grave = true;
                let events = self.known.absent();
                self.keeper.note(&mut self.known);
                self.tell(events).await?;
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                pause = (since.elapsed() / 20).clamp(LOOK_FIRST, LOOK_LAST);
                pause += jitter(pause / 2);
            }
            Failure::Unauthorized => self.connection.renew().await,
            Failure::Busy(later) => pause = pause.max((*later).min(super::backoff::LONGEST)),
            Failure::Oversize => self.limit = (self.limit / 4).max(1),
            Failure::Forbidden(_) => grave = true,
            Failure::Stale { listed, known } => {
                grave = true;
                if self.rewind.refuse(*listed, *known, Instant::now()) {
                    warn!(
                        what = self.subject.label(),
                        listed,
                        known,
                        "the API server has gone back for good: its present state is taken"
                    );
                    self.known.rewind();
                }
            }
            Failure::Unreachable(_)
            | Failure::TimedOut(_)
            | Failure::Status(..)
            | Failure::Garbled(_) => {}
        }
        self.reporter.failed();
        if grave {
            self.reporter.update(|state| {
                state.connected = failure == Failure::NotFound;
                state.trouble = Some(failure.to_string());
            });
            self.troubled = true;
            let report = Report::Trouble(self.subject.clone(), Some(Trouble { verb, failure }));
            self.reports.send(report).await.map_err(|_| Ended)?;
        }
        self.attend(sleep(pause)).await
    }

    fn patience(&self) -> Duration {
        let patience = &self.timing.patience;
        let [.., longest] = *patience;
        patience.get(self.timeouts).copied().unwrap_or(longest)
    }
}

/// Of a single object there is no listing: that it is not there is told as its deletion.
fn tell_of_one(key: &Key, absent: bool, events: &mut Vec<Event>) {
    let listed = events.iter().any(|event| matches!(event, Event::RelistEnd(_)));
    events.retain(|event| !matches!(event, Event::RelistBegin(_) | Event::RelistEnd(_)));
    if listed && absent && !events.contains(&Event::Delete(key.clone())) {
        events.push(Event::Delete(key.clone()));
    }
}

/// One page of a list.
struct Page<'a> {
    version: u64,
    token: Option<String>,
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    token: Option<String>,
}

impl ListMetadata {
    fn version(&self) -> Result<u64, Failure> {
        let version = self.resource_version.as_deref().and_then(|version| version.parse().ok());
        version.ok_or_else(|| Failure::Garbled("its resourceVersion is not a number".to_owned()))
    }
}

#[derive(Deserialize)]
struct Versioned {
    metadata: ListMetadata,
}

#[derive(Deserialize)]
struct WatchLine<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<'a> Page<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Form<'a> {
            metadata: ListMetadata,
            #[serde(borrow)]
            items: Option<Vec<&'a RawValue>>,
        }
        let form: Form<'_> = serde_json::from_slice(body)
            .map_err(|error| Failure::Garbled(one_line(&error.to_string())))?;
        Ok(Self {
            version: form.metadata.version()?,
            token: form.metadata.token.filter(|token| !token.is_empty()),
            items: form.items.unwrap_or_default(),
        })
    }
}
