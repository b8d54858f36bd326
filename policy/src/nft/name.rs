//! Names of chains and sets: functions of state, so that a restarted agent finds the same names.

use sha2::{Digest, Sha256};

use crate::input::{Direction, ObjectName};

/// nf_tables allows 255 octets; names this long are still readable in a terminal.
const MAX_PART: usize = 63;

/// 128 bits of SHA-256 in hex. Whoever writes policies controls the text, so the hash must be one
/// for which nobody can find two texts: they would share a set.
pub(crate) fn digest(text: &str) -> String {
    format!("{:032x}", number(text.as_bytes()))
}

/// [`digest`] as a number.
pub(crate) fn number(octets: &[u8]) -> u128 {
    let hash = Sha256::digest(octets);
    hash.iter().take(16).fold(0, |number, octet| number << 8 | u128::from(*octet))
}

/// Chain of a pod: `in/NAMESPACE/POD/HASH`. The hash tells apart what was cut or replaced.
pub(crate) fn pod_chain(direction: Direction, pod: &ObjectName) -> String {
    let prefix = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    let hash = hex(&format!("{:?}", (&pod.namespace, &pod.name)), 8);
    format!("{prefix}/{}/{}/{hash}", readable(&pod.namespace), readable(&pod.name))
}

fn hex(text: &str, octets: usize) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(octets).map(|octet| format!("{octet:02x}")).collect()
}

/// Only what an nft identifier may hold: names of objects need not come from an API server.
fn readable(part: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' };
    part.chars().take(MAX_PART).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_name_shows_the_pod() {
        let name = pod_chain(Direction::Ingress, &ObjectName::new("shop", "web-0"));
        assert!(name.starts_with("in/shop/web-0/"), "{name}");
    }

    #[test]
    fn hostile_and_long_names_stay_identifiers_and_stay_apart() {
        let long = "x".repeat(300);
        let names = [
            pod_chain(Direction::Egress, &ObjectName::new("a;b", "c\" {")),
            pod_chain(Direction::Egress, &ObjectName::new("a_b", "c\" {")),
            pod_chain(Direction::Egress, &ObjectName::new("a", &format!("{long}1"))),
            pod_chain(Direction::Egress, &ObjectName::new("a", &format!("{long}2"))),
            pod_chain(Direction::Egress, &ObjectName::new("a/b", "c")),
            pod_chain(Direction::Egress, &ObjectName::new("a", "b/c")),
        ];
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() <= 255);
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c)));
            assert!(!names[..i].contains(name), "{name} twice");
        }
    }
}
