use super::*;
use api::control::PeerError;

fn peer(node: &str, name: &str, state: &str) -> PeerView {
    PeerView {
        node: node.to_owned(),
        name: name.to_owned(),
        kind: "tor".to_owned(),
        address: "fd00::1".parse().unwrap(),
        port: 179,
        remote_asn: 65001,
        local_asn: 64512,
        state: state.to_owned(),
        since_seconds: 11_520.0,
        router_id: None,
        local_address: None,
        families: vec!["ipv4".to_owned(), "ipv6".to_owned()],
        end_of_rib: Vec::new(),
        graceful_restart: api::control::GracefulRestartView::default(),
        received: 2,
        accepted: 2,
        sent: 3,
        withheld: 0,
        hold_time_seconds: 9,
        keepalive_seconds: 3,
        capabilities: Vec::new(),
        established_count: 1,
        messages_received: BTreeMap::new(),
        messages_sent: BTreeMap::new(),
        malformed: BTreeMap::new(),
        md5: "off".to_owned(),
        last_error: (state != "Established").then(|| PeerError {
            code: api::error_code::PEER_UNREACHABLE,
            message: "TCP timeout".to_owned(),
            ago_seconds: 12.0,
        }),
        import: "none".to_owned(),
        export: "own".to_owned(),
    }
}

fn args(output: Format) -> GetArgs {
    GetArgs {
        kind: Kind::Peers,
        name: None,
        scope: Scope::default(),
        output,
        watch: false,
        no_headers: false,
    }
}

#[test]
fn a_peer_that_is_down_is_marked_and_its_counts_are_unknown() {
    let peers = [peer("n1", "tor-a", "Established"), peer("n1", "tor-b", "Active")];
    let text = render(&peers, &args(Format::Table), &mut Vec::new(), true).unwrap();
    assert_eq!(
        text,
        "NODE   PEER    KIND   REMOTE-AS   STATE         UPTIME   RCVD   ACC   SENT   LAST-ERROR\n\
         n1     tor-a   tor    65001       Established   3h12m    2      2     3      -\n\
         n1     tor-b   tor    65001       Active!       -        -      -     -      TCP timeout (RC2031)\n"
    );
}

#[test]
fn json_of_a_named_object_is_the_object_and_of_many_a_list() {
    let peers = [peer("n1", "tor-a", "Established")];
    let mut named = args(Format::Json);
    named.name = Some("tor-a".to_owned());
    let one: serde_json::Value =
        serde_json::from_str(&render(&peers, &named, &mut Vec::new(), true).unwrap()).unwrap();
    assert_eq!((one["kind"].as_str(), one["peerKind"].as_str()), (Some("Peer"), Some("tor")));
    let list: serde_json::Value =
        serde_json::from_str(&render(&peers, &args(Format::Json), &mut Vec::new(), true).unwrap())
            .unwrap();
    assert_eq!(
        (list["kind"].as_str(), list["items"].as_array().map(Vec::len)),
        (Some("PeerList"), Some(1))
    );
}

#[test]
fn a_peer_answers_to_its_name_and_to_its_address() {
    let peer = peer("n1", "tor-a", "Established");
    assert!(peer.is_called("tor-a") && peer.is_called("fd00:0::1") && !peer.is_called("tor"));
}

#[test]
fn selectors_match_as_kubectl_does() {
    let labels = BTreeMap::from([
        ("app".to_owned(), "web".to_owned()),
        ("canary".to_owned(), String::new()),
    ]);
    let matches = |text: &str| parse_selector(text).unwrap().0.iter().all(|r| r.matches(&labels));
    for yes in
        ["app=web", "app==web", "app!=db", "tier!=x", "canary", "!tier", "app=web,canary,!tier"]
    {
        assert!(matches(yes), "{yes}");
    }
    for no in ["app=db", "app!=web", "tier", "!app", "app=web,tier"] {
        assert!(!matches(no), "{no}");
    }
    assert!(parse_selector("=x").is_err() && parse_selector("a b").is_err());
}

#[test]
fn one_policy_on_two_nodes_is_one_row_with_the_sums() {
    let policy = |node: &str, local: u64, programmed: u64| PolicyView {
        node: node.to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        kind: "knp".to_owned(),
        selects: 3,
        selects_local: local,
        programmed,
        ingress_rules: 1,
        egress_rules: 0,
        isolates_ingress: true,
        isolates_egress: false,
        mode: "enforce".to_owned(),
        pod_selector: "app=web".to_owned(),
        rules: Vec::new(),
        faults: Vec::new(),
    };
    let merged = PolicyView::merge(vec![
        vec![policy("n2", 1, 1)],
        vec![policy("n1", 2, 1)],
        vec![policy("n3", 0, 0)],
    ]);
    assert_eq!(merged.len(), 1);
    assert_eq!((merged[0].selects, merged[0].selects_local, merged[0].programmed), (3, 3, 2));
    assert_eq!(merged[0].node, "n1,n2");
    let text = Table::new(PolicyView::COLUMNS, &merged, false).render(true, &mut Vec::new());
    assert!(text.contains("2/3!"), "{text}");
}

#[test]
fn an_object_of_another_namespace_is_not_shown_without_all_namespaces() {
    let endpoint = EndpointView {
        node: "n1".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        addresses: Vec::new(),
        interface: None,
        isolated_ingress: false,
        isolated_egress: false,
        policies: Vec::new(),
        programmed: true,
        chains: Vec::new(),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
    };
    let scope = |namespace: &str, all: bool, selector: &str| Scope {
        namespace: Some(namespace.to_owned()),
        all_namespaces: all,
        node: None,
        selector: Some(parse_selector(selector).unwrap()),
    };
    assert!(scope("shop", false, "app=web").admits(&endpoint));
    assert!(scope("default", true, "app=web").admits(&endpoint));
    assert!(!scope("default", false, "app=web").admits(&endpoint));
    assert!(!scope("shop", false, "app=db").admits(&endpoint));
}

/// An agent without routes, in `directory`, until the test ends.
fn agent_without_routes(directory: &std::path::Path) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    std::fs::create_dir_all(directory).unwrap();
    let listener = tokio::net::UnixListener::bind(directory.join("agent.sock")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
                stream.write_all(answer).await.ok();
            }
        }
    });
}

#[tokio::test]
async fn what_a_silent_agent_may_know_is_not_said_to_be_absent() {
    let lab = std::env::temp_dir().join(format!("rctl-silent-{}", std::process::id()));
    agent_without_routes(&lab.join("n1"));
    let agents = || Agents::discover(None, &lab, std::path::Path::new("/nonexistent"), None);
    let scope = |node: Option<&str>| Scope { node: node.map(str::to_owned), ..Scope::default() };

    let (routes, exit) = fetch::<RouteView>(&agents(), None, &scope(None)).await.unwrap();
    assert_eq!((routes.len(), exit), (0, Exit::Ok));
    let absent = fetch::<RouteView>(&agents(), Some("10.0.0.0/8"), &scope(None)).await;
    assert_eq!(absent.unwrap_err().exit, Exit::Negative);
    let absent = fetch::<RouteView>(&agents(), None, &scope(Some("nosuch"))).await;
    assert_eq!(absent.unwrap_err().exit, Exit::Negative);

    // The socket of an agent that was killed stays, and nobody listens on it.
    std::fs::create_dir_all(lab.join("n2")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(lab.join("n2/agent.sock")).unwrap());
    let (_, exit) = fetch::<RouteView>(&agents(), None, &scope(None)).await.unwrap();
    assert_eq!(exit, Exit::Unreachable);
    let unknown = fetch::<RouteView>(&agents(), Some("10.0.0.0/8"), &scope(None)).await;
    assert_eq!(unknown.unwrap_err().exit, Exit::Unreachable);
    let unknown = fetch::<RouteView>(&agents(), None, &scope(Some("n2"))).await;
    assert_eq!(unknown.unwrap_err().exit, Exit::Unreachable);
    std::fs::remove_dir_all(&lab).unwrap();
}

fn route(node: &str, prefix: &str) -> RouteView {
    RouteView {
        node: node.to_owned(),
        prefix: prefix.to_owned(),
        origin: "bgp".to_owned(),
        fib: "ok".to_owned(),
        fib_next_hops: Vec::new(),
        paths: Vec::new(),
    }
}

#[test]
fn an_address_means_the_longest_prefix_of_each_node_and_a_prefix_means_itself() {
    let all = || {
        vec![
            route("n1", "0.0.0.0/0"),
            route("n1", "10.244.0.0/16"),
            route("n1", "10.244.3.0/24"),
            route("n1", "fd00:3::/64"),
            route("n2", "10.244.0.0/16"),
            route("n3", "fd00:3::/64"),
        ]
    };
    let called = |name: &str| {
        let mut routes = all();
        RouteView::retain_called(&mut routes, name);
        routes.iter().map(|r| format!("{} {}", r.node, r.prefix)).collect::<Vec<_>>()
    };
    assert_eq!(called("10.244.3.7"), ["n1 10.244.3.0/24", "n2 10.244.0.0/16"]);
    assert_eq!(called("fd00:3::7"), ["n1 fd00:3::/64", "n3 fd00:3::/64"]);
    assert_eq!(called("192.0.2.1"), ["n1 0.0.0.0/0"]);
    assert_eq!(called("10.244.0.0/16"), ["n1 10.244.0.0/16", "n2 10.244.0.0/16"]);
    assert_eq!(called("10.244.9.0/24"), Vec::<String>::new());
}

#[test]
fn an_error_of_before_the_session_came_up_is_told_as_history() {
    let mut up = peer("n1", "tor-a", "Established");
    let error = |ago_seconds| PeerError {
        code: api::error_code::PEER_UNREACHABLE,
        message: "TCP timeout".to_owned(),
        ago_seconds,
    };
    up.last_error = Some(error(up.since_seconds + 60.0));
    let text = up.describe();
    assert!(text.contains("none since it came up; before that, 3h13m ago: TCP timeout"), "{text}");
    assert!(!text.contains("rctl explain"), "{text}");
    // One of this session is not.
    up.last_error = Some(error(1.0));
    let text = up.describe();
    assert!(text.contains("TCP timeout (RC2031), 1s ago"), "{text}");
    assert!(text.contains("rctl explain RC2031"), "{text}");
}
