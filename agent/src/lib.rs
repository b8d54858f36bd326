//! The Rampart agent: thin I/O around the pure crates `bgp` and `policy`.

pub mod bgp;
pub mod config;
pub mod kernel;
pub mod source;
