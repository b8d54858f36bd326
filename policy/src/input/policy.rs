//! NetworkPolicy.

use std::fmt;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as RawSelector;

use super::{Direction, LabelSelector, PortMatch};
use crate::fault::{FieldFault, Path, Reason};

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Pods of its namespace that it isolates.
    pub(crate) subject: LabelSelector,
    /// `None`: does not isolate ingress.
    pub(crate) ingress: Option<Rules>,
    /// `None`: does not isolate egress.
    pub(crate) egress: Option<Rules>,
}

/// `None` = a rule that could not be understood: it admits nothing.
pub(crate) type Rules = Vec<Option<Rule>>;

/// Admits what is to or from any of its peers, on any of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Empty = everybody.
    pub(crate) peers: Vec<Peer>,
    /// Empty = every protocol and port.
    pub(crate) ports: Vec<PortMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Pods { namespaces: Namespaces, pods: LabelSelector },
    Block(Block),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// That of the policy.
    Own,
    Selected(LabelSelector),
}

/// A network without its exceptions. Host bits are cleared; exceptions are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    pub(crate) net: IpNet,
    pub(crate) except: Vec<IpNet>,
}

impl Policy {
    pub(crate) fn rules(&self, direction: Direction) -> Option<&Rules> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    pub(crate) fn parse(raw: &networking::NetworkPolicy, faults: &mut Vec<FieldFault>) -> Self {
        let default = networking::NetworkPolicySpec::default();
        let spec = raw.spec.as_ref().unwrap_or(&default);
        let root = Path::root("spec");
        let before = faults.len();
        let at = root.field("podSelector");
        let subject = optional_selector(spec.pod_selector.as_ref(), &at, faults);
        let readable_subject = faults.len() == before;
        let (isolates_ingress, isolates_egress) = directions(spec, &root, faults);

        let mut ingress = Vec::new();
        let list = root.field("ingress");
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let raw = RawRule { peers: ("from", &rule.from), ports: &rule.ports };
            ingress.push(raw.parse(&list.index(i), faults));
        }
        let mut egress = Vec::new();
        let list = root.field("egress");
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            let raw = RawRule { peers: ("to", &rule.to), ports: &rule.ports };
            egress.push(raw.parse(&list.index(i), faults));
        }
        if !readable_subject {
            // We may hold more pods than were meant: give none of them anything.
            ingress.iter_mut().chain(&mut egress).for_each(|rule| *rule = None);
        }
        Self {
            subject,
            ingress: isolates_ingress.then_some(ingress),
            egress: isolates_egress.then_some(egress),
        }
    }
}

/// policyTypes: (ingress, egress). An entry that cannot be understood isolates both.
fn directions(
    spec: &networking::NetworkPolicySpec,
    root: &Path<'_>,
    faults: &mut Vec<FieldFault>,
) -> (bool, bool) {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    }
    let list = root.field("policyTypes");
    let (mut ingress, mut egress) = (false, false);
    for (i, text) in types.iter().enumerate() {
        match text.as_str() {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            other => {
                let message = format!("{other:?} is not one of Ingress, Egress");
                faults.push(FieldFault::new(&list.index(i), Reason::InvalidPolicyType, message));
                (ingress, egress) = (true, true);
            }
        }
    }
    (ingress, egress)
}

fn optional_selector(
    raw: Option<&RawSelector>,
    path: &Path<'_>,
    faults: &mut Vec<FieldFault>,
) -> LabelSelector {
    raw.map(|raw| LabelSelector::parse(raw, path, faults)).unwrap_or_default()
}

/// An ingress or egress rule.
struct RawRule<'a> {
    peers: (&'a str, &'a Option<Vec<networking::NetworkPolicyPeer>>),
    ports: &'a Option<Vec<networking::NetworkPolicyPort>>,
}

impl RawRule<'_> {
    fn parse(&self, path: &Path<'_>, faults: &mut Vec<FieldFault>) -> Option<Rule> {
        let before = faults.len();
        let (field, peers) = self.peers;
        let list = path.field(field);
        let peers = peers.iter().flatten().enumerate();
        let peers = peers.filter_map(|(i, raw)| Peer::parse(raw, &list.index(i), faults)).collect();
        let list = path.field("ports");
        let ports = self.ports.iter().flatten().enumerate();
        let ports =
            ports.filter_map(|(i, raw)| PortMatch::parse(raw, &list.index(i), faults)).collect();
        // What could be read of a faulty rule is not what was meant; an emptied list even means
        // "everybody". So nothing of it counts.
        (faults.len() == before).then_some(Rule { peers, ports })
    }
}

impl Peer {
    fn parse(
        raw: &networking::NetworkPolicyPeer,
        path: &Path<'_>,
        faults: &mut Vec<FieldFault>,
    ) -> Option<Self> {
        let at_pods = path.field("podSelector");
        match (&raw.ip_block, &raw.namespace_selector, &raw.pod_selector) {
            (Some(block), None, None) => {
                Block::parse(block, &path.field("ipBlock"), faults).map(Self::Block)
            }
            (Some(_), _, _) => {
                let message = "ipBlock cannot be combined with selectors".to_owned();
                faults.push(FieldFault::new(path, Reason::MixedPeer, message));
                None
            }
            (None, None, None) => {
                let message = "needs ipBlock, podSelector or namespaceSelector".to_owned();
                faults.push(FieldFault::new(path, Reason::EmptyPeer, message));
                None
            }
            (None, None, Some(pods)) => {
                let pods = LabelSelector::parse(pods, &at_pods, faults);
                Some(Self::Pods { namespaces: Namespaces::Own, pods })
            }
            (None, Some(namespaces), pods) => {
                let at = path.field("namespaceSelector");
                let namespaces = LabelSelector::parse(namespaces, &at, faults);
                let pods = optional_selector(pods.as_ref(), &at_pods, faults);
                Some(Self::Pods { namespaces: Namespaces::Selected(namespaces), pods })
            }
        }
    }
}

impl Block {
    fn parse(
        raw: &networking::IPBlock,
        path: &Path<'_>,
        faults: &mut Vec<FieldFault>,
    ) -> Option<Self> {
        let net = cidr(&raw.cidr, &path.field("cidr"), faults);
        let list = path.field("except");
        let mut except = Vec::new();
        for (i, text) in raw.except.iter().flatten().enumerate() {
            let at = list.index(i);
            let hole = cidr(text, &at, faults);
            if let (Some(net), Some(hole)) = (net, hole)
                && !net.contains(&hole)
            {
                let message = format!("{hole} is not within {net}");
                faults.push(FieldFault::new(&at, Reason::ExceptOutsideCidr, message));
            }
            except.extend(hole);
        }
        except.sort_unstable();
        except.dedup();
        Some(Self { net: net?, except })
    }
}

fn cidr(text: &str, path: &Path<'_>, faults: &mut Vec<FieldFault>) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) => Some(net.trunc()),
        Err(_) => {
            let message = format!("{text:?} is not a CIDR");
            faults.push(FieldFault::new(path, Reason::InvalidCidr, message));
            None
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net)?;
        self.except.iter().try_for_each(|hole| write!(f, " except {hole}"))
    }
}
