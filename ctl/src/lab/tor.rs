//! The switches: BIRD, FRR or Rampart, each told the same thing in its own words.
//!
//! A ToR speaks eBGP with every node, sends default routes only, takes pod CIDRs only, and puts
//! what it learns into the kernel of its namespace.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::LabError;
use super::manifest;
use super::name::Name;
use super::process::Start;
use super::state::write_atomically;
use super::topology::{CLUSTER_CIDRS, HOLD_TIME_SECONDS, NODE_ASN};
use super::topology::{Link, Node, Sessions, Topology, Tor, TorKind};

/// Where Debian and Ubuntu put the daemons of FRR.
pub const FRR_DIRECTORY: &str = "/usr/lib/frr";
/// Without a TCP port for its console.
const FRR_ARGUMENTS: [&str; 6] = ["-F", "datacenter", "-P", "0", "--log", "stdout"];
/// User that FRR's packages make and its daemons insist on.
const FRR_USER: &str = "frr";

/// Writes the configuration of a ToR and returns what to start, in order.
///
/// # Errors
/// [`LabError::File`], [`LabError::Render`].
pub fn prepare(
    lab: &Name,
    topology: &Topology,
    tor: &Tor,
    rampart: &Path,
) -> Result<Vec<Start>, LabError> {
    let directory = directory(lab, tor);
    fs::create_dir_all(&directory).map_err(LabError::file("make", &directory))?;
    let start = |role: String, log: &str, command: Vec<String>| Start {
        role,
        namespace: lab.namespace(&tor.name),
        command,
        log: directory.join(log),
        ready: None,
    };
    let file = |name: &str| directory.join(name).display().to_string();
    match tor.kind {
        TorKind::Bird => {
            write_atomically(&directory.join("bird.conf"), &bird(topology, tor))?;
            let command = ["bird", "-f", "-c", &file("bird.conf"), "-s", &file("bird.ctl")];
            let mut bird = start(
                format!("bird {}", tor.name),
                "bird.log",
                command.map(str::to_owned).to_vec(),
            );
            bird.ready = Some(directory.join("bird.ctl"));
            Ok(vec![bird])
        }
        TorKind::Frr => {
            write_atomically(&directory.join("bgpd.conf"), &frr(topology, tor))?;
            write_atomically(&directory.join("zebra.conf"), &frr_zebra(tor))?;
            give_to_frr(&directory)?;
            let daemon = |program: &str| {
                let mut command = vec![format!("{FRR_DIRECTORY}/{program}")];
                for argument in FRR_ARGUMENTS {
                    command.push(argument.to_owned());
                }
                for (option, name) in [
                    ("-f", file(&format!("{program}.conf"))),
                    ("-i", file(&format!("{program}.pid"))),
                    ("-z", file("zserv.api")),
                    ("--vty_socket", directory.display().to_string()),
                ] {
                    command.extend([option.to_owned(), name]);
                }
                start(format!("{program} {}", tor.name), &format!("{program}.log"), command)
            };
            let mut zebra = daemon("zebra");
            // bgpd looks for zebra once, and then only ten seconds later again.
            zebra.ready = Some(directory.join("zserv.api"));
            let mut bgpd = daemon("bgpd");
            bgpd.ready = Some(directory.join("bgpd.vty"));
            Ok(vec![zebra, bgpd])
        }
        TorKind::Rampart => {
            let store = directory.join("store");
            manifest::write_store(&store, &manifest::tor_store(topology, tor)?)?;
            Ok(vec![start(
                format!("agent {}", tor.name),
                "agent.log",
                agent_command(rampart, &tor.name, &store, &directory),
            )])
        }
    }
}

/// FRR's daemons drop root before they make their sockets.
fn give_to_frr(directory: &Path) -> Result<(), LabError> {
    let user = nix::unistd::User::from_name(FRR_USER).ok().flatten().ok_or_else(|| {
        LabError::MissingProgram {
            program: format!("bgpd (there is no user {FRR_USER})"),
            remedy: "Install it again: apt-get install --reinstall frr".to_owned(),
        }
    })?;
    nix::unistd::chown(directory, Some(user.uid), Some(user.gid))
        .map_err(|errno| LabError::file("give away", directory)(errno.into()))
}

/// The command line of an agent.
#[must_use]
pub fn agent_command(rampart: &Path, node: &str, store: &Path, run: &Path) -> Vec<String> {
    vec![
        rampart.display().to_string(),
        "agent".to_owned(),
        "--node-name".to_owned(),
        node.to_owned(),
        "--store".to_owned(),
        format!("dir:{}", store.display()),
        "--run-dir".to_owned(),
        run.display().to_string(),
        // Each agent of the laboratory is a machine of its own.
        "--state-dir".to_owned(),
        run.join("state").display().to_string(),
    ]
}

/// Files of a ToR. Below `tors`, so that `rctl` does not take a Rampart ToR for a node.
#[must_use]
pub fn directory(lab: &Name, tor: &Tor) -> PathBuf {
    lab.directory().join("tors").join(&tor.name)
}

/// How to look inside, for humans.
#[must_use]
pub fn console(lab: &Name, tor: &Tor) -> String {
    let directory = directory(lab, tor);
    let directory = directory.display();
    match tor.kind {
        TorKind::Bird => format!("birdc -s {directory}/bird.ctl show protocols"),
        TorKind::Frr => format!("vtysh --vty_socket {directory} -c 'show bgp summary'"),
        TorKind::Rampart => format!("rctl get peers --socket {directory}/agent.sock"),
    }
}

fn links<'a>(topology: &'a Topology, tor: &Tor) -> impl Iterator<Item = (&'a Node, &'a Link)> {
    let name = tor.name.clone();
    topology.nodes.iter().flat_map(move |node| {
        let name = name.clone();
        node.uplinks.iter().filter(move |link| link.tor == name).map(move |link| (node, link))
    })
}

fn bird(topology: &Topology, tor: &Tor) -> String {
    let [cluster_v4, cluster_v6] = CLUSTER_CIDRS;
    let keepalive = HOLD_TIME_SECONDS / 3;
    let mut text = format!(
        "log stderr all;\n\
         router id {router_id};\n\
         protocol device {{ scan time 1; }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ merge paths on; ipv6 {{ export where source = RTS_BGP; }}; }}\n\
         protocol static {{ ipv4; route 0.0.0.0/0 unreachable; }}\n\
         protocol static {{ ipv6; route ::/0 unreachable; }}\n\
         template bgp node {{\n\
         \x20 hold time {HOLD_TIME_SECONDS}; keepalive time {keepalive};\n\
         \x20 connect delay time 1; connect retry time 2; error wait time 1, 4;\n\
         }}\n\
         template bgp node4 from node {{\n\
         \x20 ipv4 {{ import where net ~ [ {cluster_v4}{{24,24}} ]; \
         export where source = RTS_STATIC; next hop self; }};\n\
         }}\n\
         template bgp node6 from node {{\n\
         \x20 ipv6 {{ import where net ~ [ {cluster_v6}{{64,64}} ]; \
         export where source = RTS_STATIC; next hop self; }};\n\
         }}\n\
         template bgp node46 from node4 {{\n\
         \x20 ipv6 {{ import where net ~ [ {cluster_v6}{{64,64}} ]; \
         export where source = RTS_STATIC; next hop self; }};\n\
         }}\n",
        router_id = tor.address_v4,
    );
    // Writing to a String cannot fail.
    for (node, link) in links(topology, tor) {
        let (name, asn) = (&node.name, tor.asn);
        let session = |name: &str, template: &str, local: &str, remote: &str, more: &str| {
            format!(
                "protocol bgp {name} from {template} {{ local {local} as {asn}; \
                 neighbor {remote} as {NODE_ASN};{more} }}\n"
            )
        };
        let (local_v4, remote_v4) = (link.tor_v4.to_string(), link.node_v4.to_string());
        match tor.sessions {
            Sessions::Shared => {
                let next_hop = format!(" ipv6 {{ next hop address {}; }};", link.tor_v6);
                text.push_str(&session(name, "node46", &local_v4, &remote_v4, &next_hop));
            }
            Sessions::PerFamily => {
                text.push_str(&session(name, "node4", &local_v4, &remote_v4, ""));
                let (local, remote) = (link.tor_v6.to_string(), link.node_v6.to_string());
                text.push_str(&session(&format!("{name}_v6"), "node6", &local, &remote, ""));
            }
        }
    }
    text
}

fn frr_zebra(tor: &Tor) -> String {
    format!("hostname {}\nlog stdout\n", tor.name)
}

fn frr(topology: &Topology, tor: &Tor) -> String {
    let [cluster_v4, cluster_v6] = CLUSTER_CIDRS;
    let keepalive = HOLD_TIME_SECONDS / 3;
    let mut text = format!(
        "hostname {name}\n\
         log stdout\n\
         ip prefix-list PODS seq 5 permit {cluster_v4} ge 24 le 24\n\
         ip prefix-list DEFAULT seq 5 permit 0.0.0.0/0\n\
         ipv6 prefix-list PODS seq 5 permit {cluster_v6} ge 64 le 64\n\
         ipv6 prefix-list DEFAULT seq 5 permit ::/0\n\
         router bgp {asn}\n\
         \x20bgp router-id {router_id}\n\
         \x20no bgp default ipv4-unicast\n\
         \x20no bgp ebgp-requires-policy\n\
         \x20no bgp suppress-duplicates\n\
         \x20bgp bestpath as-path multipath-relax\n\
         \x20coalesce-time 50\n",
        name = tor.name,
        asn = tor.asn,
        router_id = tor.address_v4,
    );
    let (mut v4, mut v6) = (String::new(), String::new());
    for (node, link) in links(topology, tor) {
        let mut session = |address: &str| {
            // Writing to a String cannot fail.
            write!(
                text,
                " neighbor {address} remote-as {NODE_ASN}\n\
                 \x20neighbor {address} description {}\n\
                 \x20neighbor {address} timers {keepalive} {HOLD_TIME_SECONDS}\n\
                 \x20neighbor {address} timers connect 2\n\
                 \x20neighbor {address} advertisement-interval 0\n",
                node.name
            )
            .ok();
        };
        let family = |address: &str| {
            format!(
                "  neighbor {address} activate\n\
                 \x20 neighbor {address} default-originate\n\
                 \x20 neighbor {address} prefix-list PODS in\n\
                 \x20 neighbor {address} prefix-list DEFAULT out\n"
            )
        };
        let (over_v4, over_v6) = (link.node_v4.to_string(), link.node_v6.to_string());
        session(&over_v4);
        v4.push_str(&family(&over_v4));
        match tor.sessions {
            Sessions::Shared => v6.push_str(&family(&over_v4)),
            Sessions::PerFamily => {
                session(&over_v6);
                v6.push_str(&family(&over_v6));
            }
        }
    }
    for (name, neighbours) in [("ipv4", v4), ("ipv6", v6)] {
        // Writing to a String cannot fail.
        write!(text, " address-family {name} unicast\n{neighbours} exit-address-family\n").ok();
    }
    text
}
