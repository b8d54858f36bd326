//! The encoded stream of an update group: one append-only log of chunks and a position per reader.
//!
//! A chunk lives until the last reader has passed it. Chunks are shared, never copied: handing one
//! to a thousand peers costs a thousand reference counts.
//!
//! Each chunk carries the generation of the Adj-RIB-Out changes it encodes. A reader that falls
//! too far behind leaves the log and remembers only the generation up to which it knows
//! everything; the rest is encoded for it from the Adj-RIB-Out when its socket takes bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::HEADER_LEN;

/// An open chunk of this size is closed.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// A place in a log: the number of the next chunk to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(u64);

/// Who caused a chunk, if one peer alone did and every prefix in it is new to the whole group.
/// That peer need not be sent its own routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing in it yet.
    #[default]
    Nobody,
    /// The session with this serial number.
    Session(u64),
    /// More than one, or not only new prefixes.
    Mixed,
}

impl Cause {
    /// Of two parts together.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, cause) | (cause, Self::Nobody) => cause,
            (a, b) if a == b => a,
            _ => Self::Mixed,
        }
    }
}

/// Whole messages.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    /// UPDATEs in it.
    pub(crate) messages: u64,
    cause: Cause,
    /// Changes of this generation and later ones are in this chunk and the ones after it.
    generation: u32,
    /// Readers whose position is here.
    readers: usize,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    chunks: VecDeque<Chunk>,
    /// Number of the first one in `chunks`.
    first: u64,
    /// The chunk being filled, always at whole messages between two calls.
    open: Vec<u8>,
    open_cause: Cause,
    /// Generation when the first octet came into `open`.
    open_generation: u32,
    open_readers: usize,
    /// Octets in `chunks` and `open`.
    bytes: usize,
    readers: usize,
    /// Stamped on changes that happen now.
    generation: u32,
}

impl Log {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            first: 0,
            open: Vec::new(),
            open_cause: Cause::Nobody,
            open_generation: 1,
            open_readers: 0,
            bytes: 0,
            readers: 0,
            generation: 1,
        }
    }

    /// Is anybody reading? If not, nothing need be encoded.
    pub(crate) const fn has_readers(&self) -> bool {
        self.readers > 0
    }

    /// Octets held.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The generation that is stamped on changes now.
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Starts a new generation; returns the last one.
    pub(crate) fn advance(&mut self) -> u32 {
        let last = self.generation;
        self.generation = last.saturating_add(1);
        last
    }

    /// Forgets all generations. The caller does the same with all that it remembers.
    pub(crate) fn renumber(&mut self) {
        for chunk in &mut self.chunks {
            chunk.generation = 1;
        }
        self.open_generation = 1;
        self.generation = 2;
    }

    /// Appends whole messages written by `write`.
    pub(crate) fn append(&mut self, cause: Cause, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.open.len();
        if before == 0 {
            self.open_generation = self.generation;
        }
        write(&mut self.open);
        let written = self.open.len() - before;
        if written == 0 {
            return;
        }
        self.bytes += written;
        self.open_cause = self.open_cause.and(cause);
        if self.open.len() >= CHUNK_BYTES {
            self.close();
        }
    }

    /// A new reader, at the end of what is there.
    pub(crate) fn join(&mut self) -> Position {
        self.close();
        self.readers += 1;
        self.open_readers += 1;
        self.end()
    }

    /// The reader at `position` is gone.
    pub(crate) fn leave(&mut self, position: Position) {
        self.readers = self.readers.saturating_sub(1);
        let readers = self.readers_at(position);
        *readers = readers.saturating_sub(1);
        self.forget();
    }

    /// Is there nothing for the reader at `position`?
    pub(crate) fn at_end(&self, position: Position) -> bool {
        position == self.end() && self.open.is_empty()
    }

    /// The next chunk for the reader of session `serial` at `position`, which moves on.
    pub(crate) fn next(&mut self, position: &mut Position, serial: u64) -> Option<(Bytes, u64)> {
        loop {
            if *position == self.end() {
                if self.open.is_empty() {
                    return None;
                }
                self.close();
            }
            let index = usize::try_from(position.0.checked_sub(self.first)?).ok()?;
            let chunk = self.chunks.get_mut(index)?;
            chunk.readers = chunk.readers.saturating_sub(1);
            let handed = (chunk.bytes.clone(), chunk.messages);
            let skip = chunk.cause == Cause::Session(serial);
            position.0 += 1;
            *self.readers_at(*position) += 1;
            self.forget();
            if !skip {
                return Some(handed);
            }
        }
    }

    /// The oldest position, if somebody is there and more than `limit` octets are held.
    pub(crate) fn overdue(&self, limit: usize) -> Option<Position> {
        (self.bytes > limit && !self.chunks.is_empty()).then_some(Position(self.first))
    }

    /// What a reader at `position` knows: everything of this generation and before.
    pub(crate) fn known(&self, position: Position) -> u32 {
        let index = position.0.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        let next = match index.and_then(|index| self.chunks.get(index)) {
            Some(chunk) => chunk.generation,
            None if self.open.is_empty() => self.generation,
            None => self.open_generation,
        };
        next.saturating_sub(1)
    }

    /// What the slowest reader knows.
    pub(crate) fn known_to_all(&self) -> u32 {
        if self.has_readers() { self.known(Position(self.first)) } else { u32::MAX }
    }

    fn end(&self) -> Position {
        Position(self.first + u64::try_from(self.chunks.len()).unwrap_or(u64::MAX))
    }

    fn readers_at(&mut self, position: Position) -> &mut usize {
        let index = position.0.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        match index.and_then(|index| self.chunks.get_mut(index)) {
            Some(chunk) => &mut chunk.readers,
            None => &mut self.open_readers,
        }
    }

    /// Closes the open chunk, so that it can be shared.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.open);
        self.chunks.push_back(Chunk {
            messages: count_messages(&bytes),
            bytes: Bytes::from(bytes),
            cause: std::mem::take(&mut self.open_cause),
            generation: self.open_generation,
            readers: std::mem::take(&mut self.open_readers),
        });
        self.advance();
        self.forget();
    }

    /// Drops what everybody has read.
    fn forget(&mut self) {
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.readers == 0) {
            self.bytes -= chunk.bytes.len();
            self.first += 1;
        }
        if self.readers == 0 && !self.open.is_empty() {
            self.bytes -= self.open.len();
            self.open.clear();
            self.open_cause = Cause::Nobody;
        }
    }
}

/// Messages in a run of whole messages.
pub(crate) fn count_messages(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Some([high, low]) = bytes.get(16..HEADER_LEN - 1) {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        match bytes.get(len..) {
            Some(rest) if len >= HEADER_LEN => bytes = rest,
            _ => break,
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(log: &mut Log, cause: Cause) {
        log.append(cause, crate::wire::encode::keepalive);
    }

    #[test]
    fn a_chunk_is_shared_and_lives_until_the_last_reader_has_it() {
        let mut log = Log::new();
        let (mut a, mut b) = (log.join(), log.join());
        message(&mut log, Cause::Mixed);
        let (first, messages) = log.next(&mut a, 1).unwrap();
        assert_eq!((messages, log.bytes()), (1, first.len()));
        let (second, _) = log.next(&mut b, 2).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(log.bytes(), 0);
        assert!(log.at_end(a) && log.next(&mut b, 2).is_none());
    }

    #[test]
    fn a_reader_that_leaves_frees_what_it_held() {
        let mut log = Log::new();
        let (mut a, b) = (log.join(), log.join());
        for _ in 0..5 {
            message(&mut log, Cause::Mixed);
            assert!(log.next(&mut a, 1).is_some());
        }
        assert_eq!(log.bytes(), 5 * 19);
        log.leave(b);
        assert_eq!(log.bytes(), 0);
        message(&mut log, Cause::Mixed);
        log.leave(a);
        assert_eq!((log.bytes(), log.has_readers()), (0, false));
    }

    #[test]
    fn a_session_skips_a_chunk_that_it_caused_alone() {
        let mut log = Log::new();
        let (mut a, mut b) = (log.join(), log.join());
        message(&mut log, Cause::Session(1));
        assert_eq!(log.next(&mut a, 1), None);
        assert!(log.next(&mut b, 2).is_some());
        message(&mut log, Cause::Session(1));
        message(&mut log, Cause::Session(2));
        assert_eq!(log.next(&mut a, 1).unwrap().1, 2);
        assert_eq!(log.next(&mut b, 2).unwrap().1, 2);
    }

    #[test]
    fn an_overdue_reader_knows_the_generation_it_has_read() {
        let mut log = Log::new();
        let (mut a, b) = (log.join(), log.join());
        message(&mut log, Cause::Mixed); // generation 1
        assert!(log.next(&mut a, 1).is_some());
        message(&mut log, Cause::Mixed); // generation 2
        assert_eq!((log.known(b), log.known(a)), (0, 1));
        assert_eq!(log.overdue(100), None);
        assert_eq!(log.overdue(10), Some(b));
        assert!(log.next(&mut a, 1).is_some());
        assert_eq!(log.known(a), log.generation() - 1);
    }
}
