//! host-local's directory: a file for each address, named by it, with the container id and the
//! interface name in it. host-local has no GC, so what a crash leaked is found and freed here, under
//! host-local's own lock.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use api::cni::AttachmentId;
use nix::fcntl::{Flock, FlockArg};

/// Where host-local keeps addresses unless told otherwise.
pub(crate) const DEFAULT_DIRECTORY: &str = "/var/lib/cni/networks";

/// Addresses of one network.
#[derive(Debug)]
pub(crate) struct Leases {
    directory: PathBuf,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease {
    /// Address.
    pub(crate) address: IpAddr,
    /// Container that has it.
    pub(crate) container_id: String,
    /// Interface that has it; empty in files of old versions.
    pub(crate) ifname: String,
}

impl Leases {
    /// Of this network. `data_dir` is the `ipam.dataDir` of the configuration.
    pub(crate) fn of(network: &str, data_dir: Option<&Path>) -> Self {
        let root = data_dir.unwrap_or(Path::new(DEFAULT_DIRECTORY));
        Self { directory: root.join(network) }
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let path = self.directory.join("lock");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// All addresses; none if there is no directory yet.
    pub(crate) fn list(&self) -> io::Result<Vec<Lease>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut leases = Vec::new();
        for entry in entries {
            let entry = entry?;
            // `lock` and `last_reserved_ip.N` are no addresses.
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let mut lines = text.lines().map(str::trim);
            let container_id = lines.next().unwrap_or_default().to_owned();
            let ifname = lines.next().unwrap_or_default().to_owned();
            leases.push(Lease { address, container_id, ifname });
        }
        leases.sort_unstable();
        Ok(leases)
    }

    /// Frees the addresses of one attachment.
    pub(crate) fn release(&self, id: &AttachmentId) -> io::Result<()> {
        self.free(|lease| has(id, lease)).map(drop)
    }

    /// Frees every address that no valid attachment has; returns what was freed.
    pub(crate) fn collect(&self, valid: &BTreeSet<AttachmentId>) -> io::Result<Vec<Lease>> {
        self.free(|lease| !valid.iter().any(|id| has(id, lease)))
    }

    fn free(&self, which: impl Fn(&Lease) -> bool) -> io::Result<Vec<Lease>> {
        if !self.directory.exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let mut freed = Vec::new();
        for lease in self.list()?.into_iter().filter(which) {
            match fs::remove_file(self.directory.join(lease.address.to_string())) {
                Ok(()) => freed.push(lease),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(freed)
    }
}

fn has(id: &AttachmentId, lease: &Lease) -> bool {
    id.container_id == lease.container_id && (lease.ifname.is_empty() || id.ifname == lease.ifname)
}
