//! The Rampart agent: thin I/O around the pure crates `bgp` and `policy`.

pub mod bgp;
pub mod cleanup;
pub mod cni;
pub mod config;
pub mod control;
pub mod handover;
pub mod herald;
pub mod kernel;
pub mod observe;
pub mod overlay;
pub mod reconcile;
pub mod reconcile_policy;
pub mod report;
pub mod runtime;
pub mod source;
pub mod watchdog;
