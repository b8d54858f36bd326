//! The routing information bases: what peers told us, what we chose, what we tell them.

pub mod decision;

pub use decision::{Ineligible, LostBy, Verdict};
