//! Sans-IO BGP-4 (RFC 4271): codec, session state machine, RIB, update groups, speaker.
//!
//! - [`wire`]: bytes to messages and back, RFC 7606 dispositions as a type.
//! - [`session`]: the FSM as a table, collision detection, timers.
//! - [`rib`]: Adj-RIB-In, Loc-RIB, decision with reasons, update groups (Adj-RIB-Out).
//! - [`filter`]: import and export accept-lists.
//! - [`md5`]: TCP MD5 signatures: off, with a key, or withheld until there is one.
//! - [`speaker`]: sessions and RIB together; the only thing a driver talks to.
//!
//! This crate never opens a socket, reads a clock, spawns a thread or logs: time comes in as an
//! argument, effects leave as values. So the same code runs in production, simulation and fuzzing.

pub mod config;
pub mod filter;
pub mod md5;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod types;
pub mod view;
pub mod wire;
