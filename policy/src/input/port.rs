//! Protocols and ports.

use std::fmt;

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::fault::{FieldFault, Path, Reason};

/// Transport protocols that a port can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// IANA protocol number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Absent = TCP.
    pub(crate) fn parse(
        raw: Option<&str>,
        path: &Path<'_>,
        faults: &mut Vec<FieldFault>,
    ) -> Option<Self> {
        match raw {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(other) => {
                let message = format!("{other:?} is not one of TCP, UDP, SCTP");
                faults.push(FieldFault::new(path, Reason::InvalidProtocol, message));
                None
            }
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortMatch {
    /// First to last, both included; all ports = 0 to 65535.
    Numeric { protocol: Protocol, first: u16, last: u16 },
    /// By the name that the target pod gives it.
    Named { protocol: Protocol, name: String },
}

impl PortMatch {
    pub(crate) fn parse(
        raw: &NetworkPolicyPort,
        path: &Path<'_>,
        faults: &mut Vec<FieldFault>,
    ) -> Option<Self> {
        let protocol = Protocol::parse(raw.protocol.as_deref(), &path.field("protocol"), faults);
        let end_path = path.field("endPort");
        let mut wrong_end = |message: String| {
            faults.push(FieldFault::new(&end_path, Reason::InvalidPortRange, message));
            None
        };
        match (&raw.port, raw.end_port) {
            (None, None) => Some(Self::Numeric { protocol: protocol?, first: 0, last: u16::MAX }),
            (None, Some(_)) => wrong_end("endPort needs port".to_owned()),
            (Some(IntOrString::String(name)), Some(_)) => {
                wrong_end(format!("endPort needs a numeric port, not {name:?}"))
            }
            (Some(IntOrString::String(name)), None) => {
                if !is_port_name(name) {
                    let message = format!("{name:?} is not a port name");
                    let fault =
                        FieldFault::new(&path.field("port"), Reason::InvalidPortName, message);
                    faults.push(fault);
                    return None;
                }
                Some(Self::Named { protocol: protocol?, name: name.clone() })
            }
            (Some(IntOrString::Int(port)), end) => {
                let first = number(*port, &path.field("port"), faults);
                let last = match end {
                    None => first,
                    Some(end) => number(end, &end_path, faults),
                };
                let (first, last) = (first?, last?);
                if last < first {
                    let message = format!("endPort {last} is less than port {first}");
                    faults.push(FieldFault::new(&end_path, Reason::InvalidPortRange, message));
                    return None;
                }
                Some(Self::Numeric { protocol: protocol?, first, last })
            }
        }
    }
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numeric { protocol, first: 0, last: u16::MAX } => write!(f, "{protocol}"),
            Self::Numeric { protocol, first, last } if first == last => {
                write!(f, "{protocol} {first}")
            }
            Self::Numeric { protocol, first, last } => write!(f, "{protocol} {first}-{last}"),
            Self::Named { protocol, name } => write!(f, "{protocol} {name}"),
        }
    }
}

/// A port number, 1 to 65535.
pub(super) fn number(raw: i32, path: &Path<'_>, faults: &mut Vec<FieldFault>) -> Option<u16> {
    let port = u16::try_from(raw).ok().filter(|port| *port != 0);
    if port.is_none() {
        let message = format!("{raw} is not a port number (1-65535)");
        faults.push(FieldFault::new(path, Reason::InvalidPort, message));
    }
    port
}

/// IANA service name, RFC 6335 §5.1.
fn is_port_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=15).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.iter().any(u8::is_ascii_lowercase)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
