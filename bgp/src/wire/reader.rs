//! A checked cursor: the only place that walks received bytes.

/// Reads big-endian fields; `None` means that the bytes ran out, and nothing was consumed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A cursor over `bytes`, the first of which is octet `offset` of the message.
    pub(crate) const fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }

    /// The body of `message`: what follows the fixed header.
    pub(crate) fn body(message: &'a [u8]) -> Self {
        Self::new(message.get(super::HEADER_LEN..).unwrap_or_default(), super::HEADER_LEN)
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        self.offset += N;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        self.offset += len;
        Some(head)
    }

    /// A cursor over the next `len` octets.
    pub(crate) fn sub(&mut self, len: usize) -> Option<Self> {
        let offset = self.offset;
        self.take(len).map(|bytes| Self::new(bytes, offset))
    }
}
