//! Owner of the nf_tables socket: applies transactions and reads our table back.
//!
//! Netlink answers while one waits, so the owner is a plain thread. It runs in the network
//! namespace of the thread that opened it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use policy::nft::ir::Table;
use policy::nft::transaction::{ApplyError, Step, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::encode::{Batch, encode, encode_repair};
use super::monitor::Monitor;
use super::readback::{self, Faults};
use super::socket::{Socket, SocketError};

/// Others change other tables just when we apply: give up after so many tries.
const ATTEMPTS: usize = 20;
/// Changes that may pile up between a read-back and the transaction that relies on it. That may be
/// hours, so it is small: what overflows it costs one more read-back.
const BASIS_BUFFER_BYTES: usize = 1 << 20;
/// A change is told to listeners at once; longer means that the telling was lost.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes and reads `table inet rampart` of one network namespace.
#[derive(Debug)]
pub struct NftWriter {
    socket: Socket,
    /// What the next transaction relies on, if it answers a read-back.
    basis: Option<Basis>,
}

/// A transaction computed from a read-back must not be applied to anything else.
#[derive(Debug)]
struct Basis {
    generation: u32,
    /// Our table is no longer what was read.
    stale: bool,
    /// Listens since before the read-back began.
    monitor: Monitor,
}

impl NftWriter {
    /// Opens the socket in the network namespace of this thread.
    ///
    /// # Errors
    /// The socket cannot be opened or configured (CAP_NET_ADMIN is needed).
    pub fn open() -> Result<Self, SocketError> {
        Ok(Self { socket: Socket::open()?, basis: None })
    }

    /// Netlink port id, by which [`Monitor`] knows our own changes.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Applies a transaction wholly or not at all.
    ///
    /// The first one after a [`readback`](Self::readback) is refused with ERESTART if someone
    /// changed our table in between: read it back again.
    ///
    /// # Errors
    /// What the kernel refused, with the step if it named one. After ETIMEDOUT or a failure of
    /// the socket itself the outcome is unknown: read back.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        if transaction.steps.is_empty() {
            return Ok(());
        }
        if self.basis.as_ref().is_some_and(|b| b.stale) {
            return Err(changed_since_readback());
        }
        for _ in 0..ATTEMPTS {
            let generation = self.basis.as_ref().map(|b| b.generation);
            let batch = encode(transaction, generation).map_err(|(step, e)| ApplyError {
                errno: Errno::EINVAL as i32,
                step: Some(step),
                reason: describe(transaction, Some(step), &e.to_string()),
            })?;
            match self.socket.commit(&batch) {
                Ok(()) => {
                    self.basis = None;
                    return Ok(());
                }
                Err(e) if e.errno() == Errno::ERESTART && self.basis.is_some() => {
                    if !self.renew_basis() {
                        return Err(changed_since_readback());
                    }
                }
                Err(e) => return Err(refusal(transaction, &batch, &e)),
            }
        }
        Err(ApplyError {
            errno: Errno::ERESTART as i32,
            step: None,
            reason: "the ruleset of this namespace never stands still".to_owned(),
        })
    }

    /// The ruleset changed since the read-back. Unless that was our table, go on from here.
    fn renew_basis(&mut self) -> bool {
        let Some(basis) = &mut self.basis else { return false };
        let Ok(generation) = self.socket.generation() else { return false };
        basis.generation = generation;
        let told = basis.monitor.wait_for_generation(generation, TELL_TIMEOUT);
        basis.stale |= !matches!(told, Ok(None));
        !basis.stale
    }

    /// What the kernel holds of our table, `None` if it is not there. Chains whose rules are those
    /// of `desired` come back as such; others come back with rules that differ. A table that
    /// someone switched off, or a base chain whose policy someone changed, is repaired at once.
    ///
    /// # Errors
    /// The kernel refuses to tell, or the ruleset changes faster than it can be read.
    pub fn readback(&mut self, desired: &Table) -> Result<Option<Table>, SocketError> {
        self.basis = None;
        let monitor = Monitor::with_buffer(self.port(), BASIS_BUFFER_BYTES)
            .map_err(|source| SocketError::Io { operation: "subscribe to changes", source })?;
        for _ in 0..ATTEMPTS {
            let observed = readback::read(&mut self.socket, desired)?;
            if observed.faults == Faults::default() {
                self.basis = Some(Basis { generation: observed.generation, stale: false, monitor });
                return Ok(observed.table);
            }
            match self.socket.commit(&encode_repair(&observed.faults, observed.generation)) {
                Ok(()) => {}
                Err(e) if e.errno() == Errno::ERESTART => {}
                Err(e) => return Err(e),
            }
        }
        Err(SocketError::Interrupted)
    }

    /// Starts the owner's thread. It ends when every handle is gone.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(mut self) -> io::Result<(WriterHandle, JoinHandle<()>)> {
        // The engine has one transaction under way at a time; full means it waits, as it would
        // for the answer.
        let (commands, mut queue) = mpsc::channel(4);
        let thread = thread::Builder::new().name("nft".to_owned()).spawn(move || {
            while let Some(command) = queue.blocking_recv() {
                self.execute(command);
            }
        })?;
        Ok((WriterHandle { commands }, thread))
    }

    fn execute(&mut self, command: Command) {
        // Whoever no longer waits for the answer does not want it.
        match command {
            Command::Apply { transaction, reply } => drop(reply.send(self.apply(&transaction))),
            Command::Readback { desired, reply } => drop(reply.send(self.readback(&desired))),
        }
    }
}

/// What the owner's thread can be asked.
#[derive(Debug)]
pub enum Command {
    /// See [`NftWriter::apply`].
    Apply {
        /// What to apply.
        transaction: Arc<Transaction>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), ApplyError>>,
    },
    /// See [`NftWriter::readback`].
    Readback {
        /// What should be there.
        desired: Arc<Table>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Option<Table>, SocketError>>,
    },
}

/// Speaks to the owner's thread from async code.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    commands: mpsc::Sender<Command>,
}

impl WriterHandle {
    /// See [`NftWriter::apply`].
    ///
    /// # Errors
    /// As there; ESHUTDOWN if the thread has ended.
    pub async fn apply(&self, transaction: Arc<Transaction>) -> Result<(), ApplyError> {
        let (reply, answer) = oneshot::channel();
        let ended = || ApplyError {
            errno: Errno::ESHUTDOWN as i32,
            step: None,
            reason: "the nft writer has ended".to_owned(),
        };
        let command = Command::Apply { transaction, reply };
        self.commands.send(command).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// See [`NftWriter::readback`].
    ///
    /// # Errors
    /// As there; [`SocketError::NoAnswer`] if the thread has ended.
    pub async fn readback(&self, desired: Arc<Table>) -> Result<Option<Table>, SocketError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Readback { desired, reply };
        self.commands.send(command).await.map_err(|_| SocketError::NoAnswer)?;
        answer.await.unwrap_or(Err(SocketError::NoAnswer))
    }
}

fn changed_since_readback() -> ApplyError {
    ApplyError {
        errno: Errno::ERESTART as i32,
        step: None,
        reason: "someone changed our table after it was read back".to_owned(),
    }
}

fn refusal(transaction: &Transaction, batch: &Batch, error: &SocketError) -> ApplyError {
    let step = match error {
        SocketError::Refused { sequence, .. } => batch.step_of(*sequence),
        SocketError::Io { .. } | SocketError::NoAnswer | SocketError::Interrupted => None,
    };
    let cause = match error {
        SocketError::Io { source, .. } => format!("{error}: {source}"),
        SocketError::Refused { .. } | SocketError::NoAnswer | SocketError::Interrupted => {
            error.to_string()
        }
    };
    let reason = describe(transaction, step, &cause);
    ApplyError { errno: error.errno() as i32, step, reason }
}

/// Names the step in the words of `nft`.
fn describe(transaction: &Transaction, step: Option<usize>, cause: &str) -> String {
    let what = match step.and_then(|i| transaction.steps.get(i)) {
        None => return cause.to_owned(),
        Some(Step::AddTable) => "add table".to_owned(),
        Some(Step::DeleteTable) => "delete table".to_owned(),
        Some(Step::AddSet(name, _)) => format!("add set {name}"),
        Some(Step::DeleteSet(name)) => format!("delete set {name}"),
        Some(Step::AddElements { set, elements, .. }) => {
            format!("add {} elements to {set}", elements.len())
        }
        Some(Step::DeleteElements { set, elements, .. }) => {
            format!("delete {} elements from {set}", elements.len())
        }
        Some(Step::AddChain(name, _)) => format!("add chain {name}"),
        Some(Step::FlushChain(name)) => format!("flush chain {name}"),
        Some(Step::AddRule(name, _)) => format!("add rule to {name}"),
        Some(Step::DeleteChain(name)) => format!("delete chain {name}"),
    };
    format!("{what}: {cause}")
}
