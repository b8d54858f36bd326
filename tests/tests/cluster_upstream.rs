//! A part of Kubernetes' own NetworkPolicy suite; `./tests/run upstream` runs all of it.
//!
//! Needs root.

use tests::cluster::Options;
use tests::cluster::upstream::{self, CHOSEN};

#[test]
fn specs_of_the_upstream_suite_pass() -> anyhow::Result<()> {
    let ran = upstream::run(Options::of_a_test(), Some(&CHOSEN))?;
    anyhow::ensure!(ran >= 12, "only {ran} specs ran");
    Ok(())
}
