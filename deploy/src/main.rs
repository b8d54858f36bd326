//! Prints the manifests from the types that the agent uses.

fn main() {}
