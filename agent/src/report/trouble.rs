//! What the API server refuses is one problem, however much it refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::error_code;
use kube::Error;

use crate::observe::problems::Complaint;
use crate::observe::recorder::{Stage, Write};
use crate::observe::{Area, Problems, Recorder};

const ID: &str = "refused";

/// What is refused now. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    refused: Arc<Mutex<BTreeMap<&'static str, String>>>,
    problems: Problems,
    recorder: Recorder,
}

impl Trouble {
    pub(super) fn new(problems: Problems, recorder: Recorder) -> Self {
        Self { refused: Arc::default(), problems, recorder }
    }

    /// Counts a write, and notes whether it was refused.
    ///
    /// # Errors
    /// Those of the write.
    pub(super) fn wrote<T>(&self, what: Write, result: Result<T, Error>) -> Result<T, Error> {
        self.recorder.wrote(what, result.is_ok());
        self.note(what.name(), result.as_ref().err());
        result
    }

    /// Notes whether a read was refused.
    pub(super) fn read(&self, what: &'static str, error: Option<&Error>) {
        if error.is_some() {
            self.recorder.failed(Stage::Report);
        }
        self.note(what, error);
    }

    /// An API server that cannot be reached is the source's business: it says so itself.
    fn note(&self, what: &'static str, error: Option<&Error>) {
        let refused = match error {
            Some(Error::Api(status)) if matches!(status.code, 400..=499) => Some(&status.message),
            Some(_) => return,
            None => None,
        };
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some(why) => drop(all.insert(what, why.clone())),
            None => drop(all.remove(what)),
        }
        if all.is_empty() {
            self.problems.resolve(Area::Report, ID);
            return;
        }
        let words: Vec<String> = all.iter().map(|(what, why)| format!("{what}: {why}")).collect();
        let message = words.join("; ");
        let complaint = Complaint::new(error_code::REPORT_REFUSED, "status reports", message);
        self.problems.raise(Area::Report, ID, complaint);
    }
}
