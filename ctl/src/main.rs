//! `rctl`: parse, run, exit.

fn main() {}
