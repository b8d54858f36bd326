//! The last state on disk: what the agent starts from while no API server answers.
//!
//! One file for each part of a kind, in a directory for each cluster. A file is text, so that a
//! person can look at it:
//!
//! ```text
//! rampart-snapshot 1
//! {"cluster":"0f3a...","part":"Pod","version":1234,"objects":2}
//! 1201 {"n":"shop","m":"web-0",...}
//! 1234 {"n":"shop","m":"web-1",...}
//! sha256 9d8c...
//! ```
//! It is replaced as a whole (written aside, synced, renamed), so it is never half of anything. One
//! that is not exactly what was written is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::known::Saved;

const MAGIC: &str = "rampart-snapshot 1";
/// Larger files are not ours.
const LARGEST: u64 = 1 << 30;

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is not a snapshot of this version of Rampart")]
    Foreign,
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    #[error("is of another cluster")]
    OtherCluster,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// resourceVersion of the state.
    pub(super) version: u64,
    /// Its objects.
    pub(super) objects: Vec<Saved>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    cluster: String,
    part: String,
    version: u64,
    objects: usize,
}

/// Where snapshots are kept, and of which cluster.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
    cluster: String,
}

impl Directory {
    /// `cluster` is what tells it from others; see [`super::client::Connection::cluster`].
    pub(super) fn new(path: PathBuf, cluster: String) -> Self {
        Self { path, cluster }
    }

    /// File of a part.
    pub(super) fn file(&self, part: &str) -> PathBuf {
        self.path.join(format!("{part}.snapshot"))
    }

    /// What was written last; `None` if nothing was.
    pub(super) fn read(&self, part: &str) -> Result<Option<Snapshot>, Refused> {
        let file = match File::open(self.file(part)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut octets = Vec::new();
        file.take(LARGEST).read_to_end(&mut octets)?;
        decode(&octets, &self.cluster, part).map(Some)
    }

    /// Replaces what was written last; returns the size in octets.
    pub(super) fn write(&self, part: &str, snapshot: &Snapshot) -> io::Result<u64> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let path = self.file(part);
        let unfinished = path.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        let mut writer = BufWriter::new(file);
        let size = encode(&mut writer, snapshot, &self.cluster, part)?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync_directory(&self.path)?;
        Ok(size)
    }

    /// Removes what was written last.
    pub(super) fn remove(&self, part: &str) -> io::Result<()> {
        match fs::remove_file(self.file(part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// A rename is on disk once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.hash.update(octets);
        self.size = self.size.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        self.inner.write_all(octets)
    }
}

/// Writes a snapshot; returns its size.
fn encode(to: impl Write, snapshot: &Snapshot, cluster: &str, part: &str) -> io::Result<u64> {
    let mut out = Hashing { inner: to, hash: Sha256::new(), size: 0 };
    let header = Header {
        cluster: cluster.to_owned(),
        part: part.to_owned(),
        version: snapshot.version,
        objects: snapshot.objects.len(),
    };
    let header = serde_json::to_string(&header).map_err(io::Error::other)?;
    out.put(format!("{MAGIC}\n{header}\n").as_bytes())?;
    for Saved { version, record } in &snapshot.objects {
        out.put(format!("{version} ").as_bytes())?;
        out.put(record)?;
        out.put(b"\n")?;
    }
    let Hashing { mut inner, hash, size } = out;
    let trailer = format!("sha256 {}\n", hexadecimal(&hash.finalize()));
    inner.write_all(trailer.as_bytes())?;
    inner.flush()?;
    Ok(size.saturating_add(u64::try_from(trailer.len()).unwrap_or_default()))
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Reads a snapshot. Whatever the octets: an answer, never a panic.
fn decode(octets: &[u8], cluster: &str, part: &str) -> Result<Snapshot, Refused> {
    if !octets.starts_with(MAGIC.as_bytes()) {
        return Err(Refused::Foreign);
    }
    let body = octets.strip_suffix(b"\n").ok_or(Refused::Damaged("its end is missing"))?;
    let last = body.iter().rposition(|octet| *octet == b'\n');
    let split = last.and_then(|at| octets.split_at_checked(at.saturating_add(1)));
    let (content, trailer) = split.ok_or(Refused::Damaged("its end is missing"))?;
    let expected = format!("sha256 {}\n", hexadecimal(&Sha256::digest(content)));
    if trailer != expected.as_bytes() {
        return Err(Refused::Damaged("the checksum does not hold"));
    }
    let mut lines = content.split(|octet| *octet == b'\n');
    if lines.next() != Some(MAGIC.as_bytes()) {
        return Err(Refused::Foreign);
    }
    let header: Header = lines
        .next()
        .and_then(|line| serde_json::from_slice(line).ok())
        .ok_or(Refused::Damaged("its header cannot be read"))?;
    if header.cluster != cluster {
        return Err(Refused::OtherCluster);
    }
    let mut objects = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        objects.push(saved(line).ok_or(Refused::Damaged("a line of it cannot be read"))?);
    }
    if header.objects != objects.len() || header.part != part {
        return Err(Refused::Damaged("it is not complete"));
    }
    Ok(Snapshot { version: header.version, objects })
}

fn saved(line: &[u8]) -> Option<Saved> {
    let space = line.iter().position(|octet| *octet == b' ')?;
    let (version, record) = line.split_at_checked(space)?;
    let version = std::str::from_utf8(version).ok()?.parse().ok()?;
    Some(Saved { version, record: Arc::from(record.get(1..)?) })
}

#[cfg(test)]
mod tests;
