use proptest::prelude::*;

use super::*;

fn base() -> Candidate {
    Candidate {
        own: false,
        local_pref: 100,
        hops: 2,
        origin: Origin::Igp,
        neighbour: Some(Asn(65001)),
        med: 10,
        external: true,
        igp_cost: 5,
        router_id: Ipv4Addr::new(10, 0, 0, 5),
        cluster_list_len: 1,
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 5)),
    }
}

/// (why, the winner against `base()`, a loser against `base()`)
fn table() -> Vec<(LostBy, Candidate, Candidate)> {
    let b = base();
    vec![
        (LostBy::LocalOrigin, Candidate { own: true, local_pref: 1, hops: 9, ..b }, b),
        (LostBy::LocalPref, b, Candidate { local_pref: 99, hops: 0, ..b }),
        (LostBy::AsPathLength, b, Candidate { hops: 3, med: 0, ..b }),
        (LostBy::Origin, b, Candidate { origin: Origin::Egp, med: 0, ..b }),
        (LostBy::Origin, b, Candidate { origin: Origin::Incomplete, med: 0, ..b }),
        (LostBy::Med, b, Candidate { med: 11, igp_cost: 0, ..b }),
        (LostBy::External, b, Candidate { external: false, igp_cost: 0, ..b }),
        (LostBy::IgpCost, b, Candidate { igp_cost: 6, router_id: Ipv4Addr::new(1, 0, 0, 1), ..b }),
        (
            LostBy::RouterId,
            b,
            Candidate { router_id: Ipv4Addr::new(10, 0, 0, 6), cluster_list_len: 0, ..b },
        ),
        (
            LostBy::ClusterListLength,
            b,
            Candidate {
                cluster_list_len: 2,
                address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                ..b
            },
        ),
        (
            LostBy::PeerAddress,
            b,
            Candidate { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 6)), ..b },
        ),
    ]
}

#[test]
fn each_step_decides_when_all_before_it_are_equal() {
    for (by, winner, loser) in table() {
        for (candidates, best) in [([winner, loser], 0), ([loser, winner], 1)] {
            let decision = decide(&candidates).unwrap();
            assert_eq!(decision.best, best, "{by:?}");
            assert_eq!(decision.lost[1 - best], Some(by));
            assert_eq!(decision.lost[best], None);
            let expected =
                if by > LostBy::IgpCost { Verdict::Multipath(by) } else { Verdict::Lost(by) };
            assert_eq!(decision.verdict(1 - best), expected);
            assert_eq!(decision.verdict(best), Verdict::Best);
        }
    }
}

#[test]
fn the_table_has_every_reason() {
    let mut reasons: Vec<_> = table().into_iter().map(|row| row.0).collect();
    reasons.dedup();
    let all = [
        LostBy::LocalOrigin,
        LostBy::LocalPref,
        LostBy::AsPathLength,
        LostBy::Origin,
        LostBy::Med,
        LostBy::External,
        LostBy::IgpCost,
        LostBy::RouterId,
        LostBy::ClusterListLength,
        LostBy::PeerAddress,
    ];
    assert_eq!(reasons, all);
}

#[test]
fn no_candidate_no_decision() {
    assert_eq!(decide(&[]), None);
}

#[test]
fn med_is_not_compared_between_neighbouring_ases() {
    let other = Candidate {
        neighbour: Some(Asn(65002)),
        med: 1000,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        ..base()
    };
    let decision = decide(&[base(), other]).unwrap();
    assert_eq!((decision.best, decision.lost[0]), (1, Some(LostBy::RouterId)));
}

#[test]
fn a_path_eliminated_by_med_does_not_depend_on_arrival_order() {
    // The classic: pairwise comparison is not transitive here (RFC 3345).
    let a = Candidate { med: 10, router_id: Ipv4Addr::new(1, 1, 1, 3), ..base() };
    let b = Candidate { med: 20, router_id: Ipv4Addr::new(1, 1, 1, 1), ..base() };
    let c =
        Candidate { neighbour: Some(Asn(65002)), router_id: Ipv4Addr::new(1, 1, 1, 2), ..base() };
    for candidates in [[a, b, c], [c, b, a], [b, a, c], [b, c, a], [a, c, b], [c, a, b]] {
        let decision = decide(&candidates).unwrap();
        assert_eq!(candidates[decision.best], c);
    }
}

#[test]
fn two_switches_of_different_as_share_traffic() {
    let other = Candidate {
        neighbour: Some(Asn(65002)),
        router_id: Ipv4Addr::new(10, 0, 0, 9),
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
        ..base()
    };
    let decision = decide(&[base(), other]).unwrap();
    assert_eq!(decision.verdict(1), Verdict::Multipath(LostBy::RouterId));
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let neighbour = prop_oneof![Just(None), Just(Some(Asn(1))), Just(Some(Asn(2)))];
    (0u32..2, 0u32..2, neighbour, 0u32..3, any::<bool>(), 0u8..3, 0usize..2).prop_map(
        |(local_pref, hops, neighbour, med, external, id, cluster_list_len)| Candidate {
            local_pref,
            hops,
            neighbour,
            med,
            external,
            router_id: Ipv4Addr::new(10, 0, 0, id),
            cluster_list_len,
            ..base()
        },
    )
}

proptest! {
    /// The steps in the words of RFC 4271 §9.1.2.2, quadratic and without tricks.
    #[test]
    fn agrees_with_the_letter_of_the_rfc_in_any_order(
        mut candidates in prop::collection::vec(candidate(), 1..12),
        rotation in 0usize..12,
    ) {
        for (i, c) in candidates.iter_mut().enumerate() {
            c.address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(i).unwrap()));
        }
        let rotation = rotation % candidates.len();
        candidates.rotate_left(rotation);
        let beats = |a: &Candidate, b: &Candidate, step: usize| match step {
            0 => a.local_pref > b.local_pref,
            1 => a.hops < b.hops,
            2 => a.neighbour == b.neighbour && a.med < b.med,
            3 => a.external && !b.external,
            4 => a.router_id < b.router_id,
            5 => a.cluster_list_len < b.cluster_list_len,
            _ => a.address < b.address,
        };
        let mut left: Vec<Candidate> = candidates.clone();
        for step in 0..7 {
            let all = left.clone();
            left.retain(|c| !all.iter().any(|other| beats(other, c, step)));
        }
        let decision = decide(&candidates).unwrap();
        prop_assert_eq!(left.as_slice(), &[candidates[decision.best]]);
    }
}
