//! A tar.gz, written as it is made: a bundle of a large cluster does not fit in memory twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use crate::failure::{Exit, Failure};

/// The file that is being written.
pub(super) struct Archive {
    path: PathBuf,
    /// Directory that all is in.
    root: String,
    time: u64,
    builder: Builder<GzEncoder<File>>,
}

impl Archive {
    /// Starts one; only its owner can read it. A file that is there is not overwritten.
    pub(super) fn create(path: &Path, root: &str, time: jiff::Timestamp) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            root: root.to_owned(),
            time: u64::try_from(time.as_second()).unwrap_or_default(),
            builder: Builder::new(GzEncoder::new(file, Compression::default())),
        })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let mut header = Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(self.time);
        let name = format!("{}/{name}", self.root);
        self.builder
            .append_data(&mut header, name, content)
            .map_err(|error| failed(&self.path, &error))
    }

    /// Ends it; its size in octets.
    pub(super) fn finish(self) -> Result<u64, Failure> {
        let Self { path, builder, .. } = self;
        let finish = || builder.into_inner()?.finish()?.metadata();
        finish().map(|metadata| metadata.len()).map_err(|error| failed(&path, &error))
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let next =
        if error.kind() == io::ErrorKind::AlreadyExists { "name another file with -o" } else { "" };
    Failure::plain(Exit::Negative, format!("cannot write {}", path.display()), next)
        .because(error.to_string())
}
