//! The table of some clusters as nft text. `UPDATE_GOLDEN=1 cargo test -p policy --test golden`
//! rewrites what is in `tests/data/policy`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::{env, fs};

use support::cluster::Node1;

fn golden(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/policy");
    let input = fs::read_to_string(directory.join(format!("{name}.yaml"))).expect("input");
    let script = Node1::with("n1", &input).script();
    let path = directory.join(format!("{name}.nft"));
    #[expect(clippy::disallowed_methods, reason = "this is how a golden is rewritten")]
    let update = env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1");
    if update {
        fs::write(&path, &script).expect("write");
    }
    let wanted = fs::read_to_string(&path).expect("golden");
    assert!(script == wanted, "{name}.nft is not what comes out now:\n{script}");
}

#[test]
fn bare_node() {
    golden("bare");
}

#[test]
fn demo_shop() {
    golden("shop");
}

#[test]
fn default_deny_in_every_direction() {
    golden("default-deny");
}

#[test]
fn every_stage_of_a_chain() {
    golden("stages");
}
