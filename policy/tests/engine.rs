//! Engine and simulated kernel, state by state.

mod support;

use support::cluster::Node1;

#[test]
fn table_is_made_without_any_policy_once_in_sync() {
    let mut node = Node1::new("n1");
    node.program();
    assert_eq!(node.transactions, 1);
    assert!(node.table().chains.contains_key("forward"));
}

#[test]
fn demo_application_gets_its_chains() {
    let node = Node1::with("n1", include_str!("../../tests/data/policy/shop.yaml"));
    let script = node.script();
    for part in ["chain in/shop/web/", "chain out/shop/web/", "10.244.2.7 . 6 . 5432"] {
        assert!(script.contains(part), "{part} is not in\n{script}");
    }
}
