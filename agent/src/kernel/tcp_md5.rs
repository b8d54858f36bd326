//! What the kernel has dropped for its TCP MD5 signature (RFC 2385): it says nothing else about it.

use std::fmt;

/// The counters of the network namespace of the calling thread.
const FILE: &str = "/proc/thread-self/net/netstat";

/// What may be wrong with a peer that has a password and does not answer.
pub const SUSPICION: &str = "a peer with another password, or without one, is not heard";

/// Segments dropped since the machine (or the network namespace) started, of all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Signed with another password.
    pub wrong: u64,
    /// Not signed, where a password was asked for.
    pub unsigned: u64,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wrong, unsigned } = self;
        write!(
            f,
            "since it started this node has dropped {wrong} segments with another password and \
             {unsigned} without one"
        )
    }
}

/// Reads the counters; `None` where there are none.
#[must_use]
pub fn dropped() -> Option<Dropped> {
    parse(&std::fs::read_to_string(FILE).ok()?)
}

/// A line of names, and one of values.
fn parse(text: &str) -> Option<Dropped> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let find = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some(Dropped { wrong: find("TCPMD5Failure")?, unsigned: find("TCPMD5NotFound")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_put_together() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\n\
                    TcpExt: 1 22 3 4\nIpExt: InOctets\nIpExt: 7\n";
        assert_eq!(parse(text), Some(Dropped { wrong: 4, unsigned: 22 }));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_kernel_has_them() {
        assert!(dropped().is_some());
    }
}
