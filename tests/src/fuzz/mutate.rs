//! Structure-aware mutation of BGP byte streams.
//!
//! A stream is taken apart (messages, fields of an UPDATE, attributes), one to six mutations hit
//! the parts, and it is put together again, in nine of ten cases with all lengths right: with
//! wrong ones nearly every input would die at its header.

/// A small, fast, deterministic generator (SplitMix64): the same seed gives the same run on every
/// machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that starts from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % n).unwrap_or_default()
    }

    /// One octet.
    pub fn octet(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Octets at which codecs tend to stumble.
const EDGES: [u8; 12] = [0, 1, 2, 3, 4, 16, 32, 33, 64, 127, 128, 255];
/// Attribute codes worth trying: all that we know, and some that we do not.
const CODES: [u8; 24] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 23, 25, 29, 32, 35, 40, 128, 255];
const FLAGS: [u8; 8] = [0x40, 0x80, 0xc0, 0xe0, 0x00, 0x50, 0xd0, 0x4f];
const UPDATE: u8 = 2;
const HEADER_LEN: usize = 19;

#[derive(Clone, Debug, Default)]
struct Stream {
    settings: u8,
    messages: Vec<Part>,
    /// Bytes that are no whole message.
    tail: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Part {
    Update { withdrawn: Vec<u8>, attributes: Vec<Attribute>, nlri: Vec<u8> },
    Other { kind: u8, body: Vec<u8> },
}

#[derive(Clone, Debug, Default)]
struct Attribute {
    flags: u8,
    code: u8,
    value: Vec<u8>,
}

/// A mutation of `input`; `other` is a second input to take parts from.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut stream = Stream::parse(input);
    let donor = Stream::parse(other);
    for _ in 0..=random.below(6) {
        stream.mutate(&donor, random);
    }
    let repaired = random.below(10) != 0;
    stream.assemble(if repaired { None } else { Some(random) })
}

impl Stream {
    fn parse(input: &[u8]) -> Self {
        let Some((settings, mut rest)) = input.split_first() else { return Self::default() };
        let mut messages = Vec::new();
        while let Some((message, after)) = split_message(rest) {
            messages.push(Part::parse(message));
            rest = after;
        }
        Self { settings: *settings, messages, tail: rest.to_vec() }
    }

    fn mutate(&mut self, donor: &Self, random: &mut Random) {
        match random.below(24) {
            0 => self.settings ^= 1 << random.below(7),
            1 => {
                let at = random.below(self.messages.len() + 1);
                if let Some(message) = pick(&donor.messages, random) {
                    // Long streams only cost time.
                    self.messages.truncate(3);
                    self.messages.insert(at.min(self.messages.len()), message.clone());
                }
            }
            2 if self.messages.len() > 1 => {
                let at = random.below(self.messages.len());
                self.messages.remove(at);
            }
            3 => mutate_octets(&mut self.tail, random),
            _ => {
                let at = random.below(self.messages.len());
                if let Some(message) = self.messages.get_mut(at) {
                    message.mutate(donor, random);
                }
            }
        }
    }

    /// With `random`, one length field of each message is wrong.
    fn assemble(&self, mut random: Option<&mut Random>) -> Vec<u8> {
        let mut out = vec![self.settings];
        for message in &self.messages {
            let start = out.len();
            message.write(&mut out, random.as_deref_mut());
            if let Some(random) = random.as_deref_mut()
                && random.below(3) == 0
                && let Some(field) = out.get_mut(start + 16..start + 18)
            {
                field.fill_with(|| random.octet());
            }
        }
        out.extend_from_slice(&self.tail);
        out
    }
}

fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(u16::from_be_bytes(*bytes.get(16..18)?.first_chunk()?));
    if len < HEADER_LEN { None } else { bytes.split_at_checked(len) }
}

impl Part {
    fn parse(message: &[u8]) -> Self {
        let kind = message.get(18).copied().unwrap_or_default();
        let body = message.get(HEADER_LEN..).unwrap_or_default();
        match (kind, parse_update(body)) {
            (UPDATE, Some(update)) => update,
            _ => Self::Other { kind, body: body.to_vec() },
        }
    }

    fn mutate(&mut self, donor: &Stream, random: &mut Random) {
        match self {
            Self::Other { kind, body } => {
                if random.below(40) == 0 {
                    *kind = random.octet() % 8;
                } else {
                    mutate_octets(body, random);
                }
            }
            Self::Update { withdrawn, attributes, nlri } => match random.below(8) {
                0 => mutate_octets(withdrawn, random),
                1 => mutate_octets(nlri, random),
                _ => mutate_attributes(attributes, donor, random),
            },
        }
    }

    fn write(&self, out: &mut Vec<u8>, random: Option<&mut Random>) {
        let start = out.len();
        out.extend_from_slice(&[0xff; 16]);
        match self {
            Self::Other { kind, body } => {
                out.extend_from_slice(&[0, 0, *kind]);
                out.extend_from_slice(body);
            }
            Self::Update { withdrawn, attributes, nlri } => {
                out.extend_from_slice(&[0, 0, UPDATE]);
                let mut list = Vec::new();
                for attribute in attributes {
                    attribute.write(&mut list);
                }
                let mut lengths = [length(withdrawn.len()), length(list.len())];
                if let Some(random) = random
                    && let Some([_, low]) = lengths.get_mut(random.below(2))
                {
                    *low = random.octet();
                }
                let [withdrawn_len, list_len] = lengths;
                out.extend_from_slice(&withdrawn_len);
                out.extend_from_slice(withdrawn);
                out.extend_from_slice(&list_len);
                out.extend_from_slice(&list);
                out.extend_from_slice(nlri);
            }
        }
        let len = length(out.len() - start);
        if let Some(field) = out.get_mut(start + 16..start + 18) {
            field.copy_from_slice(&len);
        }
    }
}

fn parse_update(body: &[u8]) -> Option<Part> {
    let (withdrawn, rest) = counted(body)?;
    let (mut list, nlri) = counted(rest)?;
    let mut attributes = Vec::new();
    while let Some((attribute, rest)) = Attribute::parse(list) {
        attributes.push(attribute);
        list = rest;
    }
    Some(Part::Update { withdrawn: withdrawn.to_vec(), attributes, nlri: nlri.to_vec() })
}

/// A field behind its 2-octet length, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

impl Attribute {
    fn parse(list: &[u8]) -> Option<(Self, &[u8])> {
        let ([flags, code], rest) = list.split_first_chunk()?;
        let (value, rest) = if flags & 0x10 != 0 {
            counted(rest)?
        } else {
            let (len, rest) = rest.split_first()?;
            rest.split_at_checked(usize::from(*len))?
        };
        Some((Self { flags: *flags, code: *code, value: value.to_vec() }, rest))
    }

    fn write(&self, out: &mut Vec<u8>) {
        match u8::try_from(self.value.len()) {
            Ok(len) if self.flags & 0x10 == 0 => {
                out.extend_from_slice(&[self.flags, self.code, len]);
            }
            _ => {
                out.extend_from_slice(&[self.flags | 0x10, self.code]);
                out.extend_from_slice(&length(self.value.len()));
            }
        }
        out.extend_from_slice(&self.value);
    }
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn mutate_attributes(attributes: &mut Vec<Attribute>, donor: &Stream, random: &mut Random) {
    let at = random.below(attributes.len());
    match random.below(12) {
        0 if !attributes.is_empty() => {
            attributes.remove(at);
        }
        1 => {
            if let Some(attribute) = attributes.get(at).cloned() {
                attributes.push(attribute);
            }
        }
        2 => {
            let donors: Vec<_> = donor.messages.iter().flat_map(attributes_of).collect();
            if let Some(attribute) = pick(&donors, random) {
                attributes.insert(at, (*attribute).clone());
            }
        }
        3 => {
            let other = random.below(attributes.len());
            if at < attributes.len() && other < attributes.len() {
                attributes.swap(at, other);
            }
        }
        4 => {
            let value = (0..random.below(24)).map(|_| random.octet()).collect();
            let (flags, code) = (one_of(&FLAGS, random), one_of(&CODES, random));
            attributes.push(Attribute { flags, code, value });
        }
        choice => {
            if let Some(attribute) = attributes.get_mut(at) {
                match choice {
                    5 => attribute.flags = one_of(&FLAGS, random),
                    6 => attribute.code = one_of(&CODES, random),
                    _ => mutate_octets(&mut attribute.value, random),
                }
            }
        }
    }
}

fn attributes_of(part: &Part) -> &[Attribute] {
    match part {
        Part::Update { attributes, .. } => attributes,
        Part::Other { .. } => &[],
    }
}

fn mutate_octets(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.octet();
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = one_of(&EDGES, random);
            }
        }
        3 => bytes.truncate(at),
        4 => {
            let end = (at + 1 + random.below(8)).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
        5 => {
            let end = (at + 1 + random.below(16)).min(bytes.len());
            let copy = bytes.get(at..end).unwrap_or_default().to_vec();
            // Now and then far beyond 255 and 4096 octets.
            let times = if random.below(64) == 0 { random.below(512) } else { 1 };
            bytes.extend(copy.repeat(times));
            bytes.truncate(60_000);
        }
        _ => {
            let octet = if random.below(2) == 0 { random.octet() } else { one_of(&EDGES, random) };
            bytes.insert(at, octet);
        }
    }
}

fn pick<'a, T>(items: &'a [T], random: &mut Random) -> Option<&'a T> {
    items.get(random.below(items.len()))
}

fn one_of(octets: &[u8], random: &mut Random) -> u8 {
    pick(octets, random).copied().unwrap_or_default()
}
