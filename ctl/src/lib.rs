//! `rctl`: every verb is request -> view -> text or JSON; and the laboratory.

pub mod args;
pub mod client;
pub mod failure;
pub mod lab;
