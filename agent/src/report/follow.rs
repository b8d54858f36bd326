//! Watches that only this module needs: single objects, and what the elected agent looks at.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::Clients;
use super::pace::Backoff;
use super::trouble::Trouble;

/// A watch that says nothing ends after so long: a dead connection is not noticed earlier.
const WATCH_SECONDS: u32 = 60;

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// Follows objects of one kind, for ever. Failures are retried with pauses, and with a new client.
pub(super) struct Follow<K> {
    what: &'static str,
    clients: Clients,
    api: Box<dyn Fn(kube::Client) -> Api<K> + Send>,
    config: watcher::Config,
    trouble: Trouble,
    events: Option<Events<K>>,
    not_before: Option<Instant>,
    backoff: Backoff,
}

impl<K> Follow<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Follows all objects of an API, or the one of this name.
    pub(super) fn new(
        what: &'static str,
        clients: Clients,
        trouble: Trouble,
        name: Option<&str>,
        api: impl Fn(kube::Client) -> Api<K> + Send + 'static,
    ) -> Self {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        if let Some(name) = name {
            config = config.fields(&format!("metadata.name={name}"));
        }
        Self {
            what,
            clients,
            api: Box::new(api),
            config,
            trouble,
            events: None,
            not_before: None,
            backoff: Backoff::default(),
        }
    }

    /// The next change. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event<K> {
        loop {
            if let Some(until) = self.not_before {
                sleep_until(until).await;
                self.not_before = None;
            }
            let events = self.events.get_or_insert_with(|| {
                Box::pin(watcher::watcher((self.api)((self.clients)()), self.config.clone()))
            });
            match events.next().await {
                Some(Ok(event)) => {
                    self.backoff.reset();
                    self.trouble.read(self.what, None);
                    return event;
                }
                Some(Err(error)) => {
                    tracing::debug!(what = self.what, %error, "watch failed");
                    self.trouble.read(self.what, cause(&error));
                    self.again();
                }
                None => self.again(),
            }
        }
    }

    fn again(&mut self) {
        self.events = None;
        self.not_before = Some(Instant::now() + self.backoff.next());
    }
}

/// What the API server said; a watch that it ended is no failure of ours.
fn cause(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// Sleeps until then, or for ever without a time.
pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// So much later than now.
pub(super) fn after(pause: Duration) -> Instant {
    Instant::now() + pause
}
