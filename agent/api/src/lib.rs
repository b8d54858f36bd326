//! The contract between the agent, `rctl` and the manifests: whatever two of them must agree on.
//!
//! Types and constants only; nothing here does anything.

pub mod agent_args;
pub mod cni;
pub mod constant;
pub mod control;
pub mod crd;
pub mod doctor;
pub mod error_code;
pub mod metric;
pub mod watched;
