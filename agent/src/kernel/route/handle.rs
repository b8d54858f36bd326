//! How the rest of the agent talks to the route thread.

use std::net::IpAddr;
use std::time::Instant;

use mio::Waker;
use tokio::sync::{mpsc, oneshot, watch};

use super::types::{OverlayLink, RouteChange, RouteEvent, RouteReport, Summary};

/// The route thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route thread has ended")]
pub struct Stopped;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// What follows from something that happened then.
    Change(Vec<RouteChange>, Instant),
    InSync,
    Release,
    Watch(Vec<IpAddr>),
    Overlay(Option<OverlayLink>),
    Report(oneshot::Sender<Vec<RouteReport>>),
}

/// Handle of the route thread. Dropping the last one ends the thread; routes stay.
#[derive(Debug)]
pub struct Routes {
    sender: Option<mpsc::Sender<Command>>,
    waker: std::sync::Arc<Waker>,
    summary: watch::Receiver<Summary>,
}

impl Clone for Routes {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            waker: std::sync::Arc::clone(&self.waker),
            summary: self.summary.clone(),
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        drop(self.sender.take());
        // If that was the last one the thread sees the closed channel; a lost wake-up would only
        // delay its end to the end of the process.
        if let Err(error) = self.waker.wake() {
            tracing::debug!(%error, "cannot wake the route thread");
        }
    }
}

impl Routes {
    pub(super) fn new(
        sender: mpsc::Sender<Command>,
        waker: std::sync::Arc<Waker>,
        summary: watch::Receiver<Summary>,
    ) -> Self {
        Self { sender: Some(sender), waker, summary }
    }

    /// Changes what is wanted; waits while the thread is behind. Cancel-safe: either all or nothing
    /// was handed over.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn apply(&self, changes: Vec<RouteChange>) -> Result<(), Stopped> {
        self.send(Command::Change(changes, Instant::now())).await
    }

    /// Like [`Routes::apply`], for threads that must not wait: `false`, and nothing happens, when
    /// the thread is behind or has ended. `changes` is called only if there is room. They follow from
    /// something that happened at `since`; see [`RouteEvent::Settled`].
    pub fn try_apply(&self, since: Instant, changes: impl FnOnce() -> Vec<RouteChange>) -> bool {
        let Some(Ok(room)) = self.sender.as_ref().map(mpsc::Sender::try_reserve) else {
            return false;
        };
        room.send(Command::Change(changes(), since));
        self.wake();
        true
    }

    /// Every source of routes has said what it wants: from now on the kernel is written to, and
    /// routes of ours that nobody wants are removed.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn in_sync(&self) -> Result<(), Stopped> {
        self.send(Command::InSync).await
    }

    /// With [`super::Options::hold_adopted`]: the routes found at start may be changed and removed
    /// from now on.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn release(&self) -> Result<(), Stopped> {
        self.send(Command::Release).await
    }

    /// Reports the interface of exactly these pod addresses from now on, as
    /// [`RouteEvent::Interface`]: each once, and then each change.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn watch_pods(&self, addresses: Vec<IpAddr>) -> Result<(), Stopped> {
        self.send(Command::Watch(addresses)).await
    }

    /// Next hops that are behind the overlay from now on; `None`: none.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn set_overlay(&self, overlay: Option<OverlayLink>) -> Result<(), Stopped> {
        self.send(Command::Overlay(overlay)).await
    }

    /// Every wanted route and its state, sorted by prefix.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn report(&self) -> Result<Vec<RouteReport>, Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Report(sender)).await?;
        let mut reports = receiver.await.map_err(|_| Stopped)?;
        reports.sort_unstable_by_key(|report| report.prefix);
        Ok(reports)
    }

    /// Numbers as of now.
    #[must_use]
    pub fn summary(&self) -> Summary {
        *self.summary.borrow()
    }

    /// Waits until `done` holds for the numbers.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn wait_for(&self, done: impl FnMut(&Summary) -> bool) -> Result<Summary, Stopped> {
        let mut summary = self.summary.clone();
        summary.wait_for(done).await.map(|found| *found).map_err(|_| Stopped)
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        let sender = self.sender.as_ref().ok_or(Stopped)?;
        sender.send(command).await.map_err(|_| Stopped)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "cannot wake the route thread");
        }
    }
}

/// Events of the route thread.
pub type Events = mpsc::Receiver<RouteEvent>;
