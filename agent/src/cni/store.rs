//! Attachments on disk: one file each in `STATE/attachments/`, so that an agent that starts without an
//! API server still knows which addresses its pods have.
//!
//! A file is complete or not there (written under another name, synced, renamed), and is written before
//! the ADD that it is about is answered.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use api::cni::{Attachment, AttachmentId};
use api::constant::ATTACHMENTS_DIR;

use super::name;

/// The directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// A file that is no attachment.
#[derive(Debug)]
pub struct Unreadable {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl Store {
    /// Opens the directory in the agent's state directory, makes it if need be.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join(ATTACHMENTS_DIR);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// All attachments, and the files that are none. What a killed agent left half written is removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(&self) -> io::Result<(Vec<Attachment>, Vec<Unreadable>)> {
        let (mut attachments, mut unreadable) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {}
                Some("new") => {
                    fs::remove_file(&path)?;
                    continue;
                }
                _ => continue,
            }
            match read(&path) {
                Ok(attachment) if path.ends_with(name::file(&attachment.id)) => {
                    attachments.push(attachment);
                }
                Ok(_) => unreadable.push(Unreadable {
                    path,
                    why: "its name is not that of its content".to_owned(),
                }),
                Err(error) => unreadable.push(Unreadable { path, why: error.to_string() }),
            }
        }
        attachments.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((attachments, unreadable))
    }

    /// Writes one, durably.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn write(&self, attachment: &Attachment) -> io::Result<()> {
        let path = self.directory.join(name::file(&attachment.id));
        let hidden = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&hidden)?;
        file.write_all(&serde_json::to_vec(attachment)?)?;
        file.sync_all()?;
        fs::rename(&hidden, &path)?;
        self.sync()
    }

    /// Removes one; one that is not there is no error.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn remove(&self, id: &AttachmentId) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name::file(id))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            // One that comes back after a crash is dropped when its interface is looked for.
            Ok(()) => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Attachment> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str) -> Attachment {
        Attachment {
            id: AttachmentId { container_id: container.to_owned(), ifname: "eth0".to_owned() },
            network: "rampart".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: "u".to_owned(),
            addresses: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            interface: "rv0123456789ab".to_owned(),
            netns: "/run/netns/x".to_owned(),
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_what_is_damaged_is_told() {
        let state = std::env::temp_dir().join(format!("rampart-store-{}", std::process::id()));
        let store = Store::open(&state).unwrap();
        let (a, b) = (attachment("a"), attachment("b"));
        store.write(&a).unwrap();
        store.write(&b).unwrap();
        store.write(&b).unwrap();
        let directory = state.join(ATTACHMENTS_DIR);
        fs::write(directory.join("x.json"), "{").unwrap();
        fs::write(directory.join("half.new"), "{").unwrap();
        fs::copy(directory.join(name::file(&a.id)), directory.join("copy.json")).unwrap();
        let (loaded, unreadable) = Store::open(&state).unwrap().load().unwrap();
        assert_eq!(loaded, [a.clone(), b.clone()]);
        assert_eq!(unreadable.len(), 2, "{unreadable:?}");
        assert!(!directory.join("half.new").exists());
        store.remove(&a.id).unwrap();
        store.remove(&a.id).unwrap();
        assert_eq!(store.load().unwrap().0, [b]);
        fs::remove_dir_all(&state).unwrap();
    }
}
