//! What else is in nf_tables: tables and chains of others, by name only. And the end of our own.
//!
//! Nothing of others is ever changed here.

use nix::errno::Errno;
use policy::nft::ir::TABLE;
use policy::nft::transaction::{Step, Transaction};
use serde::Serialize;

use super::socket::{Socket, SocketError};
use super::uapi::{TABLE_NAME, chain, message};
use super::{NftWriter, uapi};

/// Somebody changes the ruleset again and again: give up after so many tries.
const ATTEMPTS: usize = 20;

/// A chain of any table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnyChain {
    /// Family as `nft` names it: `ip`, `ip6`, `inet`, `arp`, `bridge`, `netdev`.
    pub family: &'static str,
    /// Table.
    pub table: String,
    /// Chain.
    pub name: String,
    /// Of a base chain: where it is hooked in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<AnyHook>,
}

/// Where a base chain is hooked in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnyHook {
    /// Hook as `nft` names it.
    pub name: &'static str,
    /// Priority; lower ones come first.
    pub priority: i32,
    /// Packets that no rule decides on are dropped.
    pub drops: bool,
}

/// Every chain of the network namespace of this thread, ours included.
///
/// # Errors
/// The kernel does not tell (CAP_NET_ADMIN is needed).
pub fn chains() -> Result<Vec<AnyChain>, SocketError> {
    let mut socket = Socket::open()?;
    for _ in 0..ATTEMPTS {
        match read(&mut socket) {
            Err(SocketError::Interrupted) => {}
            result => return result,
        }
    }
    Err(SocketError::Interrupted)
}

fn read(socket: &mut Socket) -> Result<Vec<AnyChain>, SocketError> {
    let mut chains = Vec::new();
    socket.list(message::GET_CHAIN, |family, a| {
        let (Some(table), Some(name)) = (a.string(TABLE_NAME), a.string(chain::NAME)) else {
            return;
        };
        let hook = a.nest(chain::HOOK);
        let priority = hook.find(chain::HOOK_PRIORITY).and_then(|p| p.try_into().ok());
        let hook = hook.u32(chain::HOOK_NUMBER).map(|number| AnyHook {
            name: hook_name(family, number),
            priority: priority.map_or(0, i32::from_be_bytes),
            drops: a.u32(chain::POLICY) == Some(chain::POLICY_DROP),
        });
        chains.push(AnyChain {
            family: family_name(family),
            table: table.to_owned(),
            name: name.to_owned(),
            hook,
        });
    })?;
    Ok(chains)
}

/// `NFPROTO_*` as `nft` names it.
const fn family_name(family: u8) -> &'static str {
    match family {
        uapi::FAMILY_INET => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

/// `NF_INET_*`, or for netdev `NF_NETDEV_*`, as `nft` names it.
const fn hook_name(family: u8, number: u32) -> &'static str {
    match (family, number) {
        (5, 0) => "ingress",
        (5, 1) => "egress",
        (_, 0) => "prerouting",
        (_, 1) => "input",
        (_, 2) => "forward",
        (_, 3) => "output",
        (_, 4) => "postrouting",
        (_, 5) => "ingress",
        _ => "unknown",
    }
}

/// Removes our table. `false` if there was none.
///
/// # Errors
/// The kernel refuses.
pub fn delete_own_table() -> Result<bool, SocketError> {
    let mut socket = Socket::open()?;
    let exists = socket.query(message::GET_TABLE, 0, |b| b.string(TABLE_NAME, TABLE), |_| ());
    match exists {
        Ok(()) => {}
        Err(SocketError::Refused { errno: Errno::ENOENT, .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let transaction = Transaction { id: 0, steps: vec![Step::DeleteTable] };
    NftWriter::open()?.apply(&transaction).map_err(|error| SocketError::Refused {
        errno: Errno::from_raw(error.errno),
        sequence: 0,
        text: Some(error.reason),
    })?;
    Ok(true)
}
