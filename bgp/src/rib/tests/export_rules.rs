//! Who is sent what, and with which attributes.

use super::*;
use crate::config::PrefixMatch;
use crate::wire::attribute::{Extra, RawAttribute};

const NETS: [&str; 2] = ["10.1.0.0/24", "2001:db8:1::/64"];

fn both() -> [IpNet; 2] {
    NETS.map(net)
}

/// What `to` is sent of a path that `from` announced.
fn sent(from: Role, to: Role, change: impl Fn(&mut Attributes)) -> BTreeMap<IpNet, Attributes> {
    let mut rib = Rib::new(identity(1));
    let source = Link::up(&mut rib, 1, from);
    let mut receiver = Link::up(&mut rib, 2, to);
    let mut theirs = attributes(address(1));
    if from == Role::External {
        theirs.as_path = as_path(&[65001]);
        theirs.local_pref = None;
    }
    change(&mut theirs);
    source.announce(&mut rib, &theirs, &both());
    receiver.view(&mut rib).clone()
}

#[test]
fn reflection_follows_the_table_of_rfc_4456() {
    use Role::{Client, External, NonClient};
    let table = [
        (External, External, true),
        (External, Client, true),
        (External, NonClient, true),
        (Client, External, true),
        (Client, Client, true),
        (Client, NonClient, true),
        (NonClient, External, true),
        (NonClient, Client, true),
        (NonClient, NonClient, false),
    ];
    for (from, to, passes) in table {
        let view = sent(from, to, |_| {});
        assert_eq!(view.len(), if passes { 2 } else { 0 }, "{from:?} to {to:?}");
        for got in view.values() {
            let reflected = from != External && to != External;
            assert_eq!(got.originator_id, reflected.then_some(router_id(1)));
            assert_eq!(got.cluster_list.len(), usize::from(reflected));
        }
    }
}

#[test]
fn towards_an_external_peer_only_what_may_leave_the_as_leaves_it() {
    let change = |attributes: &mut Attributes| {
        attributes.med = Some(7);
        attributes.local_pref = Some(300);
        attributes.as_path = as_path(&[65010]);
        attributes.originator_id = Some(router_id(9));
        attributes.cluster_list.push(router_id(8));
        attributes.extra = Some(Box::new(Extra {
            communities: vec![1],
            extended_communities: vec![[0x40, 1, 0, 0, 0, 0, 0, 1], [0, 2, 0, 0, 0, 0, 0, 1]],
            unknown: vec![RawAttribute { flags: 0xc0, code: 200, value: Box::new([1, 2, 3]) }],
            ..Extra::default()
        }));
    };
    let view = sent(Role::Client, Role::External, change);
    assert_eq!(view.len(), 2);
    for (prefix, got) in view {
        let mut expected = attributes(match prefix {
            IpNet::V4(_) => key(Role::External).next_hop_v4.unwrap().into(),
            IpNet::V6(_) => key(Role::External).next_hop_v6.unwrap().into(),
        });
        change(&mut expected);
        expected.as_path = as_path(&[ASN.0, 65010]);
        expected.med = None;
        expected.local_pref = None;
        expected.originator_id = None;
        expected.cluster_list.clear();
        let extra = expected.extra.as_mut().unwrap();
        extra.extended_communities.remove(0);
        // RFC 4271 §5: passed on without being understood.
        extra.unknown[0].flags = 0xe0;
        assert_eq!(got, expected);
    }
}

#[test]
fn a_reflected_path_keeps_next_hop_med_and_local_pref() {
    let view = sent(Role::Client, Role::Client, |attributes| {
        attributes.med = Some(7);
        attributes.local_pref = Some(300);
    });
    let got = &view[&net(NETS[0])];
    assert_eq!((got.next_hop, got.med, got.local_pref), (address(1), Some(7), Some(300)));
}

#[test]
fn well_known_communities_are_obeyed() {
    let table = [
        (0xffff_ff01, Role::External, false),
        (0xffff_ff01, Role::Client, true),
        (0xffff_ff02, Role::External, false),
        (0xffff_ff02, Role::Client, false),
        (0xffff_ff03, Role::External, false),
        (0xffff_ff03, Role::Client, true),
        (1, Role::External, true),
    ];
    for (community, to, passes) in table {
        let view = sent(Role::Client, to, |attributes| {
            let communities = vec![5, community];
            attributes.extra = Some(Box::new(Extra { communities, ..Extra::default() }));
        });
        assert_eq!(view.len(), if passes { 2 } else { 0 }, "{community:x} to {to:?}");
    }
}

#[test]
fn own_prefixes_go_to_everybody_whatever_the_policy() {
    for role in [Role::External, Role::Client, Role::NonClient] {
        let mut rib = Rib::new(identity(1));
        rib.originate(&both());
        let key = GroupKey { policy: Policy::OwnOnly, ..key(role) };
        let mut link = Link::with(&mut rib, session(1, role), key.clone(), role);
        let source = Link::up(&mut rib, 2, Role::Client);
        source.announce(&mut rib, &attributes(address(2)), &[net("10.9.0.0/16")]);
        let view = link.view(&mut rib);
        assert_eq!(view.keys().copied().collect::<Vec<_>>(), both());
        let got = &view[&net(NETS[1])];
        assert_eq!(got.next_hop, IpAddr::V6(key.next_hop_v6.unwrap()));
        let internal = role != Role::External;
        assert_eq!(got.as_path, as_path(if internal { &[] } else { &[ASN.0] }));
        assert_eq!(got.local_pref, internal.then_some(100));
    }
}

#[test]
fn without_a_next_hop_of_the_family_nothing_is_sent_and_it_shows() {
    let mut rib = Rib::new(identity(1));
    rib.originate(&both());
    let key = GroupKey { next_hop_v6: None, ..key(Role::Client) };
    let mut link = Link::with(&mut rib, session(1, Role::Client), key, Role::Client);
    assert_eq!(link.view(&mut rib).keys().copied().collect::<Vec<_>>(), [net(NETS[0])]);
    let counts = rib.counts(link.index);
    assert_eq!((counts.sent, counts.no_next_hop), (1, 1));
    rib.originate(&[]);
    assert!(link.view(&mut rib).is_empty());
    let counts = rib.counts(link.index);
    assert_eq!((counts.sent, counts.no_next_hop), (0, 0));
}

#[test]
fn an_accept_list_filters_learnt_prefixes_by_length() {
    let entries = vec![
        PrefixMatch { prefix: net("10.0.0.0/8"), min_length: 16, max_length: 24 },
        PrefixMatch { prefix: net("::/0"), min_length: 48, max_length: 48 },
    ];
    let mut rib = Rib::new(identity(1));
    let key = GroupKey { policy: Policy::Accept(entries), ..key(Role::External) };
    let mut link = Link::with(&mut rib, session(1, Role::External), key, Role::External);
    let source = Link::up(&mut rib, 2, Role::Client);
    let passes = ["10.1.0.0/16", "10.1.1.0/24", "2001:db8::/48"].map(net);
    let stays = ["10.0.0.0/8", "10.1.1.1/32", "11.0.0.0/16", "2001:db8::/64", "::/0"].map(net);
    source.announce(&mut rib, &attributes(address(2)), &passes);
    source.announce(&mut rib, &attributes(address(2)), &stays);
    assert_eq!(link.view(&mut rib).keys().copied().collect::<Vec<_>>(), passes);
}

#[test]
fn default_originate_gives_both_defaults_and_hides_a_learnt_one() {
    let mut rib = Rib::new(identity(1));
    let source = Link::up(&mut rib, 2, Role::Client);
    let key = GroupKey { default_originate: true, ..key(Role::External) };
    let mut link = Link::with(&mut rib, session(1, Role::External), key, Role::External);
    let defaults = ["0.0.0.0/0", "::/0"].map(net);
    assert_eq!(link.view(&mut rib).keys().copied().collect::<Vec<_>>(), defaults);
    assert_eq!(rib.reachable(), 0, "the default is not ours to forward");

    let theirs = Attributes { as_path: as_path(&[65020]), ..attributes(address(2)) };
    source.announce(&mut rib, &theirs, &defaults);
    let view = link.view(&mut rib);
    assert_eq!(view[&defaults[0]].as_path, as_path(&[ASN.0]));
    source.withdraw(&mut rib, &defaults);
    assert_eq!(link.view(&mut rib).len(), 2);
}

#[test]
fn a_route_that_grows_too_big_for_a_peer_is_withdrawn_not_truncated() {
    let mut rib = Rib::new(identity(1));
    let mut source = Link::up(&mut rib, 1, Role::Client);
    source.receiver.context.extended_message = true;
    let mut small = Link::up(&mut rib, 2, Role::Client);
    let wide = GroupKey {
        context: Context { extended_message: true, ..context(false) },
        ..key(Role::Client)
    };
    let mut big = Link::with(&mut rib, session(3, Role::Client), wide, Role::Client);
    source.announce(&mut rib, &attributes(address(1)), &both());
    assert_eq!((small.view(&mut rib).len(), big.view(&mut rib).len()), (2, 2));

    let communities = (0..1100).collect();
    let extra = Some(Box::new(Extra { communities, ..Extra::default() }));
    let huge = Attributes { extra, ..attributes(address(1)) };
    let wide = Context { extended_message: true, ..context(false) };
    feed(&mut rib, source.index, &wide, &encode(&wide, &huge, &both()));
    assert_eq!((small.view(&mut rib).len(), big.view(&mut rib).len()), (0, 2));
    let counts = rib.counts(small.index);
    assert_eq!((counts.sent, counts.too_big), (0, 2));

    // A peer that comes later reads the Adj-RIB-Out, not the log.
    let mut late = Link::up(&mut rib, 4, Role::Client);
    assert!(late.view(&mut rib).is_empty());

    source.announce(&mut rib, &attributes(address(1)), &both());
    assert_eq!((small.view(&mut rib).len(), late.view(&mut rib).len()), (2, 2));
    assert_eq!(rib.counts(small.index).too_big, 0);
}

#[test]
fn a_peer_with_one_family_is_sent_one_family() {
    let mut rib = Rib::new(identity(1));
    rib.originate(&both());
    let families = Families { ipv4: false, ipv6: true };
    let context = Context { families, ..context(false) };
    let session = Session { families, ..session(1, Role::Client) };
    let mut link =
        Link::with(&mut rib, session, GroupKey { context, ..key(Role::Client) }, Role::Client);
    assert_eq!(link.view(&mut rib).keys().copied().collect::<Vec<_>>(), [net(NETS[1])]);
    assert_eq!(link.receiver.end_of_rib, families);
}

#[test]
fn a_refresh_is_framed_where_that_was_negotiated() {
    use crate::wire::refresh::{RefreshKind, RouteRefresh};
    let mut rib = Rib::new(identity(1));
    rib.originate(&both());
    let session = Session { enhanced_refresh: true, ..session(1, Role::Client) };
    let mut link = Link::with(&mut rib, session, key(Role::Client), Role::Client);
    link.view(&mut rib);
    // Asked for three times before the socket takes anything: answered once.
    for _ in 0..3 {
        rib.refresh(link.index, Family::Ipv6);
    }
    let mut out = Vec::new();
    while rib.transmit(link.index, &mut out, 10).more {}
    let mut story = Vec::new();
    for chunk in &out {
        messages(&Context { enhanced_refresh: true, ..context(false) }, chunk, |message| {
            story.push(match message {
                Message::RouteRefresh(RouteRefresh { kind: RefreshKind::Begin, .. }) => "BoRR",
                Message::RouteRefresh(RouteRefresh { kind: RefreshKind::End, .. }) => "EoRR",
                Message::Update(update) if update.announced[1].is_some() => "v6",
                other => panic!("{other:?}"),
            });
        });
    }
    assert_eq!(story, ["BoRR", "v6", "EoRR"]);
}
