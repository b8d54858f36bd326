//! Sessions in simulated time: two speakers over a virtual link, and one against crafted bytes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers too"
)]

mod backoff;
mod collision;
mod dut;
mod endurance;
mod hostile;
mod link;
mod negotiation;
mod timers;
