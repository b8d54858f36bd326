//! Sans-IO NetworkPolicy engine.
//!
//! `event` -> `input` (validated model) -> `index` (selectors) -> `resolve` (effective policy of
//! each local pod) -> `nft::compile` -> `nft::delta` -> [`nft::transaction::Transaction`].
//! `verdict` evaluates the API text independently of all that.
//!
//! This crate never talks to Kubernetes, netlink or a clock, and its output depends on the current
//! objects only, never on the order they came in.

pub mod engine;
pub mod event;
pub mod fault;
mod index;
mod input;
pub mod nft;
mod resolve;
pub mod verdict;

pub use engine::Engine;
pub use input::Direction;
