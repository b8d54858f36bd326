//! `rampart`: one multi-call binary.

fn main() {}
