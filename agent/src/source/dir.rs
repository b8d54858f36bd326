//! The directory of manifests as a source: read once, then followed with inotify.
//!
//! Files `*.yaml`, `*.yml`, `*.json` in the directory and in its subdirectories, one level deep.
//! Names that start with a dot or end with `~` are editors' business. Files are read when their
//! writer closes them or renames them into place, never while they are being written.
//!
//! A directory without a single manifest is what is left when a mount is not there (yet). It counts
//! as absent, not as the deletion of everything: that would open every pod.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustc_hash::FxHashMap;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, warn};

use super::memory::Memory;
use super::store::{Content, Outage, Store};
use super::{Event, Kind};

/// A burst of changes is over when nothing happened for so long.
const QUIET: Duration = Duration::from_millis(10);
/// A burst that does not end is read after so long anyway.
const LONGEST: Duration = Duration::from_millis(100);
/// How often a directory that has vanished is looked for.
const RETRY: Duration = Duration::from_millis(500);
/// Larger files are refused: they are a mistake, or an attack on our memory.
const LARGEST_FILE: u64 = 64 << 20;

/// Changes that were read together.
#[derive(Debug)]
pub struct Batch {
    /// Number of this batch, from 1.
    pub generation: u64,
    /// In order.
    pub events: Vec<Event>,
}

/// Asks the watcher to read what has changed by now; answered with the generation, after its batch
/// was handed over.
pub type Flush = oneshot::Sender<u64>;

/// Follows a directory.
#[derive(Debug)]
pub struct Watcher {
    root: PathBuf,
    store: Store,
    memory: Option<Memory>,
    notify: Option<Notify>,
    listed: bool,
    generation: u64,
}

impl Watcher {
    /// Nothing is read before [`Watcher::run`].
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let store = Store::default();
        Self { root, store, memory: None, notify: None, listed: false, generation: 0 }
    }

    /// Keeps the last good version of objects in `directory`, for the next start.
    #[must_use]
    pub fn with_memory(self, directory: PathBuf) -> Self {
        Self { memory: Some(Memory::new(directory)), ..self }
    }

    /// Reads and follows until the receiver of batches is gone. A full channel of batches makes
    /// the source wait: nothing is lost, the kernel queues the events.
    pub async fn run(mut self, batches: mpsc::Sender<Batch>, mut flushes: mpsc::Receiver<Flush>) {
        let mut waiting: Vec<Flush> = Vec::new();
        loop {
            let dirty = if waiting.is_empty() {
                self.wait(&mut flushes, &mut waiting).await
            } else {
                self.pending()
            };
            let events = tokio::task::block_in_place(|| self.absorb(dirty));
            if !events.is_empty() {
                self.generation = self.generation.saturating_add(1);
                let batch = Batch { generation: self.generation, events };
                if batches.send(batch).await.is_err() {
                    return;
                }
            }
            for flush in waiting.drain(..) {
                if flush.send(self.generation).is_err() {
                    debug!("nobody waits for the flush any more");
                }
            }
        }
    }

    /// Waits for a burst of changes to end, or for someone who asks for a flush.
    async fn wait(
        &mut self,
        flushes: &mut mpsc::Receiver<Flush>,
        waiting: &mut Vec<Flush>,
    ) -> Dirty {
        if self.generation == 0 {
            return Dirty::all();
        }
        let Some(notify) = &mut self.notify else {
            tokio::select! {
                () = sleep_until(Instant::now() + RETRY) => {}
                flush = flushes.recv() => waiting.extend(flush),
            }
            return Dirty::all();
        };
        let mut dirty = Dirty::default();
        tokio::select! {
            () = notify.next(&mut dirty) => {}
            flush = flushes.recv() => {
                waiting.extend(flush);
                notify.drain(&mut dirty);
                return dirty;
            }
        }
        let deadline = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            tokio::select! {
                flush = flushes.recv() => {
                    waiting.extend(flush);
                    notify.drain(&mut dirty);
                    return dirty;
                }
                more = timeout_at(quiet, notify.next(&mut dirty)) => {
                    if more.is_err() || Instant::now() >= deadline {
                        return dirty;
                    }
                }
            }
        }
    }

    fn pending(&mut self) -> Dirty {
        let mut dirty = Dirty::default();
        match &mut self.notify {
            Some(notify) => notify.drain(&mut dirty),
            None => dirty.all = true,
        }
        dirty
    }

    /// Reads what is dirty and works out the difference.
    fn absorb(&mut self, dirty: Dirty) -> Vec<Event> {
        if let Err(outage) = self.follow(dirty) {
            // What was read stays; a watch on what is no longer there is of no use.
            self.notify = None;
            self.store.outage(&self.root, Some(&outage));
            if !self.listed {
                return self.store.changes();
            }
        }
        let mut events = self.store.changes();
        if !self.listed && self.notify.is_some() {
            self.listed = true;
            events.splice(0..0, Kind::ALL.into_iter().map(Event::RelistBegin));
            events.extend(Kind::ALL.into_iter().map(Event::RelistEnd));
        }
        events
    }

    fn follow(&mut self, mut dirty: Dirty) -> Result<(), Outage> {
        let metadata = std::fs::metadata(&self.root)?;
        let identity = (metadata.dev(), metadata.ino());
        if self.notify.as_ref().is_none_or(|n| n.identity != identity) || dirty.lost {
            self.notify = Some(Notify::new(&self.root, identity)?);
            dirty.all = true;
        }
        // From here on a change that we miss below is queued for the next round.
        if dirty.all {
            self.scan()?;
        } else {
            // The last manifests may have gone.
            if !dirty.files.iter().all(|path| is_present(path)) && !has_manifests(&self.root)? {
                return Err(Outage::Empty);
            }
            for path in dirty.files {
                self.read(&path);
            }
        }
        self.store.outage(&self.root, None);
        Ok(())
    }

    /// Lists everything, and reads it.
    fn scan(&mut self) -> Result<(), Outage> {
        let mut files = BTreeSet::new();
        let mut unreadable = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let path = entry?.path();
            if hidden(path.file_name()) {
                continue;
            }
            if !path.is_dir() {
                files.extend((is_manifest(&path) && is_present(&path)).then_some(path));
                continue;
            }
            let listed = self.list_subdirectory(&path, &mut files);
            let outage = listed.err().map(Outage::from);
            self.store.outage(&path, outage.as_ref());
            unreadable.extend(outage.map(|_| path));
        }
        if files.is_empty() {
            return Err(Outage::Empty);
        }
        let gone: Vec<Arc<Path>> = self
            .store
            .files()
            .filter(|file| !files.contains(file.as_ref()))
            .filter(|file| !unreadable.iter().any(|directory| file.starts_with(directory)))
            .cloned()
            .collect();
        for file in gone {
            self.read(&file);
        }
        for file in files {
            self.read(&file);
        }
        Ok(())
    }

    fn read(&mut self, path: &Path) {
        let file: Arc<Path> = Arc::from(path);
        let content = content(&file);
        if matches!(content, Content::Missing) && !self.is_watched() {
            // Not the file has gone, but the directory that it was in.
            return;
        }
        if let Some(memory) = &self.memory
            && !self.listed
            && self.store.is_new(&file)
            && !matches!(content, Content::Missing)
            && let Some(former) = memory.recall(&file)
        {
            self.store.read(&file, Content::Text(former));
        }
        self.store.read(&file, content);
        if let Some(memory) = &mut self.memory {
            memory.remember(&file, self.store.in_force(&file));
        }
    }

    /// Whether the directory is still the one that was opened.
    fn is_watched(&self) -> bool {
        let now = std::fs::metadata(&self.root).map(|now| (now.dev(), now.ino()));
        self.notify.as_ref().is_some_and(|n| now.is_ok_and(|now| now == n.identity))
    }

    fn list_subdirectory(&mut self, path: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        if let Some(notify) = &mut self.notify {
            notify.watch(path)?;
        }
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            if is_manifest(&path) && is_present(&path) {
                files.insert(path);
            }
        }
        Ok(())
    }
}

/// What has to be read again.
#[derive(Debug, Default)]
struct Dirty {
    files: BTreeSet<PathBuf>,
    /// Everything.
    all: bool,
    /// The watch itself, too.
    lost: bool,
}

impl Dirty {
    fn all() -> Self {
        Self { all: true, ..Self::default() }
    }
}

/// The inotify instance and what it watches.
struct Notify {
    fd: AsyncFd<Inotify>,
    directories: FxHashMap<WatchDescriptor, PathBuf>,
    root: WatchDescriptor,
    /// Device and inode of the directory that is watched.
    identity: (u64, u64),
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notify").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl Notify {
    fn new(root: &Path, identity: (u64, u64)) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watch = inotify.watches().add(root, MASK)?;
        let fd = register(inotify)?;
        let directories = FxHashMap::from_iter([(watch.clone(), root.to_owned())]);
        Ok(Self { fd, directories, root: watch, identity })
    }

    fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let watch = self.fd.get_ref().watches().add(directory, MASK)?;
        self.directories.insert(watch, directory.to_owned());
        Ok(())
    }

    /// Waits until there is something to read again. Cancel-safe: what was taken from the kernel
    /// is in `dirty`.
    async fn next(&mut self, dirty: &mut Dirty) {
        loop {
            let Ok(mut guard) = self.fd.readable_mut().await else {
                dirty.lost = true;
                return;
            };
            let read = guard.try_io(|fd| read_events(fd.get_mut()));
            match read {
                Ok(Ok(events)) => {
                    if self.sort(events, dirty) {
                        return;
                    }
                }
                Ok(Err(error)) => {
                    warn!(%error, "inotify cannot be read");
                    dirty.lost = true;
                    return;
                }
                // Not readable after all: wait again.
                Err(_) => {}
            }
        }
    }

    /// Takes what is queued by now.
    fn drain(&mut self, dirty: &mut Dirty) {
        while let Ok(events) = read_events(self.fd.get_mut()) {
            if events.is_empty() {
                return;
            }
            self.sort(events, dirty);
        }
    }

    /// Whether any of the events matters.
    fn sort(&self, events: Vec<Change>, dirty: &mut Dirty) -> bool {
        let mut matters = false;
        for event in events {
            matters |= self.sort_one(&event, dirty);
        }
        matters
    }

    fn sort_one(&self, event: &Change, dirty: &mut Dirty) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            dirty.lost = true;
            return true;
        }
        let ends = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED;
        if event.mask.intersects(ends) {
            dirty.all = true;
            dirty.lost |= event.watch == self.root;
            return true;
        }
        let Some(directory) = self.directories.get(&event.watch) else { return false };
        let Some(name) = &event.name else {
            // The mode of the directory itself changed.
            dirty.all = true;
            return true;
        };
        let path = directory.join(name);
        if event.mask.contains(EventMask::ISDIR) {
            let matters = event.watch == self.root && !hidden(Some(name));
            dirty.all |= matters;
            return matters;
        }
        // `..data` is how Kubernetes swaps all files of a mounted ConfigMap at once.
        if name.as_encoded_bytes().starts_with(b"..") {
            dirty.all = true;
            return true;
        }
        if !is_manifest(&path) {
            return false;
        }
        // A new regular file is read when its writer closes it; a link is complete at once.
        let unfinished = event.mask.contains(EventMask::CREATE)
            && std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.nlink() == 1);
        if unfinished {
            return false;
        }
        dirty.files.insert(path);
        true
    }
}

/// Not `MODIFY`: a file that is being written is not read before its writer closes it.
const MASK: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; Inotify owns its descriptor until it is dropped"
)]
fn register(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

struct Change {
    watch: WatchDescriptor,
    mask: EventMask,
    name: Option<OsString>,
}

/// What is queued, up to one buffer; empty = nothing.
fn read_events(inotify: &mut Inotify) -> io::Result<Vec<Change>> {
    let mut buffer = [0_u8; 16 << 10];
    let events = inotify.read_events(&mut buffer)?;
    Ok(events
        .map(|event| Change {
            watch: event.wd,
            mask: event.mask,
            name: event.name.map(OsStr::to_owned),
        })
        .collect())
}

fn hidden(name: Option<&OsStr>) -> bool {
    name.is_none_or(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b".") || name.starts_with(b"#") || name.ends_with(b"~")
    })
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden(path.file_name()) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Not a directory, and not a link that leads nowhere.
fn is_present(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(metadata) => !metadata.is_dir(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether there is a manifest in the directory or in one of its subdirectories.
fn has_manifests(root: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if hidden(path.file_name()) {
            continue;
        }
        if !path.is_dir() {
            if is_manifest(&path) && is_present(&path) {
                return Ok(true);
            }
            continue;
        }
        // What cannot be listed has an outage of its own.
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        if entries.flatten().map(|e| e.path()).any(|path| is_manifest(&path) && is_present(&path)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn content(path: &Path) -> Content {
    match read_file(path) {
        Ok(text) => Content::Text(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Missing,
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(io::Error::other(format!("larger than {LARGEST_FILE} octets")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests;
