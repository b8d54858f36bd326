//! Shared by the tests of this crate.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

pub(crate) mod cluster;
pub(crate) mod kernel;
pub(crate) mod random;
pub(crate) mod walker;
