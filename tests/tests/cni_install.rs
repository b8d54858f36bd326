//! The agent puts plugin and network list on the node when it is ready, and keeps them there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;
use tests::agent::{LIMIT, node as node_object};
use tests::cni::CniNode;
use tests::wait::{eventually, throughout};

fn complaint(node: &CniNode, code: u16) -> Option<String> {
    node.agent().problems().into_iter().find(|p| p.code.0 == code).map(|p| p.message)
}

#[test]
fn the_list_comes_when_the_node_has_pod_cidrs_and_follows_them_and_the_uplink() {
    let mut node = CniNode::new("inst-cidr", "");
    let bare = node_object("n1", &["192.0.2.10", "2001:db8::10"], &[]);
    node.directory.write("store/node.yaml", &bare);
    node.start_agent();
    eventually(LIMIT, "the agent says what is missing", || complaint(&node, 3020).is_some());
    assert!(!node.conflist().exists());
    let cidrs = ["10.1.0.0/24", "fd00:1::/64", "10.9.0.0/24"];
    let full = node_object("n1", &["192.0.2.10", "2001:db8::10"], &cidrs);
    node.directory.write("store/node.yaml", &full);
    eventually(LIMIT, "the list is written", || node.conflist().exists());
    eventually(LIMIT, "the complaint is gone", || complaint(&node, 3020).is_none());
    let expected = json!([
        [{"subnet": "10.1.0.0/24"}, {"subnet": "10.9.0.0/24"}],
        [{"subnet": "fd00:1::/64"}]
    ]);
    let list = node.list();
    assert_eq!(list["plugins"][0]["ipam"]["ranges"], expected);
    assert_eq!(list["plugins"][0]["mtu"], 1400);
    assert_eq!(list["plugins"][1]["type"], "portmap");
    // Debian's portmap does not know 1.1.0.
    assert_eq!(list["cniVersion"], "1.0.0");
    let other = node_object("n1", &["192.0.2.10", "2001:db8::10"], &cidrs[..2]);
    node.directory.write("store/node.yaml", &other);
    eventually(LIMIT, "the list follows", || {
        node.list()["plugins"][0]["ipam"]["ranges"][0] == json!([{"subnet": "10.1.0.0/24"}])
    });
    node.namespace.ip(&["link set up0 mtu 1300"]);
    eventually(LIMIT, "the MTU follows", || node.list()["plugins"][0]["mtu"] == 1300);
}

#[test]
fn an_mtu_that_does_not_fit_the_uplink_is_told_and_pods_get_what_fits() {
    let mut node = CniNode::new("inst-mtu", "");
    let configure = |node: &CniNode, spec: &str| {
        let head = "apiVersion: rampart.network/v1alpha1\nkind: NetworkConfiguration\n";
        let object = format!("{head}metadata: {{name: default}}\nspec: {{{spec}}}\n");
        node.directory.write("store/network.yaml", &object);
    };
    configure(&node, "mtu: 9000");
    node.start();
    let mtu = |node: &CniNode| node.list()["plugins"][0]["mtu"].as_u64();
    assert_eq!(mtu(&node), Some(1400), "that of the uplink");
    eventually(LIMIT, "it is told", || complaint(&node, 3035).is_some_and(|m| m.contains("9000")));
    configure(&node, "mtu: 1400, overlay: {mode: VXLANAlways}");
    eventually(LIMIT, "the overlay's part is taken off", || mtu(&node) == Some(1350));
    eventually(LIMIT, "it is told", || {
        complaint(&node, 3035).is_some_and(|message| message.contains("overlay takes 50"))
    });
    configure(&node, "mtu: 1340, overlay: {mode: VXLANAlways}");
    eventually(LIMIT, "what fits is taken as it is", || mtu(&node) == Some(1340));
    eventually(LIMIT, "nothing is wrong", || complaint(&node, 3035).is_none());
}

#[test]
fn what_somebody_removes_or_changes_is_repaired_and_what_is_theirs_is_left_alone() {
    let mut node = CniNode::new("inst-repair", "");
    node.directory.write("conf/87-other.conflist", "theirs");
    node.start();
    let plugin = node.directory.join("bin/rampart-cni");
    let own = fs::read(tests::program::rampart()).unwrap();
    assert!(fs::read(&plugin).unwrap() == own);
    let list = fs::read(node.conflist()).unwrap();
    fs::remove_file(node.conflist()).unwrap();
    eventually(LIMIT, "the list is back", || fs::read(node.conflist()).is_ok_and(|f| f == list));
    fs::write(node.conflist(), "{}").unwrap();
    eventually(LIMIT, "the list is right", || fs::read(node.conflist()).is_ok_and(|f| f == list));
    fs::remove_file(&plugin).unwrap();
    eventually(LIMIT, "the plugin is back", || fs::read(&plugin).is_ok_and(|f| f == own));
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o4777)).unwrap();
    let mode = || fs::metadata(&plugin).map(|m| m.permissions().mode() & 0o7777);
    eventually(LIMIT, "its mode is right", || mode().is_ok_and(|mode| mode == 0o755));
    assert_eq!(
        fs::read_to_string(node.directory.join("conf/87-other.conflist")).unwrap(),
        "theirs"
    );
    let names = |directory: &str| {
        let mut names: Vec<_> = fs::read_dir(node.directory.join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("conf"), ["10-rampart.conflist", "87-other.conflist"]);
    assert_eq!(names("bin"), ["host-local", "portmap", "rampart-cni"]);
}

#[test]
fn a_foreign_list_that_comes_first_is_told_and_not_touched() {
    let mut node = CniNode::new("inst-first", "");
    node.start();
    assert_eq!(complaint(&node, 3021), None);
    node.directory.write("conf/05-theirs.conflist", "{}");
    eventually(LIMIT, "the agent complains", || {
        complaint(&node, 3021).is_some_and(|message| message.contains("05-theirs.conflist"))
    });
    assert!(node.conflist().exists());
    fs::remove_file(node.directory.join("conf/05-theirs.conflist")).unwrap();
    eventually(LIMIT, "it is satisfied", || complaint(&node, 3021).is_none());
}

#[test]
fn a_damaged_attachment_is_told_and_disturbs_nothing() {
    let mut node = CniNode::new("inst-damaged", "");
    fs::create_dir_all(node.directory.join("state/attachments")).unwrap();
    node.directory.write("state/attachments/0.json", "{\"containerID\":");
    node.start();
    let message = complaint(&node, 3024).expect("a complaint");
    assert!(message.contains("EOF"), "{message}");
    assert!(node.agent().status().ready);
}

#[test]
fn an_agent_at_rest_leaves_the_directories_in_peace() {
    let mut node = CniNode::new("inst-rest", "");
    let asked = node.directory.join("asked");
    let script = format!("#!/bin/sh\necho >> {}\nexec /usr/lib/cni/portmap\n", asked.display());
    node.directory.write("bin/portmap", &script);
    node.start();
    let count = || fs::read(&asked).map_or(0, |text| text.len());
    node.directory.write("conf/90-theirs.conflist", "{}");
    node.directory.write("conf/05-theirs.conflist", "{}");
    eventually(LIMIT, "the change is noticed", || complaint(&node, 3021).is_some());
    assert_eq!(count(), 1, "portmap has not changed, so it is not asked again");
    let ticks = || {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", node.agent().daemon().pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    throughout(Duration::from_secs(2), "it is not asked", || count() == 1);
    // Of 200: comparing the plugin again and again took most of them.
    assert!(ticks() - before < 40, "{} hundredths of a second", ticks() - before);
}
