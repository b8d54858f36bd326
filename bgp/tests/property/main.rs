//! Properties of the codec: what it writes it reads back, no bytes make it panic, and three
//! independent decoders read the same in its valid output.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "modules of a test; a helper of a test fails the test"
)]

mod bgp_rs_reader;
mod bgpkit_reader;
mod disagreement;
mod netgauze_reader;
mod reading;
mod round_trip;
mod strategy;
#[path = "../text/mod.rs"]
mod text;
