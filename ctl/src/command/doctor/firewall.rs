//! Other firewalls of this machine, read with `nft`: a second pair of eyes beside the agent's, and
//! the only one where no agent runs.

use api::doctor::{Finding, Level};
use api::error_code;
use nftables::helper::{DEFAULT_NFT, NftablesError, get_current_ruleset_with_args};
use nftables::schema::{Chain, NfListObject, NfObject};
use nftables::types::{NfChainPolicy, NfFamily, NfHook};

/// The chains alone: the crate does not read the verdict maps of a whole ruleset.
const LIST_CHAINS: [&str; 2] = ["list", "chains"];
const OWN_TABLE: &str = "rampart";

/// `None` where there is no `nft`, or it may not be used.
pub(super) fn examine() -> Option<Finding> {
    match get_current_ruleset_with_args(DEFAULT_NFT, LIST_CHAINS) {
        Ok(ruleset) => {
            let chains = ruleset.objects.iter().filter_map(|object| match object {
                NfObject::ListObject(NfListObject::Chain(chain)) => Some(chain),
                NfObject::ListObject(_) | NfObject::CmdObject(_) => None,
            });
            Some(judge(chains))
        }
        Err(NftablesError::NftExecution { .. } | NftablesError::NftFailed { .. }) => None,
        Err(error) => {
            let message = format!("what nft says is not understood: {error}");
            let code = error_code::FOREIGN_FIREWALL;
            Some(Finding::trouble(Level::Warn, "firewalls", code, message))
        }
    }
}

fn judge<'a>(chains: impl Iterator<Item = &'a Chain<'a>>) -> Finding {
    let dropping: Vec<String> = chains.filter_map(dropping).collect();
    if dropping.is_empty() {
        return Finding::ok("firewalls", "no other base chain drops by policy");
    }
    let message = format!("policy drop in {}", dropping.join(", "));
    Finding::trouble(Level::Warn, "firewalls", error_code::FOREIGN_FIREWALL, message)
}

/// The same words as the agent's, so that both are told as one.
fn dropping(chain: &Chain<'_>) -> Option<String> {
    let hook = match chain.hook? {
        NfHook::Forward => "forward",
        NfHook::Input => "input",
        NfHook::Ingress
        | NfHook::Prerouting
        | NfHook::Output
        | NfHook::Postrouting
        | NfHook::Egress => return None,
    };
    if chain.policy != Some(NfChainPolicy::Drop) {
        return None;
    }
    let family = match chain.family {
        NfFamily::IP => "ip",
        NfFamily::IP6 => "ip6",
        NfFamily::INet => "inet",
        NfFamily::ARP => "arp",
        NfFamily::Bridge => "bridge",
        NfFamily::NetDev => "netdev",
    };
    if family == "inet" && chain.table == OWN_TABLE {
        return None;
    }
    let priority = chain.prio.unwrap_or(0);
    Some(format!("{family} {} {} (hook {hook}, priority {priority})", chain.table, chain.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(text: &str) -> Vec<Chain<'static>> {
        let ruleset: nftables::schema::Nftables<'static> = serde_json::from_str(text).unwrap();
        ruleset
            .objects
            .iter()
            .filter_map(|object| match object {
                NfObject::ListObject(NfListObject::Chain(chain)) => Some(chain.clone()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_forward_chain_that_drops_is_named_as_the_agent_names_it() {
        let text = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6", "release_name": "x", "json_schema_version": 1}},
            {"chain": {"family": "inet", "table": "rampart", "name": "forward", "handle": 1,
                "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 2,
                "type": "filter", "hook": "forward", "prio": 10, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 3}}]}"#;
        let finding = judge(chains(text).iter());
        assert_eq!(finding.message, "policy drop in ip filter FORWARD (hook forward, priority 10)");
        assert_eq!(judge(chains(r#"{"nftables": []}"#).iter()).level, Level::Ok);
    }
}
