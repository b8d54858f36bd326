//! Harness of the tests that run real things: namespaces, routers, agents, packets.

pub mod nft;
pub mod nft_node;
pub mod nft_pods;
pub mod nft_table;
