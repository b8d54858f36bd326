//! The unit of change: an ordered list of steps that the kernel applies wholly or not at all.

use serde::{Deserialize, Serialize};

use super::ir::{BaseHook, Element, Rule, SetSpec, Verdict};

/// One atomic change of `table inet rampart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Increases by one with each transaction of an engine.
    pub id: u64,
    /// In the order that the kernel must see: sets before the rules that name them, chains before
    /// the verdicts that jump to them; removals last, in reverse.
    pub steps: Vec<Step>,
}

/// One step; each maps to one or a few netlink messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Create the table if it is not there.
    AddTable,
    /// Remove the table and all in it; no error if it is not there (uninstall, recovery).
    DeleteTable,
    /// Create an empty set or verdict map.
    AddSet(String, SetSpec),
    /// Remove a set with its elements.
    DeleteSet(String),
    /// Add elements.
    AddElements {
        /// Set name.
        set: String,
        /// Declaration of that set, needed to encode the keys.
        spec: SetSpec,
        /// Elements, with verdicts in a map.
        elements: Vec<(Element, Option<Verdict>)>,
    },
    /// Remove elements that are there.
    DeleteElements {
        /// Set name.
        set: String,
        /// Declaration of that set.
        spec: SetSpec,
        /// Elements (verdicts matter to interval maps only, and may be `None`).
        elements: Vec<(Element, Option<Verdict>)>,
    },
    /// Create an empty chain.
    AddChain(String, Option<BaseHook>),
    /// Remove all rules of a chain.
    FlushChain(String),
    /// Append a rule to a chain.
    AddRule(String, Rule),
    /// Remove a chain; it must be empty and unreferenced by then.
    DeleteChain(String),
}

/// Why the kernel did not take a transaction. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel refused transaction: {reason} (errno {errno})")]
pub struct ApplyError {
    /// errno, positive.
    pub errno: i32,
    /// Index into `steps` of the step that was refused, if the kernel said so.
    pub step: Option<usize>,
    /// For humans.
    pub reason: String,
}
