//! TCP MD5 signatures (RFC 2385), as far as a speaker cares: whether a session may be held at all.
//! The signing is the kernel's; the driver hands it the key.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest key that kernels take, in octets.
pub const LONGEST_KEY: usize = 80;

/// Whether the segments of a session are signed.
///
/// Written down it is a [`Word`]: a key is neither shown nor written anywhere, so what is read back
/// where a key was is [`Md5::Unknown`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Word", into = "Word")]
pub enum Md5 {
    /// They are not.
    #[default]
    Off,
    /// With this key, both ways.
    Key(Md5Key),
    /// They have to be, and the key is not known (yet): there is no session, in either direction.
    Unknown,
}

impl Md5 {
    /// The key, if there is one.
    #[must_use]
    pub const fn key(&self) -> Option<&Md5Key> {
        match self {
            Self::Key(key) => Some(key),
            Self::Off | Self::Unknown => None,
        }
    }
}

/// What is shown of [`Md5`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// See [`Md5::Off`].
    #[default]
    Off,
    /// See [`Md5::Key`].
    Key,
    /// See [`Md5::Unknown`].
    Unknown,
}

impl From<&Md5> for Word {
    fn from(md5: &Md5) -> Self {
        match md5 {
            Md5::Off => Self::Off,
            Md5::Key(_) => Self::Key,
            Md5::Unknown => Self::Unknown,
        }
    }
}

impl From<Md5> for Word {
    fn from(md5: Md5) -> Self {
        Self::from(&md5)
    }
}

impl From<Word> for Md5 {
    fn from(word: Word) -> Self {
        match word {
            Word::Off => Self::Off,
            Word::Key | Word::Unknown => Self::Unknown,
        }
    }
}

/// A key: 1 to [`LONGEST_KEY`] octets. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Key(Arc<[u8]>);

/// Why octets are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// There are too many.
    #[error("it has {0} octets, TCP MD5 takes {LONGEST_KEY} at most")]
    TooLong(usize),
}

impl Md5Key {
    /// A key of these octets.
    ///
    /// # Errors
    /// There are none, or more than [`LONGEST_KEY`].
    pub fn new(octets: &[u8]) -> Result<Self, KeyError> {
        match octets.len() {
            0 => Err(KeyError::Empty),
            length if length > LONGEST_KEY => Err(KeyError::TooLong(length)),
            _ => Ok(Self(Arc::from(octets))),
        }
    }

    /// For the kernel, and for nobody else.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_neither_shown_nor_written_down() {
        let md5 = Md5::Key(Md5Key::new(b"open-sesame").unwrap());
        assert_eq!(format!("{md5:?}"), "Key(Md5Key(not shown))");
        assert_eq!(Word::from(&md5), Word::Key);
        assert_eq!(Md5::from(Word::from(md5)), Md5::Unknown);
    }

    #[test]
    fn a_key_has_1_to_80_octets() {
        assert_eq!(Md5Key::new(b""), Err(KeyError::Empty));
        assert!(Md5Key::new(&[0; 80]).is_ok());
        assert_eq!(Md5Key::new(&[7; 81]), Err(KeyError::TooLong(81)));
    }
}
