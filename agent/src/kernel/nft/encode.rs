//! A transaction as one nf_tables batch: what the kernel applies wholly or not at all.

use policy::nft::ir::{BaseHook, Element, Hook, Rule, SetSpec, TABLE, Verdict};
use policy::nft::transaction::{Step, Transaction};

use super::element::{write_declaration, write_element};
use super::expression::{ANONYMOUS_NAME, anonymous_sets, write_rule};
use super::message::Buffer;
use super::readback::Faults;
use super::uapi::{self, LIST_ITEM, chain, data, element, message, netlink, rule, set};

/// A message of elements is closed at this size: its list has a 16-bit length, and the largest
/// element takes a few hundred octets.
const ELEMENT_MESSAGE_BYTES: usize = 60_000;
/// Longest name of a set, or of a chain, that the kernel takes, in octets.
const NAME_LENGTH: usize = 255;

/// A step that has no netlink form. The compiler never makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Fields of an element are not those of its set.
    #[error("element does not fit the key of its set")]
    KeyMismatch,
    /// Range whose first value is greater than its last.
    #[error("range has no value")]
    EmptyRange,
    /// Verdict map, or address translation, inside a verdict map.
    #[error("element of a map leads to another map, or translates addresses")]
    NestedMap,
    /// A match on one of no values.
    #[error("match has no values")]
    EmptyMatch,
    /// Over 128 octets.
    #[error("comment is longer than 128 octets")]
    CommentTooLong,
    /// Over 255 octets, or empty.
    #[error("name is empty or longer than 255 octets")]
    BadName,
    /// An attribute over 64 KiB or a batch over 4 GiB.
    #[error("message is too long")]
    TooLong,
}

/// A batch ready to send.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Sequence number of the first message of each step; all messages of a step follow it.
    first_sequence: Vec<u32>,
    /// Sequence number of the message that asks for the acknowledgement.
    last_sequence: u32,
}

impl Batch {
    /// The whole batch, to be sent at once.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which step a message belongs to; `None` for the frame of the batch, to which the kernel
    /// attributes what it finds only at the end (jump depth) and a wrong generation.
    #[must_use]
    pub fn step_of(&self, sequence: u32) -> Option<usize> {
        if sequence > self.last_sequence {
            return None;
        }
        self.first_sequence.partition_point(|first| *first <= sequence).checked_sub(1)
    }

    pub(super) fn last_sequence(&self) -> u32 {
        self.last_sequence
    }
}

/// Encodes a transaction. With a generation, the kernel refuses it (ERESTART) if anyone changed
/// any nf_tables object since.
///
/// # Errors
/// The index of the first step that cannot be encoded, and why.
pub fn encode(
    transaction: &Transaction,
    generation: Option<u32>,
) -> Result<Batch, (usize, EncodeError)> {
    let mut encoder = Encoder { buffer: Buffer::default(), sequence: 0, set_id: 0 };
    encoder.begin(generation);
    let mut first_sequence = Vec::with_capacity(transaction.steps.len());
    for (index, step) in transaction.steps.iter().enumerate() {
        first_sequence.push(encoder.sequence);
        encoder.step(step).map_err(|e| (index, e))?;
        if encoder.buffer.oversized() {
            return Err((index, EncodeError::TooLong));
        }
    }
    let last_sequence = encoder.sequence.saturating_sub(1);
    // Kernels before 6.10 never acknowledge BATCH_END, so the last real message asks for it.
    encoder.buffer.add_flags(netlink::ACK);
    encoder.end();
    Ok(Batch { bytes: encoder.buffer.into_bytes(), first_sequence, last_sequence })
}

/// A batch that switches our table on again and gives base chains their policy back.
pub(super) fn encode_repair(faults: &Faults, generation: u32) -> Batch {
    let mut encoder = Encoder { buffer: Buffer::default(), sequence: 0, set_id: 0 };
    encoder.begin(Some(generation));
    if faults.dormant {
        encoder.add_table();
    }
    for name in &faults.policies {
        encoder.message(message::NEW_CHAIN, 0);
        encoder.buffer.string(chain::NAME, name);
        encoder.buffer.u32(chain::POLICY, chain::POLICY_ACCEPT);
    }
    let last_sequence = encoder.sequence.saturating_sub(1);
    encoder.buffer.add_flags(netlink::ACK);
    encoder.end();
    Batch { bytes: encoder.buffer.into_bytes(), first_sequence: Vec::new(), last_sequence }
}

/// Number by which the kernel knows a hook of the inet family.
pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

struct Encoder {
    buffer: Buffer,
    /// Of the next message.
    sequence: u32,
    /// Last transaction-wide set id given out.
    set_id: u32,
}

impl Encoder {
    fn frame(&mut self, kind: u16) {
        self.buffer.raw(kind, 0, self.sequence, 0, uapi::SUBSYSTEM);
        self.sequence += 1;
    }

    fn begin(&mut self, generation: Option<u32>) {
        self.frame(uapi::BATCH_BEGIN);
        if let Some(generation) = generation {
            self.buffer.u32(uapi::BATCH_GENERATION, generation);
        }
    }

    fn end(&mut self) {
        self.frame(uapi::BATCH_END);
    }

    /// Starts a message about our table.
    fn message(&mut self, kind: u16, flags: u16) {
        self.buffer.message(kind, flags, self.sequence);
        self.sequence += 1;
        self.buffer.string(uapi::TABLE_NAME, TABLE);
    }

    fn step(&mut self, step: &Step) -> Result<(), EncodeError> {
        match step {
            Step::AddTable => self.add_table(),
            Step::DeleteTable => {
                // Deleting what is not there fails on every kernel; making it first does not.
                self.add_table();
                self.message(message::DEL_TABLE, 0);
            }
            Step::AddSet(name, spec) => {
                let id = self.next_set_id();
                self.message(message::NEW_SET, netlink::CREATE | netlink::EXCLUSIVE);
                write_declaration(&mut self.buffer, check(name)?, spec, id);
            }
            Step::DeleteSet(name) => {
                self.message(message::DEL_SET, 0);
                self.buffer.string(set::NAME, check(name)?);
            }
            Step::AddElements { set, spec, elements } => {
                self.elements(message::NEW_ELEMENTS, netlink::CREATE, check(set)?, spec, elements)?;
            }
            Step::DeleteElements { set, spec, elements } => {
                self.elements(message::DEL_ELEMENTS, 0, check(set)?, spec, elements)?;
            }
            Step::AddChain(name, hook) => self.add_chain(check(name)?, *hook),
            Step::FlushChain(name) => {
                self.message(message::DEL_RULE, 0);
                self.buffer.string(rule::CHAIN, check(name)?);
            }
            Step::AddRule(name, rule) => self.add_rule(check(name)?, rule)?,
            Step::DeleteChain(name) => {
                self.message(message::DEL_CHAIN, 0);
                self.buffer.string(chain::NAME, check(name)?);
            }
        }
        Ok(())
    }

    fn next_set_id(&mut self) -> u32 {
        self.set_id += 1;
        self.set_id
    }

    fn add_table(&mut self) {
        self.message(message::NEW_TABLE, netlink::CREATE);
        // Explicitly none: wakes a table that someone made dormant.
        self.buffer.u32(uapi::TABLE_FLAGS, 0);
    }

    fn add_chain(&mut self, name: &str, hook: Option<BaseHook>) {
        self.message(message::NEW_CHAIN, netlink::CREATE | netlink::EXCLUSIVE);
        self.buffer.string(chain::NAME, name);
        let Some(BaseHook { hook, priority }) = hook else { return };
        self.buffer.nest(chain::HOOK, |b| {
            b.u32(chain::HOOK_NUMBER, hook_number(hook));
            b.attribute(chain::HOOK_PRIORITY, &priority.to_be_bytes());
        });
        self.buffer.u32(chain::POLICY, chain::POLICY_ACCEPT);
        self.buffer.string(chain::TYPE, chain_type(hook));
    }

    fn add_rule(&mut self, chain: &str, rule: &Rule) -> Result<(), EncodeError> {
        let sets = anonymous_sets(rule, self.set_id + 1);
        for set in &sets {
            self.set_id = set.id;
            self.anonymous_set(set.id, set.types.iter().copied());
        }
        self.message(message::NEW_RULE, netlink::CREATE | netlink::APPEND);
        self.buffer.string(rule::CHAIN, chain);
        write_rule(&mut self.buffer, rule, &sets)
    }

    fn anonymous_set(&mut self, id: u32, types: impl Iterator<Item = u8>) {
        /// `icmpv6_type` as `nft` numbers it.
        const ICMPV6_TYPE: u32 = 29;
        self.message(message::NEW_SET, netlink::CREATE);
        self.buffer.string(set::NAME, ANONYMOUS_NAME);
        self.buffer.u32(set::FLAGS, set::ANONYMOUS | set::CONSTANT);
        self.buffer.u32(set::KEY_TYPE, ICMPV6_TYPE);
        self.buffer.u32(set::KEY_LENGTH, 1);
        self.buffer.u32(set::ID, id);
        self.message(message::NEW_ELEMENTS, netlink::CREATE);
        self.buffer.string(element::SET, ANONYMOUS_NAME);
        self.buffer.u32(element::SET_ID, id);
        self.buffer.nest(element::LIST, |b| {
            for kind in types {
                b.nest(LIST_ITEM, |b| {
                    b.nest(element::KEY, |b| b.attribute(data::VALUE, &[kind]));
                });
            }
        });
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        name: &str,
        spec: &SetSpec,
        elements: &[(Element, Option<Verdict>)],
    ) -> Result<(), EncodeError> {
        let mut rest = elements.iter().peekable();
        while rest.peek().is_some() {
            self.message(kind, flags);
            self.buffer.string(element::SET, name);
            let list = self.buffer.open_nest(element::LIST);
            while self.buffer.len() - list < ELEMENT_MESSAGE_BYTES {
                let Some((key, verdict)) = rest.next() else { break };
                // The kernel finds what to delete by key alone.
                let verdict = if kind == message::NEW_ELEMENTS { verdict.as_ref() } else { None };
                write_element(&mut self.buffer, spec, key, verdict)?;
            }
            self.buffer.close_nest(list);
        }
        Ok(())
    }
}

/// Type of a base chain at this hook.
pub(super) fn chain_type(hook: Hook) -> &'static str {
    if hook == Hook::Postrouting { "nat" } else { "filter" }
}

fn check(name: &str) -> Result<&str, EncodeError> {
    if name.is_empty() || name.len() > NAME_LENGTH || name.contains('\0') {
        return Err(EncodeError::BadName);
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
