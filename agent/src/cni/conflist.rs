//! The network list that runtimes read.

use std::path::PathBuf;

use api::constant::{CNI_NETWORK, CNI_PLUGIN};
use ipnet::IpNet;
use serde_json::{Value, json};

/// All that the list depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflist {
    /// The node's pod CIDRs.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// MTU of pods.
    pub(crate) mtu: Option<u32>,
    /// The agent's socket.
    pub(crate) socket: PathBuf,
    /// The agent's state directory.
    pub(crate) state_dir: PathBuf,
    /// `portmap` is there to be chained.
    pub(crate) portmap: bool,
    /// All plugins of the list speak 1.1.0, so that runtimes may ask for STATUS and GC.
    pub(crate) recent: bool,
}

impl Conflist {
    /// The file.
    pub(crate) fn render(&self) -> String {
        let mut main = json!({
            "type": CNI_PLUGIN,
            "ipam": { "type": "host-local", "ranges": self.ranges() },
            "socket": self.socket,
            "stateDir": self.state_dir,
        });
        if let (Some(mtu), Value::Object(fields)) = (self.mtu, &mut main) {
            fields.insert("mtu".to_owned(), json!(mtu));
        }
        let mut plugins = vec![main];
        if self.portmap {
            plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        }
        let list = json!({
            "cniVersion": if self.recent { "1.1.0" } else { "1.0.0" },
            "name": CNI_NETWORK,
            "plugins": plugins,
        });
        format!("{list:#}\n")
    }

    /// host-local gives one address of each set of ranges: a set for each family.
    fn ranges(&self) -> Vec<Vec<Value>> {
        let of = |v4: bool| -> Vec<Value> {
            let nets = self.pod_cidrs.iter().filter(|net| net.addr().is_ipv4() == v4);
            nets.map(|net| json!({ "subnet": net })).collect()
        };
        [of(true), of(false)].into_iter().filter(|set| !set.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_cidr_is_a_range_and_each_family_a_set() {
        let nets = ["10.1.0.0/24", "fd00:1::/64", "10.2.0.0/24"];
        let list = Conflist {
            pod_cidrs: nets.map(|net| net.parse().unwrap()).to_vec(),
            mtu: Some(1450),
            socket: PathBuf::from("/run/rampart/agent.sock"),
            state_dir: PathBuf::from("/var/lib/rampart"),
            portmap: true,
            recent: false,
        };
        let value: Value = serde_json::from_str(&list.render()).unwrap();
        assert_eq!(value["cniVersion"], "1.0.0");
        let main = &value["plugins"][0];
        assert_eq!((&main["type"], &main["mtu"]), (&json!("rampart-cni"), &json!(1450)));
        assert_eq!(
            main["ipam"]["ranges"],
            json!([
                [{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}],
                [{"subnet": "fd00:1::/64"}]
            ])
        );
        assert_eq!(value["plugins"][1]["capabilities"]["portMappings"], true);
        let list = Conflist { portmap: false, recent: true, ..list };
        let value: Value = serde_json::from_str(&list.render()).unwrap();
        assert_eq!(
            (value["plugins"].as_array().unwrap().len(), &value["cniVersion"]),
            (1, &json!("1.1.0"))
        );
    }
}
