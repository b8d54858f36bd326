//! From the mesh to reflectors and back, under traffic.

use std::time::Duration;

use tests::agent::LIMIT;
use tests::fabric::{Fabric, Flow};
use tests::wait::eventually;

/// Three nodes in a mesh, and traffic of both families between them.
fn in_mesh() -> (Fabric, Vec<Flow>) {
    let mut fabric = Fabric::new(&[3]);
    fabric.start();
    fabric.connected();
    let flows = vec![
        fabric.flow(1, 2, true),
        fabric.flow(2, 3, false),
        fabric.flow(3, 1, true),
        fabric.flow(1, 3, false),
    ];
    (fabric, flows)
}

fn nothing_lost(flows: Vec<Flow>) {
    for flow in flows {
        let outcome = flow.stop();
        assert!(outcome.sent > 5000 && outcome.lost.is_empty(), "{outcome:?}");
    }
}

/// Sessions of each node with others' agents.
fn mesh_sessions(fabric: &Fabric) -> usize {
    let agents = fabric.nodes.iter().filter_map(|node| node.agent.as_ref());
    let peers = agents.flat_map(|agent| agent.peers());
    peers.filter(|peer| peer.kind == "mesh" && peer.state == "Established").count()
}

fn to_reflectors(fabric: &mut Fabric, numbers: &[u8]) {
    for number in numbers {
        fabric.node_mut(*number).start_reflector();
    }
    fabric.write("reflectors.yaml", &fabric.reflector_pods(numbers));
    fabric.mesh_is("off");
    eventually(LIMIT, "no mesh session is left", || mesh_sessions(fabric) == 0);
}

#[test]
fn mesh_to_reflectors_to_mesh_loses_no_packet() {
    let (mut fabric, flows) = in_mesh();
    to_reflectors(&mut fabric, &[1, 2]);
    for node in &fabric.nodes {
        let bgp = node.agent().status().bgp;
        let reflectors = bgp.map(|bgp| (bgp.reflectors_established, bgp.reflectors, bgp.peers));
        assert_eq!(reflectors, Some((2, 2, 2)), "the mesh is not counted as missing");
        assert!(node.agent().problems().is_empty(), "{:?}", node.agent().problems());
    }
    assert!(fabric.is_connected());
    // The Deployment is deleted: its pods, and then its processes.
    fabric.remove("reflectors.yaml");
    for number in [1, 2] {
        fabric.node_mut(number).kill_reflector();
    }
    fabric.mesh_is("on");
    eventually(LIMIT, "the whole mesh is up", || mesh_sessions(&fabric) == 6);
    let gone = |fabric: &Fabric| {
        let agents = fabric.nodes.iter().filter_map(|node| node.agent.as_ref());
        agents.flat_map(|agent| agent.peers()).all(|peer| peer.kind == "mesh")
    };
    eventually(LIMIT, "the reflectors are peers no more", || gone(&fabric));
    nothing_lost(flows);
}

#[test]
fn both_reflectors_killed_loses_no_packet_and_the_mesh_steps_in() {
    let (mut fabric, flows) = in_mesh();
    to_reflectors(&mut fabric, &[2, 3]);
    fabric.node_mut(2).kill_reflector();
    fabric.node_mut(3).kill_reflector();
    fabric.mesh_is("on");
    eventually(LIMIT, "the whole mesh is up", || mesh_sessions(&fabric) == 6);
    assert!(fabric.is_connected());
    // Their pods start again.
    for number in [2, 3] {
        fabric.node_mut(number).start_reflector();
    }
    fabric.mesh_is("off");
    nothing_lost(flows);
}

#[test]
fn one_reflector_that_goes_and_comes_changes_nothing() {
    let (mut fabric, flows) = in_mesh();
    to_reflectors(&mut fabric, &[1, 3]);
    for _ in 0..3 {
        fabric.node_mut(3).kill_reflector();
        eventually(LIMIT, "one of two is left", || reflectors(&fabric) == [1, 1, 1]);
        fabric.node_mut(3).start_reflector();
        eventually(LIMIT, "both are back", || reflectors(&fabric) == [2, 2, 2]);
        assert_eq!(fabric.mesh(), ["off", "off", "off"]);
    }
    assert_eq!(mesh_sessions(&fabric), 0);
    nothing_lost(flows);
}

fn reflectors(fabric: &Fabric) -> Vec<u32> {
    let agents = fabric.nodes.iter().filter_map(|node| node.agent.as_ref());
    agents.map(|agent| agent.status().bgp.map_or(0, |bgp| bgp.reflectors_established)).collect()
}

#[test]
fn an_agent_restarted_beside_reflectors_comes_back_without_the_mesh_and_loses_no_packet() {
    let (mut fabric, flows) = in_mesh();
    to_reflectors(&mut fabric, &[1, 2]);
    if let Some(agent) = fabric.node_mut(3).agent.take() {
        agent.kill();
    }
    fabric.node_mut(3).start();
    let node = fabric.node(3);
    let took = eventually(LIMIT, "both reflectors are back", || {
        node.agent().status().bgp.is_some_and(|bgp| bgp.reflectors_established == 2)
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
    node.agent().synced();
    assert_eq!(fabric.mesh(), ["off", "off", "off"]);
    assert_eq!(mesh_sessions(&fabric), 0);
    nothing_lost(flows);
}

#[test]
fn a_reflector_serves_health_and_numbers_and_takes_no_strangers() {
    let mut fabric = Fabric::new(&[2]);
    fabric.start();
    fabric.connected();
    to_reflectors(&mut fabric, &[1]);
    let metrics = fabric.node(1).fetch(9473, "/metrics").unwrap_or_default();
    for line in ["rampart_ready 1", "rampart_bgp_peers 2", "rampart_bgp_peers_established 2"] {
        assert!(metrics.lines().any(|other| other == line), "{line}:\n{metrics}");
    }
    // The router is no node.
    let reflector = fabric.node(1).addresses()[0];
    let closed = fabric.router.within(|| {
        let mut stream = std::net::TcpStream::connect((reflector, 1790))?;
        std::io::Read::read(&mut stream, &mut [0; 64])
    });
    assert!(!matches!(closed, Ok(1..)), "it was told something: {closed:?}");
    let refused =
        |text: &str| text.lines().any(|line| line == "rampart_bgp_connections_refused_total 1");
    eventually(LIMIT, "that was counted", || {
        refused(&fabric.node(1).fetch(9473, "/metrics").unwrap_or_default())
    });
}
