use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

const NODE: &str = "n1";

fn pod(name: &str, version: u64, labels: &Value) -> String {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": "u", "labels": labels,
            "resourceVersion": version.to_string(),
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    })
    .to_string()
}

fn policy(version: u64, spec: &Value) -> String {
    let version = version.to_string();
    let metadata = json!({"name": "p", "namespace": "shop", "resourceVersion": version});
    json!({"metadata": metadata, "spec": spec}).to_string()
}

/// What somebody downstream knows after these events.
#[derive(Debug, Default)]
struct Downstream {
    objects: BTreeMap<Key, Object>,
    listing: Option<Vec<Key>>,
    in_sync: bool,
    complaints: BTreeMap<RejectionId, Rejection>,
}

impl Downstream {
    fn take(&mut self, events: Vec<Event>) -> usize {
        let count = events.len();
        for event in events {
            match event {
                Event::Apply(object, _) => {
                    let key = object.key();
                    if let Some(listing) = &mut self.listing {
                        listing.push(key.clone());
                    }
                    self.objects.insert(key, object);
                }
                Event::Delete(key) => {
                    assert!(self.objects.remove(&key).is_some(), "{key} was never told");
                }
                Event::RelistBegin(_) => {
                    assert!(self.listing.replace(Vec::new()).is_none() && !self.in_sync);
                }
                Event::RelistEnd(_) => {
                    let listed = self.listing.take().expect("an end without a beginning");
                    self.objects.retain(|key, _| listed.contains(key));
                    self.in_sync = true;
                }
                Event::Rejected(rejection) => {
                    self.complaints.insert(rejection.id.clone(), rejection);
                }
                Event::Resolved(id) => {
                    assert!(self.complaints.remove(&id).is_some(), "{id:?} did not stand");
                }
            }
        }
        count
    }

    fn names(&self) -> Vec<&str> {
        self.objects.keys().map(|key| key.name.as_str()).collect()
    }

    fn label(&self, name: &str) -> String {
        let found = self.objects.iter().find(|(key, _)| key.name == name);
        let Some((_, Object::Pod(pod))) = found else { panic!("no pod {name}") };
        pod.metadata.labels.as_ref().unwrap().get("v").unwrap().clone()
    }
}

fn list(known: &mut Known, version: u64, items: &[String]) -> Vec<Event> {
    let mut events = known.begin_list(version).unwrap();
    for item in items {
        known.listed(item, &mut events);
    }
    events.extend(known.end_list(version));
    events
}

fn changed(known: &mut Known, raw: &str) -> Vec<Event> {
    let mut events = Vec::new();
    known.changed(raw, &mut events);
    events
}

fn deleted(known: &mut Known, raw: &str) -> Vec<Event> {
    let mut events = Vec::new();
    known.deleted(raw, &mut events);
    events
}

#[test]
fn the_first_list_is_told_in_full_and_later_ones_as_differences() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    let (a, b) = (pod("a", 1, &json!({"v": "1"})), pod("b", 2, &json!({"v": "1"})));
    down.take(list(&mut known, 10, &[a.clone(), b]));
    assert!(down.in_sync && known.is_listed());
    assert_eq!(down.names(), ["a", "b"]);
    let c = pod("c", 11, &json!({"v": "1"}));
    let told = down.take(list(&mut known, 12, &[a, c]));
    assert_eq!(told, 2, "one was added, one is gone");
    assert_eq!(down.names(), ["a", "c"]);
}

#[test]
fn nothing_is_in_sync_or_gone_before_a_list_is_complete() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    let (a, b) = (pod("a", 1, &json!({})), pod("b", 2, &json!({})));
    let mut events = known.begin_list(10).unwrap();
    known.listed(&a, &mut events);
    down.take(events);
    assert!(!down.in_sync && !known.is_listed());
    // The continue token has expired: once more from the start.
    down.take(list(&mut known, 11, &[b]));
    assert!(down.in_sync);
    assert_eq!(down.names(), ["b"]);
}

#[test]
fn watch_events_are_applied_once_and_in_order_of_their_version() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    down.take(list(&mut known, 10, &[pod("a", 1, &json!({"v": "1"}))]));
    down.take(changed(&mut known, &pod("a", 12, &json!({"v": "12"}))));
    assert_eq!(known.version(), 12);
    for replay in [10, 11, 12] {
        assert_eq!(changed(&mut known, &pod("a", replay, &json!({"v": "old"}))), []);
        assert_eq!(deleted(&mut known, &pod("a", replay, &json!({}))), []);
    }
    assert_eq!((known.ignored(), down.label("a").as_str()), (6, "12"));
    assert_eq!(down.take(deleted(&mut known, &pod("a", 13, &json!({})))), 1);
    // A replica that is behind tells of an object that is gone.
    assert_eq!(changed(&mut known, &pod("a", 12, &json!({"v": "old"}))), []);
    assert_eq!(down.names(), Vec::<&str>::new());
}

#[test]
fn a_list_older_than_what_is_known_is_refused() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    down.take(list(&mut known, 10, &[pod("a", 1, &json!({"v": "1"}))]));
    known.bookmark(20);
    assert_eq!(known.begin_list(19), Err(Failure::Stale { listed: 19, known: 20 }));
    assert_eq!(down.names(), ["a"]);
    // The same version is not older.
    down.take(list(&mut known, 20, &[]));
    assert_eq!(down.names(), Vec::<&str>::new());
}

#[test]
fn an_object_older_in_a_list_than_what_is_known_is_skipped() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    down.take(list(&mut known, 10, &[pod("a", 9, &json!({"v": "9"}))]));
    down.take(list(&mut known, 11, &[pod("a", 8, &json!({"v": "8"}))]));
    assert_eq!((down.label("a").as_str(), known.ignored()), ("9", 1));
}

#[test]
fn after_a_rewind_an_older_list_is_taken_as_a_difference_and_told_forward_again() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    let now = [pod("a", 9, &json!({"v": "9"})), pod("b", 8, &json!({"v": "8"}))];
    down.take(list(&mut known, 20, &now));
    known.take_dirty();
    known.rewind();
    assert_eq!(down.names(), ["a", "b"], "until there is a list all stays");
    let restored = [pod("a", 5, &json!({"v": "5"})), pod("c", 4, &json!({"v": "4"}))];
    down.take(list(&mut known, 6, &restored));
    assert_eq!((down.names(), down.label("a").as_str()), (vec!["a", "c"], "5"));
    assert_eq!((known.version(), known.ignored()), (6, 0));
    assert_eq!(known.take_dirty(), Dirty { any: true, own: true }, "all parts of the snapshot");
    assert_eq!(known.begin_list(5), Err(Failure::Stale { listed: 5, known: 6 }), "as before");
    down.take(changed(&mut known, &pod("c", 7, &json!({"v": "7"}))));
    assert_eq!(down.label("c"), "7");
}

#[test]
fn changes_that_nobody_reads_are_not_told() {
    let (mut known, mut down) = (Known::new(Kind::Node, NODE), Downstream::default());
    let node = |version: u64, beat: &str| {
        let metadata = json!({"name": "n", "resourceVersion": version.to_string()});
        let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": beat});
        json!({"metadata": metadata, "status": {"conditions": [condition]}}).to_string()
    };
    down.take(list(&mut known, 1, &[node(1, "a")]));
    known.take_dirty();
    assert_eq!(changed(&mut known, &node(2, "b")), []);
    assert_eq!((known.version(), known.take_dirty()), (2, Dirty::default()));
}

#[test]
fn an_unreadable_object_keeps_its_last_good_version_and_costs_nobody_else() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    down.take(list(&mut known, 10, &[pod("a", 1, &json!({"v": "1"}))]));
    let bad = pod("a", 11, &json!({"v": 7}));
    down.take(list(&mut known, 11, &[bad.clone(), pod("b", 11, &json!({"v": "b"}))]));
    assert_eq!((down.names(), down.label("a").as_str()), (vec!["a", "b"], "1"));
    let complaint = down.complaints.values().next().unwrap();
    assert_eq!(complaint.subject, "Pod shop/a");
    assert!(complaint.message.starts_with("metadata.labels"), "{complaint:?}");
    assert!(complaint.next.ends_with("The last good version stays in force."), "{complaint:?}");
    // The same again is no second complaint, and the good version ends it.
    down.take(list(&mut known, 12, &[bad, pod("b", 11, &json!({"v": "b"}))]));
    assert_eq!(down.complaints.len(), 1);
    down.take(changed(&mut known, &pod("a", 13, &json!({"v": "13"}))));
    assert_eq!((down.label("a").as_str(), down.complaints.len()), ("13", 0));
}

#[test]
fn an_unreadable_object_that_goes_away_takes_its_complaint_along() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    let bad = pod("a", 9, &json!({"v": 7}));
    down.take(list(&mut known, 10, &[bad.clone(), pod("b", 9, &json!({"v": 7}))]));
    assert_eq!((down.names(), down.complaints.len()), (vec![], 2));
    down.take(list(&mut known, 11, &[bad]));
    assert_eq!(down.complaints.len(), 1);
    down.take(deleted(&mut known, &pod("a", 12, &json!({"v": 7}))));
    assert_eq!(down.complaints.len(), 0);
}

#[test]
fn an_object_without_a_name_deletes_nothing() {
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    down.take(list(&mut known, 10, &[pod("a", 1, &json!({}))]));
    for odd in ["null", "{}", r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":""}}"#] {
        down.take(list(&mut known, 11, &[odd.to_owned()]));
        assert_eq!((down.names(), down.complaints.len()), (vec!["a"], 1), "{odd}");
    }
    down.take(list(&mut known, 12, &[]));
    assert_eq!((down.names(), down.complaints.len()), (vec![], 0));
}

#[test]
fn a_policy_with_an_unknown_field_isolates_and_is_no_last_good_version() {
    let (mut known, mut down) = (Known::new(Kind::NetworkPolicy, NODE), Downstream::default());
    let newer = json!({"podSelector": {}, "ingress": [{"newer": 1}, {"ports": [{"port": 80}]}]});
    down.take(list(&mut known, 10, &[policy(9, &newer)]));
    let Some(Object::NetworkPolicy(salvaged)) = down.objects.values().next() else { panic!() };
    let rules = salvaged.spec.as_ref().unwrap().ingress.as_ref().unwrap();
    assert_eq!(rules.len(), 1, "the rule that cannot be read admits nothing");
    assert_eq!(down.complaints.len(), 1);
    assert_eq!(known.save(), []);
    let good = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    down.take(changed(&mut known, &policy(11, &good)));
    assert_eq!((down.complaints.len(), known.save().len()), (0, 1));
    // From now on there is one.
    down.take(changed(&mut known, &policy(12, &newer)));
    let Some(Object::NetworkPolicy(kept)) = down.objects.values().next() else { panic!() };
    assert_eq!(kept.spec.as_ref().unwrap().ingress, None);
    assert_eq!(known.save().len(), 1);
}

/// A source that read this, and its snapshot.
fn saved(version: u64, items: &[String]) -> Vec<Saved> {
    let mut known = Known::new(Kind::Pod, NODE);
    list(&mut known, version, items);
    known.save()
}

#[test]
fn a_snapshot_is_told_as_a_full_listing_and_the_api_server_as_the_difference_to_it() {
    let objects = saved(10, &[pod("a", 1, &json!({"v": "1"})), pod("b", 2, &json!({"v": "2"}))]);
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    known.restore(10, objects).unwrap();
    assert!(!known.is_listed(), "the API server comes first");
    down.take(known.release(usize::MAX));
    assert!(down.in_sync && known.is_restored());
    assert_eq!(down.names(), ["a", "b"]);
    assert_eq!(known.release(usize::MAX), []);
    assert!(known.begin_list(9).is_err(), "an API server that is behind the snapshot");
    let told = list(&mut known, 12, &[pod("b", 11, &json!({"v": "3"}))]);
    assert_eq!(down.take(told), 2);
    assert_eq!((down.names(), down.label("b").as_str()), (vec!["b"], "3"));
    assert!(!known.is_restored());
}

#[test]
fn a_large_snapshot_is_told_in_pieces() {
    let pods: Vec<String> = (0..10).map(|n| pod(&format!("p{n}"), n + 1, &json!({}))).collect();
    let objects = saved(20, &pods);
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    known.restore(20, objects).unwrap();
    let mut pieces = 0;
    loop {
        let events = known.release(4);
        if events.is_empty() {
            break;
        }
        assert!(events.len() <= 4 && !down.in_sync);
        down.take(events);
        pieces += 1;
    }
    assert!(down.in_sync && pieces >= 3);
    assert_eq!(down.names().len(), 10);
}

#[test]
fn a_snapshot_is_not_told_when_the_api_server_is_faster() {
    let objects = saved(10, &[pod("a", 1, &json!({"v": "1"})), pod("b", 2, &json!({"v": "2"}))]);
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    known.restore(10, objects).unwrap();
    down.take(list(&mut known, 12, &[pod("b", 2, &json!({"v": "2"}))]));
    assert_eq!((down.names(), down.in_sync), (vec!["b"], true));
    assert_eq!(known.release(usize::MAX), []);
}

#[test]
fn a_snapshot_completes_a_list_that_got_stuck() {
    let objects = saved(10, &[pod("a", 1, &json!({"v": "1"})), pod("b", 2, &json!({"v": "2"}))]);
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    known.restore(10, objects).unwrap();
    let mut events = known.begin_list(12).unwrap();
    known.listed(&pod("a", 11, &json!({"v": "11"})), &mut events);
    down.take(events);
    down.take(known.release(usize::MAX));
    assert!(down.in_sync);
    assert_eq!((down.names(), down.label("a").as_str()), (vec!["a", "b"], "11"));
    down.take(known.end_list(12));
    assert_eq!(down.names(), ["a"]);
}

#[test]
fn an_unreadable_object_is_in_force_as_the_snapshot_has_it() {
    let objects = saved(10, &[pod("a", 1, &json!({"v": "1"}))]);
    let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
    known.restore(10, objects).unwrap();
    down.take(list(&mut known, 12, &[pod("a", 11, &json!({"v": 7}))]));
    assert_eq!((down.label("a").as_str(), down.complaints.len()), ("1", 1));
}

#[test]
fn a_snapshot_with_a_record_that_is_none_is_not_used_at_all() {
    let mut objects = saved(10, &[pod("a", 1, &json!({"v": "1"}))]);
    objects.push(Saved { version: 1, record: Line::from(&b"{\"m\":7}"[..]) });
    let mut known = Known::new(Kind::Pod, NODE);
    assert!(known.restore(10, objects).is_err());
    assert_eq!((known.len(), known.release(usize::MAX), known.version()), (0, vec![], 0));
}

#[test]
fn a_kind_that_does_not_exist_is_listed_empty_but_deletes_nothing() {
    let (mut known, mut down) = (Known::new(Kind::BgpPeer, NODE), Downstream::default());
    down.take(known.absent());
    assert!(down.in_sync);
    assert_eq!(known.absent(), []);
    let peer = json!({
        "metadata": {"name": "tor", "resourceVersion": "5"},
        "spec": {"peerAddress": "192.0.2.9", "peerASN": 65001},
    });
    down.take(list(&mut known, 6, &[peer.to_string()]));
    assert_eq!(down.names(), ["tor"]);
    assert_eq!(known.absent(), []);
    assert_eq!(down.names(), ["tor"]);
}

#[test]
fn only_changes_of_own_pods_ask_for_the_small_part_of_the_snapshot() {
    let mut known = Known::new(Kind::Pod, "other");
    list(&mut known, 10, &[]);
    assert_eq!(known.take_dirty(), Dirty { any: true, own: true });
    changed(&mut known, &pod("a", 11, &json!({})));
    assert_eq!(known.take_dirty(), Dirty { any: true, own: false });
    let mut known = Known::new(Kind::Pod, NODE);
    list(&mut known, 10, &[]);
    known.take_dirty();
    changed(&mut known, &pod("a", 11, &json!({})));
    assert_eq!(known.take_dirty(), Dirty { any: true, own: true });
    deleted(&mut known, &pod("a", 12, &json!({})));
    assert_eq!(known.take_dirty(), Dirty { any: true, own: true });
}

/// An API server with its whole history: of each revision, what changed.
#[derive(Clone, Debug, Default)]
struct History(Vec<(u8, Option<u64>)>);

impl History {
    fn revision(&self) -> u64 {
        self.0.len() as u64
    }

    /// Objects at a revision, with the revision that wrote them.
    fn at(&self, revision: u64) -> BTreeMap<String, u64> {
        let mut objects = BTreeMap::new();
        for (name, written) in self.0.iter().take(index(revision)) {
            match written {
                Some(written) => objects.insert(name.to_string(), *written),
                None => objects.remove(&name.to_string()),
            };
        }
        objects
    }

    fn pods(&self, revision: u64) -> Vec<String> {
        let objects = self.at(revision).into_iter();
        objects.map(|(name, written)| versioned(&name, written)).collect()
    }
}

fn index(revision: u64) -> usize {
    usize::try_from(revision).unwrap()
}

fn versioned(name: &str, version: u64) -> String {
    pod(name, version, &json!({"v": version.to_string()}))
}

#[derive(Clone, Debug)]
enum Step {
    /// An object is written, or deleted.
    Write(u8, bool),
    /// A watch from `behind` the known version on, so many events of it.
    Watch { behind: u64, events: usize },
    /// A list as of so many revisions ago; it breaks after so many objects.
    List { age: u64, breaks: Option<usize> },
    /// The agent starts again from its snapshot; with or without an API server.
    Restart { alone: bool },
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        4 => (0..4_u8, any::<bool>()).prop_map(|(name, there)| Step::Write(name, there)),
        3 => (0..4_u64, 0..6_usize).prop_map(|(behind, events)| Step::Watch { behind, events }),
        2 => (0..4_u64, prop::option::of(0..3_usize))
            .prop_map(|(age, breaks)| Step::List { age, breaks }),
        1 => any::<bool>().prop_map(|alone| Step::Restart { alone }),
    ]
}

/// Versions of what downstream has.
fn versions(down: &Downstream) -> BTreeMap<String, u64> {
    let names = down.names().into_iter();
    names.map(|name| (name.to_owned(), down.label(name).parse().unwrap())).collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]

    /// Whatever replicas, broken lists and restarts there are: no object ever goes back, and after
    /// each complete list or watch downstream has exactly the state of that version.
    #[test]
    fn state_moves_forward_only_and_ends_as_the_api_server_has_it(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut history = History::default();
        let (mut known, mut down) = (Known::new(Kind::Pod, NODE), Downstream::default());
        // A broken list leaves single objects ahead of the version.
        let (mut ahead, mut broken) = (false, 0);
        for step in steps {
            let before = versions(&down);
            let mut restarted = false;
            match step {
                Step::Write(name, there) => {
                    let gone = !history.at(history.revision()).contains_key(&name.to_string());
                    if there || !gone {
                        let written = there.then(|| history.revision() + 1);
                        history.0.push((name, written));
                    }
                }
                Step::Watch { behind, events } if known.is_listed() && !known.is_restored() => {
                    let from = known.version().saturating_sub(behind);
                    let mut told = Vec::new();
                    for revision in (from + 1..=history.revision()).take(events) {
                        let (name, written) = &history.0[index(revision) - 1];
                        let raw = versioned(&name.to_string(), revision);
                        match written {
                            Some(_) => known.changed(&raw, &mut told),
                            None => known.deleted(&raw, &mut told),
                        }
                    }
                    down.take(told);
                }
                Step::Watch { .. } => {}
                Step::List { age, breaks } => {
                    let revision = history.revision().saturating_sub(age);
                    let accepted = known.begin_list(revision);
                    proptest::prop_assert_eq!(accepted.is_ok(), revision >= known.version().max(broken));
                    let Ok(mut told) = accepted else { continue };
                    let pods = history.pods(revision);
                    for pod in pods.iter().take(breaks.unwrap_or(usize::MAX)) {
                        known.listed(pod, &mut told);
                    }
                    match breaks {
                        Some(_) => (ahead, broken) = (true, revision),
                        None => {
                            told.extend(known.end_list(revision));
                            ahead = false;
                        }
                    }
                    down.take(told);
                }
                Step::Restart { alone } => {
                    if !known.is_listed() || known.is_restored() || ahead {
                        continue;
                    }
                    let (version, saved) = (known.version(), known.save());
                    known = Known::new(Kind::Pod, NODE);
                    known.restore(version, saved).unwrap();
                    broken = 0;
                    down = Downstream::default();
                    if alone {
                        down.take(known.release(usize::MAX));
                        proptest::prop_assert_eq!(&versions(&down), &before);
                    }
                    restarted = true;
                }
            }
            let after = versions(&down);
            for (name, version) in &before {
                if let Some(now) = after.get(name) {
                    proptest::prop_assert!(restarted || now >= version, "{} went back", name);
                }
            }
            if known.is_listed() && !ahead {
                proptest::prop_assert_eq!(after, history.at(known.version()));
            }
        }
    }
}
