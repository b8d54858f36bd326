//! ADD.

use std::net::IpAddr;
use std::time::Duration;

use api::cni::{Added, Attachment, AttachmentId};
use serde_json::{Value, json};

use super::agent::{Agent, AgentError};
use super::delegate::{Addresses, Delegate};
use super::error::{ErrorCode, Failure};
use super::input::{self, Config, Ipam, PodArgs};
use super::version::Version;
use super::wiring::{self, Pair, PodNamespace};
use super::{del, wiring::gateway};
use crate::cni::name::{self, Mac};
use crate::kernel::route::Requests;

/// `CNI_NETNS`, as text and open.
struct Netns {
    path: String,
    namespace: PodNamespace,
}

pub(super) fn run(config: &Config) -> Result<Value, Failure> {
    let id = input::attachment_id()?;
    let pod = input::pod()?;
    let path = input::netns()
        .ok_or_else(|| Failure::new(ErrorCode::InvalidEnvironment, "CNI_NETNS is not set"))?;
    let netns = Netns { namespace: PodNamespace::open(&path)?, path: path.display().to_string() };
    match &config.ipam {
        Some(ipam) => main_plugin(config, ipam, &id, pod, &netns),
        None => chained(config, id, pod, &netns),
    }
}

fn main_plugin(
    config: &Config,
    ipam: &Ipam,
    id: &AttachmentId,
    pod: PodArgs,
    netns: &Netns,
) -> Result<Value, Failure> {
    if config.previous.is_some() {
        let text = "`ipam` is for the first plugin of a list; as a gate rampart-cni has none";
        return Err(Failure::new(ErrorCode::InvalidConfig, text));
    }
    let delegate = Delegate::find(&ipam.kind, &input::search_path())?;
    let addresses = allocate(&delegate, config)?;
    let made = attach(config, id, pod, netns, &addresses);
    if made.is_err() {
        // Best effort: the runtime calls DEL after a failed ADD, which does the same again.
        del::undo(config, ipam, id).ok();
    }
    made
}

/// An address of this container and interface that a killed ADD left behind is given back first.
fn allocate(delegate: &Delegate, config: &Config) -> Result<Addresses, Failure> {
    delegate.add(&config.raw, config.version).or_else(|failure| {
        delegate.run("DEL", &config.raw, config.version)?;
        // Not a leftover, then: the first answer says what it is.
        delegate.add(&config.raw, config.version).map_err(|_| failure)
    })
}

fn attach(
    config: &Config,
    id: &AttachmentId,
    pod: PodArgs,
    netns: &Netns,
    given: &Addresses,
) -> Result<Value, Failure> {
    let host = name::host_interface(id);
    let alias = format!("{} {}/{}", config.name, pod.namespace, pod.name);
    let pair = Pair {
        host: &host,
        pod: &id.ifname,
        alias: &alias,
        mtu: config.mtu,
        macs: name::macs(id),
        addresses: &given.addresses,
    };
    let mut requests = wiring::requests()?;
    wiring::make(&mut requests, &netns.namespace, &pair)?;
    wiring::host_side(&mut requests, &pair)?;
    netns.namespace.within(|| wiring::pod_side(&pair))?;
    wait_for_policy(
        config,
        Attachment {
            id: id.clone(),
            network: config.name.clone(),
            namespace: pod.namespace,
            pod: pod.name,
            uid: pod.uid,
            addresses: given.addresses.clone(),
            interface: host.clone(),
            netns: netns.path.clone(),
        },
    )?;
    Ok(result(config.version, &pair, &netns.path, given.dns.as_ref()))
}

/// The gate. The pod must not start before this returns.
fn wait_for_policy(config: &Config, attachment: Attachment) -> Result<Added, Failure> {
    let agent = Agent::new(&config.socket);
    let asked = agent.ask("POST", "/v1/cni/add", Some(&attachment), config.timeout, true);
    asked.map_err(|error| {
        let who = format!("pod {}/{}", attachment.namespace, attachment.pod);
        let wait = seconds(config.timeout);
        let text = format!("{who}: its policy was not in the kernel within {wait}: {error}");
        let next = match error {
            AgentError::Refused(refused) => refused.next,
            AgentError::Silent { .. } | AgentError::Unreadable { .. } => {
                "is the agent of this node running, and of the same version?".to_owned()
            }
        };
        Failure::new(ErrorCode::TryAgainLater, text).details(next)
    })
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn result(version: Version, pair: &Pair<'_>, netns: &str, dns: Option<&Value>) -> Value {
    let mac = |mac: Mac| mac.map(|octet| format!("{octet:02x}")).join(":");
    let (host_mac, pod_mac) = pair.macs;
    let ips: Vec<Value> = pair
        .addresses
        .iter()
        .map(|address| {
            let v4 = address.is_ipv4();
            let length = if v4 { 32 } else { 128 };
            let mut ip = json!({
                "address": format!("{address}/{length}"),
                "gateway": gateway(v4),
                "interface": 1,
            });
            if version.tags_addresses()
                && let Value::Object(fields) = &mut ip
            {
                let family = if v4 { "4" } else { "6" };
                fields.insert("version".to_owned(), json!(family));
            }
            ip
        })
        .collect();
    let has = |v4: bool| pair.addresses.iter().any(|address| address.is_ipv4() == v4);
    let default = |(v4, to): (bool, &str)| json!({ "dst": to, "gw": gateway(v4) });
    let routes: Vec<Value> = [(true, "0.0.0.0/0"), (false, "::/0")]
        .into_iter()
        .filter(|(v4, _)| has(*v4))
        .map(default)
        .collect();
    json!({
        "cniVersion": version.as_str(),
        "interfaces": [
            { "name": pair.host, "mac": mac(host_mac) },
            { "name": pair.pod, "mac": mac(pod_mac), "sandbox": netns },
        ],
        "ips": ips,
        "routes": routes,
        "dns": dns.cloned().unwrap_or_else(|| json!({})),
    })
}

fn chained(
    config: &Config,
    id: AttachmentId,
    pod: PodArgs,
    netns: &Netns,
) -> Result<Value, Failure> {
    let Some(previous) = &config.previous else {
        let text = "neither `ipam` nor `prevResult`: rampart-cni is the first plugin with `ipam`, \
                    or comes after another one";
        return Err(Failure::new(ErrorCode::InvalidConfig, text));
    };
    let addresses = addresses_of(previous, &id.ifname)?;
    let mut requests = wiring::requests()?;
    let interface = interface_of(&mut requests, previous, &addresses);
    wait_for_policy(
        config,
        Attachment {
            id,
            network: config.name.clone(),
            namespace: pod.namespace,
            pod: pod.name,
            uid: pod.uid,
            addresses,
            interface,
            netns: netns.path.clone(),
        },
    )?;
    let mut result = previous.clone();
    if let Value::Object(fields) = &mut result {
        fields.insert("cniVersion".to_owned(), json!(config.version.as_str()));
    }
    Ok(result)
}

/// Addresses that `prevResult` gives to the pod's interface.
pub(super) fn addresses_of(previous: &Value, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let decode = |why: String| Failure::new(ErrorCode::Decode, format!("prevResult: {why}"));
    let interfaces = previous.get("interfaces").and_then(Value::as_array);
    let of_pod = |ip: &Value| {
        let index =
            ip.get("interface").and_then(Value::as_u64).and_then(|i| usize::try_from(i).ok());
        let interface = index.and_then(|index| interfaces?.get(index));
        let Some(interface) = interface else { return true };
        let text = |field: &str| interface.get(field).and_then(Value::as_str).unwrap_or_default();
        !text("sandbox").is_empty() && text("name") == ifname
    };
    let ips = previous.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut addresses = Vec::new();
    for ip in ips.iter().filter(|ip| of_pod(ip)) {
        let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
        let bare = text.split_once('/').map_or(text, |(address, _)| address);
        let address = bare.parse().map_err(|_| decode(format!("`{text}` is no address")))?;
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(decode(format!("it has no address of {ifname}")));
    }
    Ok(addresses)
}

/// The interface that packets of the pod come in by: the kernel's route says it best (behind a bridge
/// it is the bridge). Else a host side interface that the result names; else unknown, and then the
/// agent finds it when there is a route.
fn interface_of(requests: &mut Requests, previous: &Value, addresses: &[IpAddr]) -> String {
    let routed = addresses.iter().find_map(|address| wiring::route_of(requests, *address));
    routed.unwrap_or_else(|| {
        let interfaces = previous.get("interfaces").and_then(Value::as_array);
        let text = |interface: &Value, field: &str| {
            interface.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let host = interfaces.into_iter().flatten().find(|i| text(i, "sandbox").is_empty());
        host.map(|host| text(host, "name")).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>(addresses: &'a [IpAddr]) -> Pair<'a> {
        let macs = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        Pair { host: "rv0", pod: "eth0", alias: "", mtu: None, macs, addresses }
    }

    #[test]
    fn results_have_the_form_of_their_version() {
        let addresses = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let new = result(Version::V1_0_0, &pair(&addresses), "/run/netns/a", None);
        assert_eq!(new["ips"][1]["address"], "fd00::5/128");
        assert_eq!(new["ips"][1]["gateway"], "fe80::1");
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(new["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "169.254.1.1"}));
        assert_eq!(new["interfaces"][1]["sandbox"], "/run/netns/a");
        let old = result(Version::V0_4_0, &pair(&addresses), "/run/netns/a", None);
        assert_eq!(
            (&old["ips"][0]["version"], &old["ips"][1]["version"]),
            (&json!("4"), &json!("6"))
        );
        assert_eq!(old["cniVersion"], "0.4.0");
    }

    #[test]
    fn addresses_of_the_pod_are_told_from_those_of_the_host() {
        let previous = json!({
            "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/x"}],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "10.0.0.5/24", "interface": 2},
                {"address": "fd00::5/64"},
            ],
        });
        let expected: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses_of(&previous, "eth0").unwrap(), expected);
        assert_eq!(addresses_of(&json!({}), "eth0").unwrap_err().code, ErrorCode::Decode);
        let bad = json!({"ips": [{"address": "10.0.0.x/24"}]});
        assert_eq!(addresses_of(&bad, "eth0").unwrap_err().code, ErrorCode::Decode);
    }
}
