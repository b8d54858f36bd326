//! Other firewalls, remains of other network plugins, and kube-proxy: by the names of what they
//! leave in the kernel.

use std::fs;

use api::doctor::{Finding, Level};
use api::error_code;
use policy::nft::ir::TABLE;

use crate::kernel::nft::inventory::{self, AnyChain};

/// Beginnings of names of chains and tables that other network plugins make.
const FOREIGN_CHAINS: [(&str, &str); 9] = [
    ("KUBE-ROUTER", "kube-router"),
    ("KUBE-NWPLCY", "kube-router"),
    ("KUBE-POD-FW", "kube-router"),
    ("cali-", "Calico"),
    ("CILIUM_", "Cilium"),
    ("FLANNEL", "flannel"),
    ("flannel", "flannel"),
    ("WEAVE", "Weave"),
    ("ANTREA", "Antrea"),
];
/// The same of interfaces.
const FOREIGN_INTERFACES: [(&str, &str); 9] = [
    ("cali", "Calico"),
    ("vxlan.calico", "Calico"),
    ("cilium_", "Cilium"),
    ("flannel.", "flannel"),
    ("kube-bridge", "kube-router"),
    ("kube-dummy-if", "kube-router"),
    ("weave", "Weave"),
    ("antrea-gw", "Antrea"),
    ("cni0", "the bridge plugin"),
];

/// `main_plugin`: the pods' network is ours, so interfaces of another plugin are remains.
pub(super) fn examine(main_plugin: bool) -> Vec<Finding> {
    let chains = match inventory::chains() {
        Ok(chains) => chains,
        Err(error) => {
            let message = format!("nf_tables cannot be read: {error}");
            let code = error_code::CAPABILITY_MISSING;
            return vec![Finding::trouble(Level::Fail, "nf_tables", code, message)];
        }
    };
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("nat")));
    let interfaces = super::host::interfaces();
    let mut findings = vec![own(&chains), firewalls(&chains)];
    findings.push(remains(&chains, if main_plugin { &interfaces } else { &[] }));
    findings.push(service_proxy(&chains, &interfaces, legacy));
    findings
}

fn is_ours(chain: &AnyChain) -> bool {
    chain.family == "inet" && chain.table == TABLE
}

fn own(chains: &[AnyChain]) -> Finding {
    let count = chains.iter().filter(|chain| is_ours(chain)).count();
    if count == 0 {
        let message = "table inet rampart is not there: no policy is in force";
        return Finding::trouble(Level::Fail, "nf_tables", error_code::NFT_DRIFT, message);
    }
    Finding::ok("nf_tables", format!("{count} chains of ours"))
}

/// What is accepted by one base chain of a hook still has to pass the others.
fn firewalls(chains: &[AnyChain]) -> Finding {
    let dropping: Vec<String> = chains
        .iter()
        .filter(|chain| !is_ours(chain))
        .filter_map(|chain| {
            let hook = chain.hook.as_ref()?;
            let concerns = matches!(hook.name, "forward" | "input");
            (hook.drops && concerns).then(|| {
                let AnyChain { family, table, name, .. } = chain;
                format!("{family} {table} {name} (hook {}, priority {})", hook.name, hook.priority)
            })
        })
        .collect();
    if dropping.is_empty() {
        return Finding::ok("firewalls", "no other base chain drops by policy");
    }
    let message = format!("policy drop in {}", dropping.join(", "));
    Finding::trouble(Level::Warn, "firewalls", error_code::FOREIGN_FIREWALL, message)
}

fn remains(chains: &[AnyChain], interfaces: &[String]) -> Finding {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut note = |owner: &'static str, what: String| match found
        .iter_mut()
        .find(|(known, _)| *known == owner)
    {
        Some((_, list)) if list.len() < 120 => list.push_str(&format!(", {what}")),
        Some(_) => {}
        None => found.push((owner, what)),
    };
    for chain in chains.iter().filter(|chain| !is_ours(chain)) {
        let owner = FOREIGN_CHAINS
            .iter()
            .find(|(start, _)| chain.name.starts_with(start) || chain.table.starts_with(start));
        if let Some((_, owner)) = owner {
            note(owner, format!("chain {}", chain.name));
        }
    }
    for name in interfaces {
        let owner = FOREIGN_INTERFACES.iter().find(|(start, _)| name.starts_with(start));
        if let Some((_, owner)) = owner {
            note(owner, format!("interface {name}"));
        }
    }
    if found.is_empty() {
        return Finding::ok("leftovers", "none of other network plugins");
    }
    let parts: Vec<String> =
        found.iter().map(|(owner, what)| format!("of {owner}: {what}")).collect();
    let message = parts.join("; ");
    Finding::trouble(Level::Warn, "leftovers", error_code::LEFTOVER_CNI, message)
}

fn service_proxy(chains: &[AnyChain], interfaces: &[String], legacy: bool) -> Finding {
    let has = |table: &str, name: &str| chains.iter().any(|c| c.table == table && c.name == name);
    let mode = if chains.iter().any(|chain| chain.table == "kube-proxy") {
        "nftables mode"
    } else if interfaces.iter().any(|name| name == "kube-ipvs0") {
        "ipvs mode"
    } else if has("nat", "KUBE-SERVICES") {
        "iptables mode"
    } else if legacy {
        // Chains of the old iptables are not told by netlink.
        "iptables mode, most likely (legacy iptables)"
    } else {
        let message = "no table or chain of kube-proxy";
        return Finding::trouble(Level::Warn, "kube-proxy", error_code::NO_SERVICE_PROXY, message);
    };
    Finding::ok("kube-proxy", mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::nft::inventory::AnyHook;

    fn chain(family: &'static str, table: &str, name: &str) -> AnyChain {
        AnyChain { family, table: table.to_owned(), name: name.to_owned(), hook: None }
    }

    fn base(table: &str, hook: &'static str, drops: bool) -> AnyChain {
        let hook = Some(AnyHook { name: hook, priority: 0, drops });
        AnyChain { hook, ..chain("inet", table, "c") }
    }

    #[test]
    fn a_dropping_firewall_is_named_with_its_hook_and_ours_is_not() {
        let chains =
            [base(TABLE, "forward", true), base("fw", "forward", true), base("x", "output", true)];
        let finding = firewalls(&chains);
        assert_eq!(finding.message, "policy drop in inet fw c (hook forward, priority 0)");
        assert_eq!(firewalls(&[base("fw", "forward", false)]).level, Level::Ok);
    }

    #[test]
    fn remains_are_told_by_owner() {
        let chains =
            [chain("ip", "filter", "KUBE-ROUTER-INPUT"), chain("ip", "nat", "cali-POSTROUTING")];
        let finding = remains(&chains, &["flannel.1".to_owned(), "eth0".to_owned()]);
        assert_eq!(finding.code, Some(error_code::LEFTOVER_CNI));
        for part in [
            "of kube-router: chain KUBE-ROUTER-INPUT",
            "of Calico",
            "of flannel: interface flannel.1",
        ] {
            assert!(finding.message.contains(part), "{}", finding.message);
        }
        assert_eq!(remains(&[chain("ip", "nat", "KUBE-SERVICES")], &[]).level, Level::Ok);
    }

    #[test]
    fn the_mode_of_kube_proxy_is_seen() {
        let mode = |chains: &[AnyChain], interfaces: &[String]| {
            service_proxy(chains, interfaces, false).message
        };
        assert_eq!(mode(&[chain("ip", "kube-proxy", "services")], &[]), "nftables mode");
        assert_eq!(mode(&[chain("ip", "nat", "KUBE-SERVICES")], &[]), "iptables mode");
        assert_eq!(mode(&[], &["kube-ipvs0".to_owned()]), "ipvs mode");
        assert_eq!(service_proxy(&[], &[], false).level, Level::Warn);
        assert_eq!(service_proxy(&[], &[], true).level, Level::Ok);
    }

    #[test]
    fn without_our_table_no_policy_is_in_force() {
        assert_eq!(own(&[]).level, Level::Fail);
        assert_eq!(own(&[chain("inet", TABLE, "x")]).level, Level::Ok);
    }
}
