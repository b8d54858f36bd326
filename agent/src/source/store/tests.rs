use super::*;

fn file(name: &str) -> Arc<Path> {
    Arc::from(Path::new("/s").join(name).as_path())
}

fn namespace(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{l: '{label}'}}}}\n---\n"
    )
}

fn broken_namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, label: {{}}}}\n---\n")
}

fn policy(rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{podSelector: {{}}, {rules}}}\n---\n"
    )
}

/// `+key`, `-key`, `!code subject`, `ok`.
fn words(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::Apply(object, _) => format!("+{}", object.key()),
            Event::Delete(key) => format!("-{key}"),
            Event::Rejected(r) => format!("!{} {}", r.code, r.subject),
            Event::Resolved(_) => "ok".to_owned(),
            Event::RelistBegin(_) | Event::RelistEnd(_) => panic!("not from the store"),
        })
        .collect()
}

fn put(store: &mut Store, name: &str, text: &str) -> Vec<String> {
    store.read(&file(name), Content::Text(text.to_owned()));
    words(&store.changes())
}

fn rejection(store: &Store) -> &Rejection {
    store.reported.values().next().unwrap()
}

#[test]
fn changes_are_a_difference() {
    let mut store = Store::default();
    let (a, b) = (namespace("a", "1"), namespace("b", "1"));
    assert_eq!(put(&mut store, "f", &format!("{a}{b}")), ["+Namespace a", "+Namespace b"]);
    assert_eq!(put(&mut store, "f", &format!("# moved\n{b}{a}")), [""; 0]);
    assert_eq!(put(&mut store, "f", &namespace("a", "2")), ["+Namespace a", "-Namespace b"]);
    store.read(&file("f"), Content::Missing);
    assert_eq!(words(&store.changes()), ["-Namespace a"]);
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_disturbs_no_other() {
    let mut store = Store::default();
    let other = namespace("b", "1");
    put(&mut store, "f", &format!("{}{other}", namespace("a", "1")));
    let text = format!("{}{}", broken_namespace("a"), namespace("b", "2"));
    assert_eq!(put(&mut store, "f", &text), ["+Namespace b", "!RC1002 Namespace a"]);
    let r = rejection(&store);
    assert_eq!(r.location.as_deref(), Some("/s/f:3"));
    assert!(
        r.message.starts_with("metadata.label: unknown field `label`, is it `labels`?"),
        "{r:?}"
    );
    assert!(r.next.contains("last good version stays"), "{r:?}");
    assert_eq!(put(&mut store, "f", &text), [""; 0], "told once");
    assert_eq!(put(&mut store, "f", &namespace("a", "3")), ["+Namespace a", "-Namespace b", "ok"]);
}

#[test]
fn a_document_that_is_no_yaml_keeps_all_that_the_file_held() {
    let mut store = Store::default();
    put(&mut store, "f", &format!("{}{}", namespace("a", "1"), namespace("b", "1")));
    let text = format!("a: [\n---\n{}", namespace("b", "2"));
    assert_eq!(put(&mut store, "f", &text), ["+Namespace b", "!RC1001 file f"]);
    assert_eq!(put(&mut store, "f", &namespace("b", "2")), ["-Namespace a", "ok"]);
}

#[test]
fn the_first_file_by_name_is_in_force_whatever_the_order() {
    for order in [["a", "b"], ["b", "a"]] {
        let mut store = Store::default();
        for name in order {
            store.read(&file(name), Content::Text(namespace("n", name)));
        }
        assert_eq!(words(&store.changes()), ["+Namespace n", "!RC1009 Namespace n"]);
        let held = &store.published.values().next().unwrap().origin;
        assert_eq!(held.file, file("a"));
        assert!(rejection(&store).location.as_deref().unwrap().starts_with("/s/b:"));
        store.read(&file("a"), Content::Missing);
        assert_eq!(words(&store.changes()), ["+Namespace n", "ok"]);
    }
}

#[test]
fn moving_an_object_to_another_file_is_no_change() {
    let mut store = Store::default();
    put(&mut store, "a", &namespace("n", "1"));
    store.read(&file("a"), Content::Missing);
    store.read(&file("b"), Content::Text(namespace("n", "1")));
    assert_eq!(words(&store.changes()), [""; 0]);
}

#[test]
fn an_unreadable_policy_isolates_until_it_is_good_and_then_keeps_that() {
    let mut store = Store::default();
    let bad = policy("ingress: [{form: []}]");
    assert_eq!(
        put(&mut store, "f", &bad),
        ["+NetworkPolicy default/p", "!RC1002 NetworkPolicy default/p"]
    );
    let spec = |store: &Store| match &store.published.values().next().unwrap().object {
        Object::NetworkPolicy(policy) => policy.spec.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(spec(&store).ingress, Some(vec![]));
    assert!(rejection(&store).next.contains("isolates"));
    assert_eq!(put(&mut store, "f", &policy("ingress: [{}]")), ["+NetworkPolicy default/p", "ok"]);
    put(&mut store, "f", &bad);
    assert_eq!(spec(&store).ingress.unwrap().len(), 1, "last good version");
}

#[test]
fn an_unreadable_file_or_directory_keeps_everything() {
    let mut store = Store::default();
    put(&mut store, "f", &namespace("a", "1"));
    store.read(&file("f"), Content::Unreadable("permission denied".into()));
    assert_eq!(words(&store.changes()), ["!RC1012 store /s/f"]);
    store.outage(Path::new("/s"), Some(&Outage::Unreadable("no such directory".into())));
    assert_eq!(words(&store.changes()), ["!RC1012 store /s"]);
    store.outage(Path::new("/s"), None);
    store.read(&file("f"), Content::Text(namespace("a", "1")));
    assert_eq!(words(&store.changes()), ["ok", "ok"]);
}

#[test]
fn an_object_twice_in_one_file_is_told_and_the_first_stays() {
    let mut store = Store::default();
    let text = format!("{}{}", namespace("a", "1"), namespace("a", "2"));
    assert_eq!(put(&mut store, "f", &text), ["+Namespace a", "!RC1009 Namespace a"]);
}

#[test]
fn nothing_is_said_to_stay_in_force_of_a_file_that_was_never_read() {
    let file: Arc<Path> = Arc::from(Path::new("/s/f"));
    for (content, code) in
        [(Content::Text("a: [\n".into()), 1001), (Content::Unreadable("why".into()), 1012)]
    {
        let mut store = Store::default();
        store.read(&file, content);
        let events = store.changes();
        let [Event::Rejected(rejection)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(rejection.code.0, code);
        assert!(!rejection.next.contains("stay"), "{rejection:?}");
    }
}
