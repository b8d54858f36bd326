//! What the lab prints while it works, and how it learns that it shall stop.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use super::error::LabError;

/// Prints one line. A reader that went away is no reason to stop half-way.
pub fn say(line: &str) {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").ok();
    output.flush().ok();
}

/// Tells how long each step took.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    step: Instant,
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        let now = Instant::now();
        Self { began: now, step: now }
    }

    /// Reports a finished step.
    pub fn step(&mut self, name: &str, what: &str) {
        let now = Instant::now();
        let seconds = now.duration_since(self.step).as_secs_f64();
        self.step = now;
        say(&format!("  {name:<12} {what:<58} {seconds:5.1}s"));
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// Whether SIGINT, SIGTERM or SIGHUP came in.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on these signals do not end the process but show here.
    ///
    /// # Errors
    /// [`LabError::Start`] when the handlers cannot be installed.
    pub fn catch() -> Result<Self, LabError> {
        let failed = |source| LabError::Start { role: "signal handling".to_owned(), source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let mut signals = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt()).map_err(failed)?,
                signal(SignalKind::terminate()).map_err(failed)?,
                signal(SignalKind::hangup()).map_err(failed)?,
            )
        };
        let flag = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&flag);
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = signals.0.recv() => {}
                        _ = signals.1.recv() => {}
                        _ = signals.2.recv() => {}
                    }
                    raised.store(true, Ordering::Relaxed);
                }
            });
        });
        Ok(Self(flag))
    }

    /// Whether one came in.
    #[must_use]
    pub fn raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails if one came in.
    ///
    /// # Errors
    /// [`LabError::Interrupted`].
    pub fn check(&self) -> Result<(), LabError> {
        if self.raised() {
            return Err(LabError::Interrupted);
        }
        Ok(())
    }
}
