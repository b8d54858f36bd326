//! What the fuzzers execute. `tests/fuzz` builds the same files for cargo-fuzz, plain `cargo test`
//! replays the checked-in corpora, and the `fuzz-wire` binary runs millions of deterministic
//! mutations anywhere.

#[expect(clippy::panic, reason = "a finding is a panic")]
pub mod manifests;
pub mod mutate;
pub mod wire;
