//! The password of a peer: which key of which Secret, and what may be in there.

use api::constant::PASSWORD_SECRET;
use api::crd::SecretKeyRef;
use api::error_code;
use bgp::md5::{Md5, Md5Key};

use super::{FieldFault, Secrets};
use crate::source::Secret;
use crate::source::manifest::is_name;

/// Longest name of a Secret, and of a key in it.
const LONGEST_NAME: usize = 253;

/// Where the password of a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PasswordRef {
    /// Secret in our own namespace.
    pub(super) secret: String,
    key: String,
}

impl PasswordRef {
    pub(super) fn parse(reference: &SecretKeyRef) -> Result<Self, Vec<FieldFault>> {
        let SecretKeyRef { name, key } = reference;
        let secret = name.clone().unwrap_or_else(|| PASSWORD_SECRET.to_owned());
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            let field = format!("spec.passwordSecretRef.{field}");
            faults.push(FieldFault::new(error_code::INVALID_BGP_CONFIG, field, message));
        };
        if !is_name(&secret, LONGEST_NAME, true) {
            fault("name", format!("`{secret}` is not the name of a Secret"));
        }
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if key.is_empty() || key.len() > LONGEST_NAME || !key.bytes().all(valid) {
            fault("key", format!("`{key}` is not a key of a Secret"));
        }
        if faults.is_empty() { Ok(Self { secret, key: key.clone() }) } else { Err(faults) }
    }

    /// How the segments of a session are signed, with the Secrets of `namespace`; and what is wrong,
    /// without a word of the value. Not known (yet) is not wrong.
    pub(super) fn md5(&self, namespace: &str, secrets: &Secrets) -> (Md5, Option<FieldFault>) {
        let wrong = match secrets.known.get(&self.secret) {
            Some(Some(secret)) => match self.password(secret) {
                Ok(key) => return (Md5::Key(key), None),
                Err(wrong) => wrong,
            },
            None if !secrets.listed => return (Md5::Unknown, None),
            Some(None) | None => "it does not exist".to_owned(),
        };
        let message = format!("Secret {namespace}/{}: {wrong}", self.secret);
        let field = "spec.passwordSecretRef";
        (Md5::Unknown, Some(FieldFault::new(error_code::PASSWORD_MISSING, field, message)))
    }

    fn password(&self, secret: &Secret) -> Result<Md5Key, String> {
        let Self { key, .. } = self;
        let value = secret.value(key).ok_or_else(|| format!("it has no key `{key}`"))?;
        if value.iter().any(u8::is_ascii_control) {
            return Err(format!(
                "the value of key `{key}` holds a control character, perhaps a line break at its end"
            ));
        }
        Md5Key::new(value).map_err(|error| format!("the value of key `{key}`: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::{Event, Key, Kind, Reconciler};
    use super::*;
    use crate::source::manifest::{self, Manifest};

    const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: a}}
spec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: rampart.network/v1alpha1
kind: BGPPeer
metadata: {name: v4}
spec: {peerAddress: 192.0.2.9, peerASN: 65001, passwordSecretRef: {key: tor}}
---
apiVersion: rampart.network/v1alpha1
kind: BGPPeer
metadata: {name: v6}
spec: {peerAddress: '2001:db8::9', peerASN: 65001, passwordSecretRef: {name: more, key: tor}}
---
apiVersion: rampart.network/v1alpha1
kind: BGPPeer
metadata: {name: elsewhere}
spec: {peerAddress: 192.0.2.8, peerASN: 65001, passwordSecretRef: {name: unneeded, key: k},
       nodeSelector: {matchLabels: {rack: b}}}
";

    fn secret(namespace: &str, name: &str, data: &str) -> String {
        let metadata = format!("{{name: {name}, namespace: {namespace}}}");
        format!("apiVersion: v1\nkind: Secret\nmetadata: {metadata}\nstringData: {data}\n")
    }

    fn feed(reconciler: &mut Reconciler, text: &str) {
        for manifest in manifest::read(&Arc::from(Path::new("/s/f.yaml")), text) {
            let Manifest::Good { object, origin } = manifest else { panic!("{manifest:?}") };
            reconciler.handle(&Event::Apply(object, Some(origin)));
        }
    }

    /// How each peer is signed, and what is wrong, by peer.
    fn outcome(reconciler: &mut Reconciler) -> (Vec<Md5>, Vec<String>) {
        let (desired, faults) = reconciler.desired(&[]);
        let peers = desired.unwrap().config.peers.into_iter();
        (peers.map(|peer| peer.md5).collect(), faults.iter().map(ToString::to_string).collect())
    }

    fn key(text: &str) -> Md5 {
        Md5::Key(Md5Key::new(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_peer_with_a_password_has_none_until_it_is_known_and_never_goes_without() {
        let mut reconciler = Reconciler::new("n1", "rampart-system");
        feed(&mut reconciler, OBJECTS);
        assert_eq!(outcome(&mut reconciler), (vec![Md5::Unknown, Md5::Unknown], Vec::new()));
        let needed: Vec<String> = reconciler.secrets().into_iter().collect();
        assert_eq!(needed, ["more", "rampart-bgp-passwords"], "those of our own peers");

        // In another namespace it is none of ours.
        feed(&mut reconciler, &secret("shop", "more", "{tor: stolen}"));
        assert_eq!(outcome(&mut reconciler).0, [Md5::Unknown, Md5::Unknown]);
        feed(&mut reconciler, &secret("rampart-system", "more", "{tor: six}"));
        assert_eq!(outcome(&mut reconciler), (vec![Md5::Unknown, key("six")], Vec::new()));

        let namespace = "rampart-system".to_owned();
        let name = "rampart-bgp-passwords".to_owned();
        reconciler.handle(&Event::Delete(Key { kind: Kind::Secret, namespace, name }));
        let (md5, faults) = outcome(&mut reconciler);
        assert_eq!(md5, [Md5::Unknown, key("six")]);
        let expected = "BGPPeer v4: spec.passwordSecretRef: Secret rampart-system/rampart-bgp-passwords: it does not exist";
        assert_eq!(faults, [expected]);
    }

    #[test]
    fn a_value_that_is_no_password_is_told_and_not_shown() {
        let long = "x".repeat(81);
        for (data, why) in [
            ("{other: swordfish}".to_owned(), "it has no key `tor`"),
            ("{tor: ''}".to_owned(), "it is empty"),
            ("{tor: \"swordfish\\n\"}".to_owned(), "control character"),
            (format!("{{tor: {long}}}"), "it has 81 octets"),
        ] {
            let mut reconciler = Reconciler::new("n1", "rampart-system");
            feed(&mut reconciler, OBJECTS);
            feed(&mut reconciler, &secret("rampart-system", "more", "{tor: six}"));
            feed(&mut reconciler, &secret("rampart-system", "rampart-bgp-passwords", &data));
            let (md5, faults) = outcome(&mut reconciler);
            assert_eq!(md5, [Md5::Unknown, key("six")], "{why}");
            let [fault] = faults.as_slice() else { panic!("{faults:?}") };
            assert!(fault.contains(why), "{fault}");
            assert!(!fault.contains("swordfish") && !fault.contains(&long), "{fault}");
        }
    }

    #[test]
    fn a_secret_in_a_wrong_form_is_not_quoted() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {tor: 4711}\n";
        let manifests = manifest::read(&Arc::from(Path::new("/s/f.yaml")), text);
        let [Manifest::Bad { faults, .. }] = manifests.as_slice() else { panic!("{manifests:?}") };
        assert_eq!(faults[0].field, "stringData.tor");
        assert!(!format!("{manifests:?}").contains("4711"), "{manifests:?}");
    }
}
