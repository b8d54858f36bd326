//! Names that follow from an attachment's identity.

use api::cni::AttachmentId;
use api::constant::POD_INTERFACE_PREFIX;
use sha2::{Digest as _, Sha256};

/// Octets of a MAC address.
pub type Mac = [u8; 6];

fn digest(id: &AttachmentId) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(id.container_id.as_bytes());
    hash.update(id.ifname.as_bytes());
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the host side interface: `rv` and 12 hex digits (`IFNAMSIZ` leaves 15 characters).
#[must_use]
pub fn host_interface(id: &AttachmentId) -> String {
    let digest = digest(id);
    let (head, _) = digest.split_at(6);
    format!("{POD_INTERFACE_PREFIX}{}", hex(head))
}

/// Whether an interface of this name can be the host side of one of our pods.
#[must_use]
pub fn is_host_interface(name: &str) -> bool {
    name.strip_prefix(POD_INTERFACE_PREFIX)
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Name of the attachment's file. A hash, so that no identity can name a path.
#[must_use]
pub fn file(id: &AttachmentId) -> String {
    let digest = digest(id);
    let (head, _) = digest.split_at(16);
    format!("{}.json", hex(head))
}

/// Identity of the attachment for the policy engine.
#[must_use]
pub fn key(id: &AttachmentId) -> String {
    format!("{}/{}", id.container_id, id.ifname)
}

/// MAC addresses of the host side and of the pod's side. Set explicitly (locally administered,
/// unicast), since systemd-udevd gives a random one another value some time after the interface was
/// made, and the neighbour entries would be wrong.
#[must_use]
pub fn macs(id: &AttachmentId) -> (Mac, Mac) {
    let digest = digest(id);
    let mac = |from: usize| {
        let mut mac = [0x02; 6];
        for (octet, byte) in mac.iter_mut().skip(1).zip(digest.iter().skip(from)) {
            *octet = *byte;
        }
        mac
    };
    (mac(6), mac(11))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str, ifname: &str) -> AttachmentId {
        AttachmentId { container_id: container.to_owned(), ifname: ifname.to_owned() }
    }

    #[test]
    fn names_fit_the_kernel_and_differ_by_container_and_interface() {
        let names: Vec<String> = [id("a", "eth0"), id("b", "eth0"), id("a", "net1")]
            .iter()
            .map(host_interface)
            .collect();
        for name in &names {
            assert_eq!(name.len(), 14);
            assert!(is_host_interface(name), "{name}");
        }
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert!(!is_host_interface("rv-uplink") && !is_host_interface("rvzz34567890ab"));
    }

    #[test]
    fn no_identity_names_a_path() {
        let name = file(&id("../../etc/passwd", "eth0"));
        assert_eq!(name.len(), 37);
        assert!(!name.contains('/'));
    }

    #[test]
    fn the_two_ends_have_different_local_unicast_addresses() {
        let (host, pod) = macs(&id("a", "eth0"));
        assert_ne!(host, pod);
        assert_eq!((host[0], pod[0]), (2, 2));
    }
}
