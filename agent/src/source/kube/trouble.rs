//! What goes wrong between us and the API server, as few clear complaints: one for the API server,
//! not one for each kind that is not heard.

use std::collections::BTreeMap;

use api::constant::{GROUP, PASSWORD_SECRET};
use api::error_code::{self, CATALOGUE, Code};
use api::watched::{WATCHED, Watched};

use super::request::{Failure, Subject};
use crate::source::{Event, Kind, Rejection, RejectionId};

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    List,
    Watch,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Watch => "watch",
        }
    }
}

/// Why a kind is not followed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) verb: Verb,
    pub(super) failure: Failure,
}

/// The troubles of all kinds.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    server: String,
    subjects: BTreeMap<Subject, Trouble>,
    told: BTreeMap<RejectionId, Rejection>,
}

impl Troubles {
    pub(super) fn new(server: String) -> Self {
        Self { server, ..Self::default() }
    }

    /// Takes the trouble with a kind or a Secret, or its end; what that changes.
    pub(super) fn set(&mut self, subject: Subject, trouble: Option<Trouble>) -> Vec<Event> {
        match trouble {
            Some(trouble) => drop(self.subjects.insert(subject, trouble)),
            None => drop(self.subjects.remove(&subject)),
        }
        let mut current: BTreeMap<RejectionId, Rejection> = BTreeMap::new();
        for (subject, trouble) in &self.subjects {
            let rejection = self.complain(subject, trouble);
            current.entry(rejection.id.clone()).or_insert(rejection);
        }
        let mut events = Vec::new();
        for id in self.told.keys().filter(|id| !current.contains_key(*id)) {
            events.push(Event::Resolved(id.clone()));
        }
        for (id, rejection) in &mut current {
            match self.told.get(id) {
                // The first words stay while the trouble does: others come with every try.
                Some(told) if passing(rejection.code) => rejection.clone_from(told),
                Some(told) if told == rejection => {}
                _ => events.push(Event::Rejected(rejection.clone())),
            }
        }
        self.told = current;
        events
    }

    fn complain(&self, subject: &Subject, trouble: &Trouble) -> Rejection {
        let kind = subject.kind();
        let resource = match subject {
            Subject::Kind(kind) => resource(*kind),
            Subject::Secret { namespace, name } => format!("secret {namespace}/{name}"),
        };
        let server = format!("API server {}", self.server);
        let verb = trouble.verb.name();
        let failure = &trouble.failure;
        match failure {
            Failure::Unauthorized => rejection(
                error_code::SOURCE_UNAUTHORIZED,
                "",
                server,
                format!("{failure} (expired token, or a user that was removed)"),
            ),
            Failure::Forbidden(why) if let Subject::Secret { namespace, name } = subject => {
                let rejection = rejection(
                    error_code::SECRET_FORBIDDEN,
                    name,
                    format!("Secret {namespace}/{name}"),
                    format!("may not {verb} it: {why}"),
                );
                Rejection { next: grant(namespace, name), ..rejection }
            }
            Failure::Forbidden(why) => rejection(
                error_code::SOURCE_FORBIDDEN,
                kind.name(),
                "ClusterRole of the agent".to_owned(),
                format!("may not {verb} {resource}: {why}"),
            ),
            Failure::NotFound if is_ours(kind) => rejection(
                error_code::CRD_MISSING,
                "",
                "CustomResourceDefinitions".to_owned(),
                format!("the API server does not know all kinds of {GROUP}"),
            ),
            Failure::Stale { .. } => rejection(
                error_code::SOURCE_STALE,
                kind.name(),
                server,
                format!("{resource}: {failure}"),
            ),
            Failure::Unreachable(_)
            | Failure::TimedOut(_)
            | Failure::NotFound
            | Failure::Gone
            | Failure::Busy(_)
            | Failure::Status(..)
            | Failure::Garbled(_)
            | Failure::Oversize => rejection(
                error_code::SOURCE_UNREACHABLE,
                "",
                server,
                format!("cannot {verb} {resource}: {failure}"),
            ),
        }
    }
}

/// How agents are let read another Secret than the one that the manifests know.
fn grant(namespace: &str, name: &str) -> String {
    format!(
        "Use the Secret {PASSWORD_SECRET}, or grant this one: kubectl -n {namespace} create role {name} \
         --verb=list,watch --resource=secrets --resource-name={name}; kubectl -n {namespace} create \
         rolebinding {name} --role={name} --serviceaccount={namespace}:rampart-agent. Until then \
         there is no session with peers that name it, unless it was read before."
    )
}

/// The words of such a complaint change from try to try.
fn passing(code: Code) -> bool {
    code == error_code::SOURCE_UNREACHABLE
}

fn rejection(code: Code, id: &str, subject: String, message: String) -> Rejection {
    let entry = CATALOGUE.iter().find(|entry| entry.code == code);
    Rejection {
        id: RejectionId(format!("kube|{code}|{id}")),
        code,
        subject,
        message,
        location: None,
        next: entry.map_or("", |entry| entry.next).to_owned(),
    }
}

fn watched(kind: Kind) -> Option<&'static Watched> {
    WATCHED.iter().find(|watched| watched.kind == kind.name())
}

fn is_ours(kind: Kind) -> bool {
    watched(kind).is_some_and(|watched| watched.ours)
}

/// `pods`, `networkpolicies.networking.k8s.io`: as RBAC and kubectl call it.
fn resource(kind: Kind) -> String {
    match watched(kind) {
        Some(watched) if watched.group.is_empty() => watched.plural.to_owned(),
        Some(watched) => format!("{}.{}", watched.plural, watched.group),
        None => kind.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(failure: Failure) -> Option<Trouble> {
        Some(Trouble { verb: Verb::Watch, failure })
    }

    fn rejected(events: &[Event]) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Rejected(r) => format!("{} {}", r.code, r.message),
            Event::Resolved(id) => format!("resolved {}", id.0),
            other => panic!("{other:?}"),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn an_api_server_that_is_gone_is_one_complaint() {
        let mut troubles = Troubles::new("https://a".into());
        let gone = |text: &str| trouble(Failure::Unreachable(text.into()));
        let first = troubles.set(Subject::Kind(Kind::Pod), gone("connection refused"));
        assert_eq!(rejected(&first), ["RC1013 cannot watch pods: connection refused"]);
        for kind in Kind::WATCHED.map(Subject::Kind) {
            assert_eq!(troubles.set(kind, gone("connection reset")), []);
        }
        for kind in Kind::WATCHED.map(Subject::Kind).into_iter().skip(1) {
            assert_eq!(troubles.set(kind, None), []);
        }
        assert_eq!(
            rejected(&troubles.set(Subject::Kind(Kind::Node), None)),
            ["resolved kube|RC1013|"]
        );
    }

    #[test]
    fn a_verb_taken_away_is_named_with_its_resource() {
        let mut troubles = Troubles::new("https://a".into());
        let forbidden = trouble(Failure::Forbidden("no".into()));
        let events = troubles.set(Subject::Kind(Kind::NetworkPolicy), forbidden);
        let expected = "RC1015 may not watch networkpolicies.networking.k8s.io: no";
        assert_eq!(rejected(&events), [expected]);
    }

    #[test]
    fn a_secret_that_may_not_be_read_comes_with_the_commands_that_grant_it() {
        let mut troubles = Troubles::new("https://a".into());
        let (namespace, name) = ("rampart-system".to_owned(), "tor-keys".to_owned());
        let secret = Subject::Secret { namespace, name };
        let events = troubles.set(secret.clone(), trouble(Failure::Forbidden("no".into())));
        let [Event::Rejected(rejection)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(rejection.code, error_code::SECRET_FORBIDDEN);
        assert_eq!(rejection.subject, "Secret rampart-system/tor-keys");
        assert!(rejection.next.contains("--resource-name=tor-keys"), "{}", rejection.next);
        assert_eq!(rejected(&troubles.set(secret, None)), ["resolved kube|RC1021|tor-keys"]);
    }

    #[test]
    fn missing_kinds_of_ours_are_one_complaint() {
        let mut troubles = Troubles::new("https://a".into());
        let events = troubles.set(Subject::Kind(Kind::BgpPeer), trouble(Failure::NotFound));
        let expected = "RC1016 the API server does not know all kinds of rampart.network";
        assert_eq!(rejected(&events), [expected]);
        assert_eq!(
            troubles.set(Subject::Kind(Kind::BgpConfiguration), trouble(Failure::NotFound)),
            []
        );
        assert_eq!(troubles.set(Subject::Kind(Kind::BgpPeer), None), []);
        let last = troubles.set(Subject::Kind(Kind::BgpConfiguration), None);
        assert_eq!(rejected(&last), ["resolved kube|RC1016|"]);
    }
}
