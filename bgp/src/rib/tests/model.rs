//! Random histories against a RIB that forgets nothing and shares nothing.

use proptest::prelude::*;

use super::*;
use crate::wire::attribute::Extra;

const PEERS: [Role; 6] =
    [Role::Client, Role::NonClient, Role::External, Role::Client, Role::External, Role::NonClient];

#[derive(Clone, Debug)]
enum Operation {
    Announce {
        peer: usize,
        variant: usize,
        prefixes: u16,
    },
    Withdraw {
        peer: usize,
        prefixes: u16,
    },
    Up(usize),
    Down(usize),
    Originate(u16),
    Flush,
    Read {
        peer: usize,
        max: usize,
    },
    Refresh {
        peer: usize,
        family: Family,
    },
    /// All generations run out.
    Renumber,
    /// The export policy of the peer changes to this one.
    Export {
        peer: usize,
        variant: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let peer = 0..PEERS.len();
    let family = prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    prop_oneof![
        8 => (peer.clone(), 0..VARIANTS, any::<u16>())
            .prop_map(|(peer, variant, prefixes)| Operation::Announce { peer, variant, prefixes }),
        4 => (peer.clone(), any::<u16>())
            .prop_map(|(peer, prefixes)| Operation::Withdraw { peer, prefixes }),
        3 => peer.clone().prop_map(Operation::Up),
        1 => peer.clone().prop_map(Operation::Down),
        1 => any::<u16>().prop_map(Operation::Originate),
        8 => Just(Operation::Flush),
        8 => (peer.clone(), 1usize..400).prop_map(|(peer, max)| Operation::Read { peer, max }),
        1 => (peer.clone(), family).prop_map(|(peer, family)| Operation::Refresh { peer, family }),
        1 => Just(Operation::Renumber),
        1 => (peer, 0usize..3).prop_map(|(peer, variant)| Operation::Export { peer, variant }),
    ]
}

/// Sixteen prefixes, twelve of them IPv4; the default routes are among them.
fn prefixes(mask: u16) -> Vec<IpNet> {
    let v4 = (1u8..12).map(|n| net(&format!("10.{n}.0.0/{}", 16 + n)));
    let v6 = (1u8..4).map(|n| net(&format!("2001:db8:{n}::/48")));
    let all: Vec<IpNet> = [net("0.0.0.0/0"), net("::/0")].into_iter().chain(v4).chain(v6).collect();
    assert_eq!(all.len(), 16);
    (0..16).filter(|bit| mask & (1 << bit) != 0).map(|bit| all[bit]).collect()
}

const VARIANTS: usize = 12;

/// Attributes that `peer` sends.
fn variant(peer: usize, variant: usize) -> Attributes {
    let n = u8::try_from(peer).unwrap() + 1;
    let external = PEERS[peer] == Role::External;
    let neighbour = 65000 + u32::from(n);
    let mut out = Attributes {
        as_path: as_path(if external { std::slice::from_ref(&neighbour) } else { &[] }),
        local_pref: (!external).then_some(100),
        ..attributes(address(n))
    };
    let community =
        |community| Some(Box::new(Extra { communities: vec![community], ..Extra::default() }));
    match variant {
        0 => out.med = Some(10),
        1 => out.med = Some(5),
        2 => out.origin = Origin::Incomplete,
        3 if external => out.as_path = as_path(&[neighbour, 65100]),
        3 => out.local_pref = Some(200),
        4 => out.as_path = as_path(&[neighbour, 65100, 65101]),
        5 => out.as_path = as_path(&[neighbour, ASN.0]),
        6 if !external => out.cluster_list.push(identity(1).cluster_id),
        7 if !external => out.originator_id = Some(identity(1).router_id),
        8 => out.extra = community(0xffff_ff01),
        9 => out.extra = community(0xffff_ff02),
        10 => out.next_hop = IpAddr::V4(Ipv4Addr::LOCALHOST),
        11 if !external => {
            out.originator_id = Some(Ipv4Addr::new(10, 8, 8, 8));
            out.cluster_list.push(Ipv4Addr::new(10, 7, 7, 7));
        }
        _ => {}
    }
    out
}

fn export_policy(variant: usize) -> Policy {
    match variant {
        0 => Policy::All,
        1 => Policy::OwnOnly,
        _ => Policy::Accept(vec![crate::config::PrefixMatch {
            prefix: net("10.0.0.0/8"),
            min_length: 17,
            max_length: 20,
        }]),
    }
}

/// The reference: everything from scratch, every time.
#[derive(Default)]
struct Model {
    own: Vec<IpNet>,
    paths: BTreeMap<(IpNet, usize), Attributes>,
    up: [bool; PEERS.len()],
    policy: [usize; PEERS.len()],
}

impl Model {
    /// Best path: the peer (`None`: ourselves) and its attributes.
    fn best(&self, prefix: &IpNet) -> Option<(Option<usize>, Attributes)> {
        if self.own.contains(prefix) {
            let local_pref = None;
            let own = attributes(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            return Some((None, Attributes { local_pref, ..own }));
        }
        let eligible: Vec<(usize, &Attributes)> = self
            .paths
            .iter()
            .filter(|((net, _), attributes)| {
                net == prefix
                    && attributes.as_path.asns().all(|asn| asn != ASN)
                    && attributes.originator_id != Some(identity(1).router_id)
                    && !attributes.cluster_list.contains(&identity(1).cluster_id)
                    && !is_loopback(attributes.next_hop)
            })
            .map(|((_, peer), attributes)| (*peer, attributes))
            .collect();
        let candidates: Vec<Candidate> = eligible
            .iter()
            .map(|(peer, a)| {
                let n = u8::try_from(*peer).unwrap() + 1;
                Candidate {
                    own: false,
                    local_pref: a.local_pref.unwrap_or(100),
                    hops: u32::try_from(a.as_path.hops()).unwrap(),
                    origin: a.origin,
                    neighbour: a.as_path.first(),
                    med: a.med.unwrap_or(0),
                    external: PEERS[*peer] == Role::External,
                    igp_cost: 0,
                    router_id: a.originator_id.unwrap_or(router_id(n)),
                    cluster_list_len: a.cluster_list.len(),
                    address: address(n),
                }
            })
            .collect();
        let best = decide(&candidates)?.best;
        Some((Some(eligible[best].0), eligible[best].1.clone()))
    }

    /// What `receiver` should hold of a prefix.
    fn expected(&self, receiver: usize, prefix: &IpNet) -> Option<Attributes> {
        let (source, mut out) = self.best(prefix)?;
        let role = PEERS[receiver];
        let group = key(role);
        let own_next_hop = match prefix {
            IpNet::V4(_) => IpAddr::V4(group.next_hop_v4.unwrap()),
            IpNet::V6(_) => IpAddr::V6(group.next_hop_v6.unwrap()),
        };
        let communities = out.extra.as_ref().map(|e| e.communities.clone()).unwrap_or_default();
        if communities.contains(&0xffff_ff02) {
            return None;
        }
        let source_role = source.map(|peer| PEERS[peer]);
        if source_role == Some(Role::NonClient) && role == Role::NonClient {
            return None;
        }
        if source.is_some() && !export_policy(self.policy[receiver]).accepts(prefix) {
            return None;
        }
        if role == Role::External {
            if communities.contains(&0xffff_ff01) {
                return None;
            }
            let path: Vec<u32> =
                std::iter::once(ASN).chain(out.as_path.asns()).map(|asn| asn.0).collect();
            return Some(Attributes {
                as_path: as_path(&path),
                next_hop: own_next_hop,
                med: None,
                local_pref: None,
                originator_id: None,
                cluster_list: SmallVec::new(),
                ..out
            });
        }
        out.local_pref = Some(out.local_pref.unwrap_or(100));
        match source {
            None => out.next_hop = own_next_hop,
            Some(peer) if PEERS[peer] == Role::External => {}
            Some(peer) => {
                let n = u8::try_from(peer).unwrap() + 1;
                out.originator_id = Some(out.originator_id.unwrap_or(router_id(n)));
                out.cluster_list.insert(0, identity(1).cluster_id);
            }
        }
        Some(out)
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(v6.is_loopback(), |v4| v4.is_loopback()),
        IpAddr::V4(v4) => v4.is_loopback(),
    }
}

/// Attributes of `variant`, with the next hop as it comes out of the wire for `prefix`.
fn on_the_wire(attributes: &Attributes, prefix: &IpNet) -> Attributes {
    let next_hop = match (prefix, attributes.next_hop) {
        // The loopback test needs a next hop that is loopback in both families.
        (IpNet::V6(_), IpAddr::V4(Ipv4Addr::LOCALHOST)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (IpNet::V6(_), IpAddr::V4(address)) => IpAddr::V6(address.to_ipv6_mapped()),
        (_, address) => address,
    };
    Attributes { next_hop, ..attributes.clone() }
}

struct World {
    rib: Rib,
    links: [Option<Link>; PEERS.len()],
    model: Model,
}

impl World {
    fn new() -> Self {
        let mut rib = Rib::new(identity(1));
        rib.limit_log(150);
        Self { rib, links: Default::default(), model: Model::default() }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Announce { peer, variant: v, prefixes: mask } => {
                let Some(link) = &self.links[*peer] else { return };
                let attributes = variant(*peer, *v);
                for prefix in prefixes(*mask) {
                    let attributes = on_the_wire(&attributes, &prefix);
                    link.announce(&mut self.rib, &attributes, &[prefix]);
                    self.model.paths.insert((prefix, *peer), attributes);
                }
            }
            Operation::Withdraw { peer, prefixes: mask } => {
                let Some(link) = &self.links[*peer] else { return };
                link.withdraw(&mut self.rib, &prefixes(*mask));
                for prefix in prefixes(*mask) {
                    self.model.paths.remove(&(prefix, *peer));
                }
            }
            Operation::Up(peer) => {
                if self.links[*peer].is_none() {
                    let n = u8::try_from(*peer).unwrap() + 1;
                    self.links[*peer] = Some(Link::up(&mut self.rib, n, PEERS[*peer]));
                    self.model.up[*peer] = true;
                    self.model.policy[*peer] = 0;
                }
            }
            Operation::Down(peer) => {
                if let Some(link) = self.links[*peer].take() {
                    self.rib.peer_down(link.index);
                    self.model.up[*peer] = false;
                    self.model.paths.retain(|(_, owner), _| owner != peer);
                }
            }
            Operation::Originate(mask) => {
                self.model.own = prefixes(*mask);
                self.rib.originate(&self.model.own);
            }
            Operation::Flush => self.rib.flush(),
            Operation::Read { peer, max } => {
                if let Some(link) = &mut self.links[*peer] {
                    link.receiver.read(&mut self.rib, link.index, *max);
                }
            }
            Operation::Refresh { peer, family } => {
                if let Some(link) = &self.links[*peer] {
                    self.rib.refresh(link.index, *family);
                }
            }
            Operation::Renumber => {
                for index in 0..self.rib.groups.len() {
                    self.rib.renumber(index);
                }
            }
            Operation::Export { peer, variant } => {
                if let Some(link) = &self.links[*peer] {
                    let key = GroupKey { policy: export_policy(*variant), ..key(PEERS[*peer]) };
                    self.rib.regroup(link.index, key);
                    self.model.policy[*peer] = *variant;
                }
            }
        }
    }

    /// Everything is read; then every receiver holds what the model says, the FIB too.
    fn check(&mut self) -> Result<(), TestCaseError> {
        self.rib.flush();
        for (peer, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link else { continue };
            link.receiver.drain(&mut self.rib, link.index);
            prop_assert_eq!(link.receiver.end_of_rib, Families::ALL);
            for prefix in prefixes(u16::MAX) {
                let got = link.receiver.view.get(&prefix);
                let expected = self.model.expected(peer, &prefix);
                let own = self.model.best(&prefix).is_some_and(|best| best.0 == Some(peer));
                // Its own path may come back to a peer, but need not.
                if own && got.is_none() {
                    continue;
                }
                prop_assert_eq!(got, expected.as_ref(), "{} at peer {}", prefix, peer);
            }
        }
        let reachable = prefixes(u16::MAX).iter().filter(|p| self.model.best(p).is_some()).count();
        prop_assert_eq!(self.rib.reachable(), reachable);
        prop_assert_eq!(self.rib.paths(), self.model.paths.len() + self.model.own.len());
        prop_assert_eq!(self.rib.log_bytes(), 0);
        // Nobody lags: what is withdrawn is gone.
        self.rib.flush();
        prop_assert_eq!(self.rib.slots(), self.rib.prefixes().len());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn receivers_hold_what_a_naive_rib_would_tell_them(
        operations in prop::collection::vec(operation(), 1..120),
    ) {
        let mut world = World::new();
        for operation in &operations {
            world.apply(operation);
        }
        world.check()?;
        for peer in 0..PEERS.len() {
            world.apply(&Operation::Down(peer));
        }
        world.apply(&Operation::Originate(0));
        world.rib.flush();
        prop_assert_eq!((world.rib.slots(), world.rib.paths()), (0, 0));
        prop_assert_eq!((world.rib.attribute_sets(), world.rib.update_groups()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_is_told_the_next_hops_of_best_and_equal_paths(
        operations in prop::collection::vec(operation(), 1..80),
    ) {
        let mut world = World::new();
        let mut fib: BTreeMap<IpNet, FibChange> = BTreeMap::new();
        for operation in operations.iter().chain([&Operation::Flush]) {
            world.apply(operation);
            while let Some(change) = world.rib.poll_fib() {
                let last = fib.insert(change.prefix, change.clone());
                prop_assert_ne!(last.as_ref(), Some(&change), "no change");
            }
        }
        for prefix in prefixes(u16::MAX) {
            let told = fib.get(&prefix);
            match world.model.best(&prefix) {
                None => prop_assert!(told.is_none_or(|c| c.next_hops.is_empty() && !c.own)),
                Some((None, _)) => prop_assert!(told.is_some_and(|c| c.own)),
                Some((Some(_), best)) => {
                    let told = told.unwrap();
                    prop_assert!(!told.own && told.next_hops.contains(&best.next_hop));
                    let entry = world.rib.prefix(&prefix).unwrap();
                    prop_assert_eq!(&entry.next_hops, &told.next_hops);
                }
            }
        }
    }
}
