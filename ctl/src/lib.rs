//! `rctl`: every verb is request -> view -> text or JSON; and the laboratory.

pub mod agents;
pub mod args;
pub mod client;
pub mod cluster;
pub mod command;
pub mod failure;
pub mod lab;
pub mod manifest;
pub mod output;
