//! What becomes of a path on its way in.

use super::*;
use crate::config::PrefixMatch;

fn verdicts(rib: &Rib, prefix: &str) -> Vec<Verdict> {
    rib.prefix(&net(prefix)).map_or(Vec::new(), |e| e.paths.iter().map(|p| p.verdict).collect())
}

#[test]
fn each_reason_for_not_being_eligible_is_told() {
    let own: IpAddr = "198.51.100.1".parse().unwrap();
    type Change = fn(&mut Attributes);
    let table: [(Ineligible, Change); 8] = [
        (Ineligible::AsLoop, |a| a.as_path = as_path(&[65001, ASN.0])),
        (Ineligible::OriginatorIsUs, |a| a.originator_id = Some(identity(1).router_id)),
        (Ineligible::ClusterLoop, |a| a.cluster_list.push(identity(1).cluster_id)),
        (Ineligible::NextHopIsUs, |a| a.next_hop = "198.51.100.1".parse().unwrap()),
        (Ineligible::NextHopInvalid, |a| a.next_hop = "0.0.0.0".parse().unwrap()),
        (Ineligible::NextHopInvalid, |a| a.next_hop = "127.0.0.1".parse().unwrap()),
        (Ineligible::NextHopInvalid, |a| a.next_hop = "224.0.0.5".parse().unwrap()),
        (Ineligible::NextHopInvalid, |a| a.next_hop = "255.255.255.255".parse().unwrap()),
    ];
    let mut rib = Rib::new(identity(1));
    rib.set_own_addresses(vec![own]);
    let link = Link::up(&mut rib, 1, Role::Client);
    for (reason, change) in table {
        let mut theirs = attributes(address(1));
        change(&mut theirs);
        link.announce(&mut rib, &theirs, &[net("10.1.0.0/24")]);
        rib.flush();
        assert_eq!(verdicts(&rib, "10.1.0.0/24"), [Verdict::Ineligible(reason)]);
        assert_eq!((rib.reachable(), rib.poll_fib()), (0, None));
        let counts = rib.counts(link.index);
        assert_eq!((counts.received, counts.accepted), (1, 0));
    }
    for address in ["::", "::1", "ff02::1"] {
        let theirs = attributes(address.parse().unwrap());
        link.announce(&mut rib, &theirs, &[net("2001:db8::/48")]);
        let invalid = Verdict::Ineligible(Ineligible::NextHopInvalid);
        assert_eq!(verdicts(&rib, "2001:db8::/48"), [invalid]);
    }
    link.announce(&mut rib, &attributes(address(1)), &[net("10.1.0.0/24")]);
    rib.flush();
    assert_eq!(verdicts(&rib, "10.1.0.0/24"), [Verdict::Best]);
    assert_eq!(rib.counts(link.index).accepted, 1);
}

#[test]
fn own_prefixes_win_and_are_told_as_own() {
    let mut rib = Rib::new(identity(1));
    let link = Link::up(&mut rib, 1, Role::Client);
    let theirs = Attributes { local_pref: Some(u32::MAX), ..attributes(address(1)) };
    link.announce(&mut rib, &theirs, &[net("10.1.0.0/24")]);
    rib.flush();
    let learnt = rib.poll_fib().unwrap();
    assert_eq!((learnt.next_hops.as_slice(), learnt.own), ([address(1)].as_slice(), false));
    rib.originate(&[net("10.1.0.77/24")]);
    rib.flush();
    let own = rib.poll_fib().unwrap();
    assert_eq!((own.prefix, own.next_hops.len(), own.own), (net("10.1.0.0/24"), 0, true));
    let lost = Verdict::Lost(LostBy::LocalOrigin);
    assert_eq!(verdicts(&rib, "10.1.0.0/24"), [Verdict::Best, lost]);
    rib.originate(&[]);
    rib.flush();
    assert_eq!(rib.poll_fib(), Some(learnt));
    link.withdraw(&mut rib, &[net("10.1.0.0/24")]);
    rib.flush();
    let gone = rib.poll_fib().unwrap();
    assert!(gone.next_hops.is_empty() && !gone.own);
    assert_eq!(rib.poll_fib(), None);
}

#[test]
fn two_switches_of_different_as_give_two_next_hops_and_one_death_leaves_one() {
    for prefix in ["0.0.0.0/0", "::/0"].map(net) {
        let mut rib = Rib::new(identity(1));
        let links = [1, 2].map(|n| Link::up(&mut rib, n, Role::External));
        for (link, n) in links.iter().zip(1u8..) {
            let theirs = Attributes {
                as_path: as_path(&[65000 + u32::from(n), 65100]),
                local_pref: None,
                ..attributes(address(n))
            };
            link.announce(&mut rib, &theirs, &[prefix]);
        }
        rib.flush();
        let both = rib.poll_fib().unwrap();
        assert_eq!(both.next_hops.len(), 2);
        assert_eq!(rib.poll_fib(), None, "one change a flush");
        rib.peer_down(links[0].index);
        assert_eq!(rib.poll_fib(), None, "not before the flush");
        rib.flush();
        assert_eq!(rib.poll_fib().unwrap().next_hops, both.next_hops[1..]);
    }
}

#[test]
fn a_change_that_leaves_the_next_hops_alone_is_none_for_the_kernel() {
    let mut rib = Rib::new(identity(1));
    let link = Link::up(&mut rib, 1, Role::Client);
    link.announce(&mut rib, &attributes(address(1)), &[net("10.1.0.0/24")]);
    rib.flush();
    assert!(rib.poll_fib().is_some());
    let theirs = Attributes { med: Some(5), ..attributes(address(1)) };
    link.announce(&mut rib, &theirs, &[net("10.1.0.0/24")]);
    rib.flush();
    assert_eq!(rib.poll_fib(), None);
}

#[test]
fn without_forwarding_no_changes_are_made() {
    let mut rib = Rib::new(identity(1));
    rib.disable_fib();
    let link = Link::up(&mut rib, 1, Role::Client);
    link.announce(&mut rib, &attributes(address(1)), &[net("10.1.0.0/24")]);
    rib.flush();
    assert_eq!((rib.poll_fib(), rib.reachable()), (None, 1));
}

#[test]
fn denied_prefixes_are_counted_but_not_kept() {
    let mut rib = Rib::new(identity(1));
    let session = Session { import: Policy::OwnOnly, ..session(1, Role::External) };
    let link = Link::with(&mut rib, session, key(Role::External), Role::External);
    let theirs = Attributes { as_path: as_path(&[65001]), ..attributes(address(1)) };
    let nets = ["10.1.0.0/24", "10.2.0.0/24", "2001:db8::/48"].map(net);
    link.announce(&mut rib, &theirs, &nets);
    link.announce(&mut rib, &theirs, &nets);
    let counts = rib.counts(link.index);
    assert_eq!((counts.received, counts.accepted), (3, 0));
    assert_eq!((rib.paths(), rib.slots()), (0, 0));
    link.withdraw(&mut rib, &nets[1..]);
    assert_eq!(rib.counts(link.index).received, 1);
}

#[test]
fn a_new_import_policy_drops_at_once_what_it_denies() {
    let mut rib = Rib::new(identity(1));
    let link = Link::up(&mut rib, 1, Role::Client);
    let nets = ["10.1.0.0/24", "11.2.0.0/24", "2001:db8::/48"].map(net);
    link.announce(&mut rib, &attributes(address(1)), &nets);
    let ten = PrefixMatch { prefix: net("10.0.0.0/8"), min_length: 8, max_length: 32 };
    rib.set_import(link.index, Policy::Accept(vec![ten]));
    rib.flush();
    assert_eq!(rib.reachable(), 1);
    let counts = rib.counts(link.index);
    assert_eq!((counts.received, counts.accepted), (3, 1));
    rib.set_import(link.index, Policy::All);
    link.announce(&mut rib, &attributes(address(1)), &nets);
    rib.flush();
    assert_eq!((rib.reachable(), rib.counts(link.index).received), (3, 3));
}

#[test]
fn announced_wins_over_withdrawn_in_one_update() {
    let mut rib = Rib::new(identity(1));
    let link = Link::up(&mut rib, 1, Role::Client);
    let prefix = [net("10.1.0.0/24")];
    let announce = encode(&context(false), &attributes(address(1)), &prefix);
    // The same message with the prefix in the withdrawn field as well.
    let withdrawn = [24, 10, 1, 0];
    let mut bytes = announce[..19].to_vec();
    bytes.extend_from_slice(&[0, 4]);
    bytes.extend_from_slice(&withdrawn);
    bytes.extend_from_slice(&announce[21..]);
    let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    bytes[16..18].copy_from_slice(&len);
    feed(&mut rib, link.index, &context(false), &bytes);
    rib.flush();
    assert_eq!(rib.reachable(), 1);
}

#[test]
fn treat_as_withdraw_withdraws() {
    let mut rib = Rib::new(identity(1));
    let link = Link::up(&mut rib, 1, Role::Client);
    let prefix = [net("10.1.0.0/24"), net("10.2.0.0/24")];
    link.announce(&mut rib, &attributes(address(1)), &prefix);
    rib.flush();
    let mut bytes = encode(&context(false), &attributes(address(1)), &prefix[..1]);
    // ORIGIN is the first attribute: 40 01 01 00; 3 is no origin.
    assert_eq!(bytes[23..27], [0x40, 1, 1, 0]);
    bytes[26] = 3;
    feed(&mut rib, link.index, &context(false), &bytes);
    rib.flush();
    assert_eq!(rib.prefixes().iter().map(|e| e.prefix).collect::<Vec<_>>(), prefix[1..]);
}

#[test]
fn more_prefixes_than_allowed_are_an_error_denied_ones_included() {
    for import in [Policy::All, Policy::OwnOnly] {
        let mut rib = Rib::new(identity(1));
        let session = Session { max_prefixes: Some(2), import, ..session(1, Role::Client) };
        let peer = rib.peer_up(session, key(Role::Client)).unwrap();
        let nets = ["10.1.0.0/24", "10.2.0.0/24", "2001:db8::/48"].map(net);
        let mut results = Vec::new();
        for prefix in nets {
            let bytes = encode(&context(false), &attributes(address(1)), &[prefix]);
            messages(&context(false), &bytes, |message| {
                let Message::Update(update) = message else { panic!() };
                results.push(rib.update(peer, update));
            });
        }
        assert_eq!(results, [Ok(()), Ok(()), Err(PrefixLimitExceeded { limit: 2 })]);
    }
}

#[test]
fn what_a_peer_does_not_send_again_in_a_framed_refresh_is_gone() {
    for nets in [
        ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"],
        ["fd00:1::/48", "fd00:2::/48", "fd00:3::/48"],
    ] {
        let nets = nets.map(net);
        let family = Family::of(&nets[0]);
        let mut rib = Rib::new(identity(1));
        let link = Link::up(&mut rib, 1, Role::Client);
        let other = net(if family == Family::Ipv4 { "fd00:9::/48" } else { "10.9.0.0/24" });
        link.announce(&mut rib, &attributes(address(1)), &nets);
        link.announce(&mut rib, &attributes(address(1)), &[other]);
        rib.begin_refresh(link.index, family);
        link.announce(&mut rib, &attributes(address(1)), &nets[..1]);
        let changed = Attributes { med: Some(1), ..attributes(address(1)) };
        link.announce(&mut rib, &changed, &nets[1..2]);
        assert_eq!(rib.paths(), 4, "nothing is gone before the end");
        rib.end_refresh(link.index, family);
        assert_eq!(rib.paths(), 3);
        assert_eq!(rib.prefix(&nets[2]), None);
        rib.end_refresh(link.index, family);
        assert_eq!((rib.paths(), rib.counts(link.index).received), (3, 3));
    }
}
