//! A node with isolated pods, and peers elsewhere, as events.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Namespace, Node, NodeSpec, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use policy::event::{Event, Kind, Object};

/// `pods` local pods, each isolated by one of `policies` policies; policy i admits the peers with
/// label `role-i`: one in a hundred is `role-1`, all others are `role-0`.
pub(crate) struct Scene {
    pub(crate) pods: u32,
    pub(crate) peers: u32,
    pub(crate) policies: u32,
}

/// Pods that one policy isolates.
const GROUPS: u32 = 10;

impl Scene {
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = listing_begins();
        events.extend([node(), namespace("app"), namespace("peers")]);
        events.extend((0..self.policies).map(|n| policy(n, 80)));
        events.extend((0..self.pods).flat_map(local_pod));
        events.extend(
            (0..self.peers).map(|n| peer(n, if n % 100 == 0 { "role-1" } else { "role-0" })),
        );
        events.extend(listing_ends());
        events
    }
}

const KINDS: [Kind; 4] = [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy];

pub(crate) fn listing_begins() -> Vec<Event> {
    KINDS.map(Event::RelistBegin).to_vec()
}

pub(crate) fn listing_ends() -> Vec<Event> {
    KINDS.map(Event::RelistEnd).to_vec()
}

pub(crate) fn metadata(namespace: &str, name: &str, label: Option<(&str, &str)>) -> ObjectMeta {
    let labels = label.map(|(key, value)| [(key.to_owned(), value.to_owned())].into());
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    ObjectMeta { namespace, name: Some(name.to_owned()), labels, ..Default::default() }
}

pub(crate) fn node() -> Event {
    let spec = NodeSpec {
        pod_cidrs: Some(vec!["10.1.0.0/16".to_owned(), "fd01::/64".to_owned()]),
        ..Default::default()
    };
    let node = Node { metadata: metadata("", "n1", None), spec: Some(spec), status: None };
    Event::Apply(Object::Node(Box::new(node)))
}

pub(crate) fn namespace(name: &str) -> Event {
    let namespace = Namespace {
        metadata: metadata("", name, Some(("kubernetes.io/metadata.name", name))),
        ..Default::default()
    };
    Event::Apply(Object::Namespace(Box::new(namespace)))
}

pub(crate) fn pod(metadata: ObjectMeta, node: &str, addresses: &[IpAddr]) -> Event {
    let port = ContainerPort { container_port: 80, ..Default::default() };
    let container =
        Container { name: "c".to_owned(), ports: Some(vec![port]), ..Default::default() };
    let spec = PodSpec {
        node_name: Some(node.to_owned()),
        containers: vec![container],
        ..Default::default()
    };
    let status = PodStatus {
        phase: Some("Running".to_owned()),
        pod_ips: Some(addresses.iter().map(|a| PodIP { ip: a.to_string() }).collect()),
        ..Default::default()
    };
    Event::Apply(Object::Pod(Box::new(Pod { metadata, spec: Some(spec), status: Some(status) })))
}

/// The n-th address of 10.`second`.0.0/16, from .1 on.
fn v4(second: u8, n: u32) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(10, second, 0, 1));
    Ipv4Addr::from(base + n).into()
}

pub(crate) fn v6(n: u32) -> IpAddr {
    let base = u128::from(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1));
    Ipv6Addr::from(base + u128::from(n)).into()
}

/// A pod of this node with its interface.
pub(crate) fn local_pod(n: u32) -> Vec<Event> {
    let group = format!("group-{}", n % GROUPS);
    let addresses = [v4(1, n), v6(n)];
    let metadata = metadata("app", &format!("pod-{n}"), Some(("group", &group)));
    let interface = |address| Event::Interface { address, interface: Some(format!("veth{n}")) };
    let mut events = vec![pod(metadata, "n1", &addresses)];
    events.extend(addresses.map(interface));
    events
}

/// A pod of another node, with one address.
pub(crate) fn peer(n: u32, role: &str) -> Event {
    let metadata = metadata("peers", &format!("peer-{n}"), Some(("role", role)));
    pod(metadata, "n2", &[v4(2, n)])
}

pub(crate) fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        ..Default::default()
    }
}

/// Policy n isolates group n and admits peers of role n at one TCP port.
pub(crate) fn policy(n: u32, port: i32) -> Event {
    let subject = selector("group", &format!("group-{}", n % GROUPS));
    admit(&format!("policy-{n}"), subject, &format!("role-{n}"), "TCP", port)
}

pub(crate) fn admit(
    name: &str,
    subject: LabelSelector,
    role: &str,
    protocol: &str,
    port: i32,
) -> Event {
    let from = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(selector("role", role)),
        ..Default::default()
    };
    let port = NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port)),
        ..Default::default()
    };
    let rule = NetworkPolicyIngressRule { from: Some(vec![from]), ports: Some(vec![port]) };
    let spec = NetworkPolicySpec {
        pod_selector: Some(subject),
        ingress: Some(vec![rule]),
        ..Default::default()
    };
    let metadata = metadata("app", name, None);
    Event::Apply(Object::NetworkPolicy(Box::new(NetworkPolicy { metadata, spec: Some(spec) })))
}
