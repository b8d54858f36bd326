//! `rctl`: every verb is request -> view -> text or JSON; and the laboratory.

pub mod lab;
