//! Passwords of sessions (TCP MD5, RFC 2385) against a foreign router.

use std::path::Path;
use std::process::{Command, Output};

use api::control::PeerView;
use api::error_code;
use serde_json::json;

use super::{Implementation, Opens, Options, PATIENCE, Pair, Transport, yaml};
use crate::program;
use crate::wait::{eventually, throughout};

/// What both sides have.
const PASSWORD: &str = "Open.Sesame-42";
/// What one of them has.
const OTHER: &str = "Close.Sesame-43";
const TRANSPORT: Transport = Transport::PerFamily;

impl Pair {
    /// Writes the Secret of the agent with the passwords of the IPv4 and of the IPv6 session; without
    /// any there is none.
    ///
    /// # Panics
    /// When that fails.
    pub fn write_passwords(&self, [v4, v6]: [Option<&str>; 2]) {
        let values: serde_json::Map<String, serde_json::Value> = [("v4", v4), ("v6", v6)]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
            .collect();
        // Written aside, and renamed into place: the agent sees one file or the other.
        let (new, file) =
            (self.directory.join("secret.new"), self.directory.join("store/secret.yaml"));
        if values.is_empty() {
            std::fs::remove_file(file).expect("the Secret was there");
            return;
        }
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": api::constant::PASSWORD_SECRET,
                "namespace": api::constant::NAMESPACE,
            },
            "stringData": values,
        });
        std::fs::write(&new, yaml(&secret)).expect("manifest");
        std::fs::rename(new, file).expect("store");
    }

    fn peer(&self, family: usize) -> Option<PeerView> {
        self.peers().into_iter().find(|peer| peer.address.is_ipv6() == (family == 1))
    }

    /// State of a session, and the code of what is wrong with it.
    fn session(&self, family: usize) -> (String, Option<u16>) {
        let peer = self.peer(family);
        let code = peer.as_ref().and_then(|peer| Some(peer.last_error.as_ref()?.code.0));
        (peer.map(|peer| peer.state).unwrap_or_default(), code)
    }

    fn rctl(&self, arguments: &[&str]) -> Output {
        let socket = self.directory.join("run").join(api::constant::SOCKET_NAME);
        let mut command = Command::new(program::rctl());
        command.args(arguments).arg("--socket").arg(socket).env_remove("KUBECONFIG");
        self.node_namespace.within(move || command.output().expect("rctl runs"))
    }
}

fn options(opens: Opens) -> Options {
    let router_password = Some(PASSWORD);
    Options { node_passwords: true, router_password, opens, ..Options::default() }
}

/// A pair with the Secret there before the agent needs it.
fn start(implementation: Implementation, asn: u32, options: Options) -> Pair {
    let pair = Pair::start_with(implementation, asn, TRANSPORT, options);
    pair.write_passwords([Some(PASSWORD); 2]);
    pair
}

/// With the same password on both sides there are sessions over IPv4 and IPv6, whoever opens them.
///
/// # Panics
/// When that does not hold.
pub fn same_password(implementation: Implementation, asn: u32, opens: Opens) {
    let pair = start(implementation, asn, options(opens));
    pair.converge();
    for peer in pair.peers() {
        assert_eq!(peer.md5, "on", "{peer:?}");
    }
    let sheet =
        String::from_utf8(pair.rctl(&["describe", "peer", "router-v6"]).stdout).expect("text");
    assert!(sheet.contains("TCP MD5"), "{sheet}");
}

/// A new password re-keys its own session and no other; without it, and with another one, there is no
/// session, and it is said why.
///
/// # Panics
/// When that does not hold.
pub fn password_is_rotated_and_lost(implementation: Implementation, asn: u32) {
    let mut pair = start(implementation, asn, options(Opens::Both));
    pair.converge();
    let untouched = || pair.peer(1).is_some_and(|peer| peer.established_count == 1);

    pair.write_passwords([Some(OTHER), Some(PASSWORD)]);
    let mismatch = Some(error_code::PASSWORD_MISMATCH.0);
    eventually(2 * PATIENCE, "another password is suspected", || {
        let (state, code) = pair.session(0);
        state != "Established" && code == mismatch
    });
    let sheet =
        String::from_utf8(pair.rctl(&["describe", "peer", "router-v4"]).stdout).expect("text");
    assert!(sheet.contains("another password"), "{sheet}");
    assert!(sheet.contains("RC2119"), "{sheet}");
    assert!(untouched(), "{:?}", pair.peers());

    pair.write_passwords([None, Some(PASSWORD)]);
    eventually(PATIENCE, "the missing key is told", || {
        pair.problems().contains("Secret rampart-system/rampart-bgp-passwords: it has no key `v4`")
    });
    assert_eq!(pair.session(0), ("Idle".to_owned(), Some(error_code::PASSWORD_MISSING.0)));
    throughout(3 * super::SECOND, "there is no session without the key", || {
        pair.session(0).0 == "Idle" && untouched()
    });
    pair.write_passwords([Some(PASSWORD); 2]);
    pair.converge();
    assert!(!pair.problems().contains("rampart-bgp-passwords"), "{}", pair.problems());
    assert!(untouched(), "{:?}", pair.peers());

    // All at once, on both sides.
    pair.write_passwords([Some(OTHER); 2]);
    pair.kill_router();
    let new = Options { router_password: Some(OTHER), ..options(Opens::Both) };
    pair.configure_router(asn, TRANSPORT, new);
    pair.start_router();
    pair.converge();

    let all = pair.directory.join("bundle.tar.gz").display().to_string();
    let bundle = pair.rctl(&["diag", "bundle", "-o", &all]);
    assert!(bundle.status.success(), "{bundle:?}");
    assert_nowhere(&pair, &all);
}

/// Nothing that anybody looks at has a password in it.
fn assert_nowhere(pair: &Pair, bundle: &str) {
    let unpacked = pair.directory.join("bundle");
    std::fs::create_dir(&unpacked).expect("a directory");
    let into = unpacked.display().to_string();
    pair.node_namespace.output("tar", &["xzf", bundle, "-C", &into]);
    let log = pair.directory.join("agent.log").display().to_string();
    let state = pair.directory.join("state").display().to_string();
    let base64 = ["T3Blbi5TZXNhbWUtNDI", "Q2xvc2UuU2VzYW1lLTQz"];
    for secret in [PASSWORD, OTHER, base64[0], base64[1]] {
        let places = [into.as_str(), &log, &state];
        let mut grep = Command::new("grep");
        grep.args(["-rlaF", "--", secret]).args(places.iter().filter(|p| Path::new(p).exists()));
        let found = grep.output().expect("grep runs");
        assert_eq!(found.status.code(), Some(1), "{secret}: {found:?}");
    }
}

/// A Secret that is not there is one complaint for each peer that needs it, and no session; a router
/// that asks for no password gets none either.
///
/// # Panics
/// When that does not hold.
pub fn no_session_without_a_password(implementation: Implementation, asn: u32) {
    let open = Options { router_password: None, ..options(Opens::Both) };
    let pair = Pair::start_with(implementation, asn, TRANSPORT, open);
    eventually(PATIENCE, "the missing Secret is told", || {
        let problems = pair.problems();
        problems.matches("Secret rampart-system/rampart-bgp-passwords: it does not exist").count()
            == 2
    });
    let down = |code: u16| {
        (0..2).all(|family| {
            let (state, said) = pair.session(family);
            state != "Established" && said == Some(code)
        })
    };
    // The router opens connections all the time.
    throughout(3 * super::SECOND, "there is no session", || down(error_code::PASSWORD_MISSING.0));
    pair.write_passwords([Some(PASSWORD); 2]);
    eventually(2 * PATIENCE, "a router without one is suspected", || {
        down(error_code::PASSWORD_MISMATCH.0)
    });
    assert!(pair.peers().iter().all(|peer| peer.established_count == 0), "{:?}", pair.peers());
    assert!(!pair.router_established(), "{}", pair.router_sessions());
    // It opens connections, and the kernel drops them: that is all there is to see.
    let dropped = || {
        let said = pair.peers().into_iter().filter_map(|peer| peer.last_error);
        said.map(|error| error.message).any(|message| message.contains("this node has dropped"))
    };
    eventually(PATIENCE, "what was dropped is told", dropped);
}
