//! Harness of the tests that run real things: namespaces, routers, agents, packets.

#[expect(clippy::expect_used, clippy::panic, reason = "a harness fails as a test does")]
pub mod agent;
pub mod cluster;
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a harness fails as a test does"
)]
pub mod cni;
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "a harness fails as a test does")]
pub mod fabric;
pub mod fuzz;
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "a harness fails as a test does")]
pub mod interop;
#[expect(clippy::expect_used, clippy::panic, reason = "a harness fails as a test does")]
pub mod kube_source;
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness fails as a test does"
)]
pub mod lab;
pub mod monitor;
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness fails as a test does"
)]
pub mod netns;
pub mod nft;
pub mod nft_node;
pub mod nft_pods;
pub mod nft_table;
#[expect(clippy::expect_used, reason = "a harness fails as a test does")]
pub mod program;
#[expect(clippy::expect_used, reason = "a harness fails as a test does")]
pub mod stand_in;
pub mod wait;
