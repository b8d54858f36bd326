//! Netlink messages and attributes: writing them into one buffer, and reading them without copying.

use super::uapi::{self, netlink};

/// A growing run of netlink messages.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where the open message starts.
    open: Option<usize>,
    /// Some attribute did not fit its 16-bit length field.
    oversized: bool,
}

impl Buffer {
    /// Everything written so far, with the last message closed.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether an attribute was longer than netlink can say; the buffer is useless then.
    pub(super) fn oversized(&self) -> bool {
        self.oversized
    }

    /// Starts a message: netlink header and nfgenmsg. `resource` is zero but for batch limits.
    pub(super) fn raw(&mut self, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) {
        self.close();
        self.open = Some(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(netlink::REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
    }

    /// Starts an nf_tables message about our family.
    pub(super) fn message(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.raw((uapi::SUBSYSTEM << 8) | kind, flags, sequence, uapi::FAMILY_INET, 0);
    }

    /// Adds header flags to the open message.
    pub(super) fn add_flags(&mut self, flags: u16) {
        let Some(at) = self.open.map(|start| start + 6) else { return };
        if let Some([low, high]) = self.bytes.get_mut(at..at + 2) {
            [*low, *high] = (u16::from_ne_bytes([*low, *high]) | flags).to_ne_bytes();
        }
    }

    fn close(&mut self) {
        let Some(start) = self.open.take() else { return };
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.oversized = true,
        }
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(slot) = self.bytes.get_mut(at..at + value.len()) {
            slot.copy_from_slice(value);
        }
    }

    fn header(&mut self, kind: u16, data_length: usize) {
        let length = u16::try_from(netlink::ATTRIBUTE_HEADER + data_length).unwrap_or_else(|_| {
            self.oversized = true;
            0
        });
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        // Message starts are aligned, so alignment of the buffer is alignment of the attribute.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn attribute(&mut self, kind: u16, data: &[u8]) {
        self.header(kind, data.len());
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A NUL-terminated string.
    pub(super) fn string(&mut self, kind: u16, value: &str) {
        self.header(kind, value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// An attribute that holds the attributes which `fill` writes.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.open_nest(kind);
        fill(self);
        self.close_nest(at);
    }

    /// Starts a nest by hand, for callers that watch its size.
    pub(super) fn open_nest(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.header(kind | netlink::NESTED, 0);
        at
    }

    pub(super) fn close_nest(&mut self, at: usize) {
        match u16::try_from(self.bytes.len() - at) {
            Ok(length) => self.patch(at, &length.to_ne_bytes()),
            Err(_) => self.oversized = true,
        }
    }
}

/// One netlink message as received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    /// What follows the netlink header.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Attributes after the nfgenmsg of an nf_tables message.
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }

    /// Type inside the nf_tables subsystem, if it is of that.
    pub(super) fn nftables_kind(&self) -> Option<u16> {
        (self.kind >> 8 == uapi::SUBSYSTEM).then_some(self.kind & 0xff)
    }
}

/// Splits a datagram into messages; stops at the first that does not fit.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(ne_u32(self.0, 0)?).ok()?;
        let message = Message {
            kind: ne_u16(self.0, 4)?,
            flags: ne_u16(self.0, 6)?,
            sequence: ne_u32(self.0, 8)?,
            port: ne_u32(self.0, 12)?,
            payload: self.0.get(netlink::HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// Attributes of a message or nest; stops at the first that does not fit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Data of the first attribute of this type.
    pub(super) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|a| a.kind == kind).map(|a| a.data)
    }

    /// Content of the first nest of this type; empty if there is none.
    pub(super) fn nest(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn string(self, kind: u16) -> Option<&'a str> {
        text(self.find(kind)?)
    }
}

/// A string up to its NUL, if it is UTF-8.
pub(super) fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data.split(|&b| b == 0).next()?).ok()
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = Attribute<'a>;
    type IntoIter = AttributeIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        AttributeIter(self.0)
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    /// Type without flag bits.
    pub(super) kind: u16,
    /// Whether the writer marked it as a nest (the kernel does not always).
    pub(super) nested: bool,
    pub(super) data: &'a [u8],
}

/// See [`Attributes`].
#[derive(Clone, Debug)]
pub(super) struct AttributeIter<'a>(&'a [u8]);

impl<'a> Iterator for AttributeIter<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(ne_u16(self.0, 0)?);
        let kind = ne_u16(self.0, 2)?;
        let data = self.0.get(netlink::ATTRIBUTE_HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute {
            kind: kind & netlink::TYPE_MASK,
            nested: kind & netlink::NESTED != 0,
            data,
        })
    }
}

fn ne_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Reads a host-endian `u32`.
pub(super) fn ne_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
