//! What owns a state must not end while the agent runs. If it does all the same (a panic), the whole
//! agent ends with an error: its supervisor starts it anew, and the kernel keeps routes and table
//! meanwhile. Anything else would be an agent that looks well and does not act.

use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

/// Watches owners; clones watch for the same receiver.
#[derive(Clone, Debug)]
pub struct Watchdog(mpsc::Sender<&'static str>);

/// Tells the watchdog when it goes out of scope, also while a panic unwinds.
struct Bark {
    name: &'static str,
    sender: mpsc::Sender<&'static str>,
}

impl Drop for Bark {
    fn drop(&mut self) {
        // Full means that somebody else's end is already told, and one is enough; closed means
        // that the agent is ending anyhow.
        self.sender.try_send(self.name).ok();
    }
}

impl Watchdog {
    /// A watchdog, and where the name of what ended comes out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    fn bark(&self, name: &'static str) -> Bark {
        Bark { name, sender: self.0.clone() }
    }

    /// Starts a task that must not end.
    pub fn task(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let bark = self.bark(name);
        tokio::spawn(async move {
            let _bark = bark;
            task.await;
        });
    }

    /// Watches a thread that must not end.
    ///
    /// # Errors
    /// There is no thread to be had for the watching.
    pub fn thread(&self, name: &'static str, thread: JoinHandle<()>) -> io::Result<()> {
        let bark = self.bark(name);
        let watch = move || {
            let _bark = bark;
            // A panic has been printed by then; that the thread ended is all that matters.
            thread.join().ok();
        };
        thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told_by_name() {
        let (watchdog, mut ended) = Watchdog::new();
        watchdog.task("policy", async { panic!("on purpose") });
        assert_eq!(ended.recv().await, Some("policy"));
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_told_by_name() {
        let (watchdog, mut ended) = Watchdog::new();
        watchdog.thread("routes", thread::spawn(|| panic!("on purpose"))).unwrap();
        assert_eq!(ended.recv().await, Some("routes"));
    }

    #[tokio::test]
    async fn a_task_that_goes_on_is_not_told() {
        let (watchdog, mut ended) = Watchdog::new();
        watchdog.task("policy", std::future::pending());
        tokio::task::yield_now().await;
        assert!(ended.try_recv().is_err());
    }
}
