use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::Object;
use super::*;

/// A directory of its own, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("rampart-dir-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The watcher, and the namespaces (with their label `l`) and complaints that it has told.
struct Running {
    batches: mpsc::Receiver<Batch>,
    flushes: mpsc::Sender<Flush>,
    namespaces: BTreeMap<String, String>,
    rejections: BTreeMap<String, u16>,
    messages: Vec<(String, String)>,
    ended: Vec<Kind>,
}

impl Running {
    fn start(root: &Path) -> Self {
        let (sender, batches) = mpsc::channel(16);
        let (flushes, receiver) = mpsc::channel(16);
        tokio::spawn(Watcher::new(root.to_owned()).run(sender, receiver));
        Self {
            batches,
            flushes,
            namespaces: BTreeMap::new(),
            rejections: BTreeMap::new(),
            messages: Vec::new(),
            ended: Vec::new(),
        }
    }

    async fn batch(&mut self) {
        let batch = tokio::time::timeout(Duration::from_secs(10), self.batches.recv());
        let batch = batch.await.expect("a change is noticed").unwrap();
        for event in batch.events {
            match event {
                Event::Apply(Object::Namespace(namespace), _) => {
                    let labels = namespace.metadata.labels.unwrap_or_default();
                    let name = namespace.metadata.name.unwrap();
                    self.namespaces.insert(name, labels.get("l").cloned().unwrap_or_default());
                }
                Event::Delete(key) => drop(self.namespaces.remove(&key.name)),
                Event::Rejected(rejection) => {
                    self.rejections.insert(rejection.id.0, rejection.code.0);
                    self.messages.push((rejection.message, rejection.next));
                }
                Event::Resolved(id) => drop(self.rejections.remove(&id.0)),
                Event::RelistEnd(kind) => self.ended.push(kind),
                Event::RelistBegin(_) => {}
                Event::Apply(other, _) => panic!("{other:?}"),
            }
        }
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            tokio::time::timeout(Duration::from_secs(10), self.batch()).await.expect(what);
        }
    }

    fn told_empty(&self) -> bool {
        let last = self.messages.last();
        self.rejections.values().any(|code| *code == 1012)
            && last.is_some_and(|(message, _)| message == "the directory has no manifests")
    }

    fn names(&self) -> Vec<&str> {
        self.namespaces.keys().map(String::as_str).collect()
    }
}

fn namespace(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{l: '{label}'}}}}\n---\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listing_is_told_with_its_end_and_then_changes() {
    let dir = Temporary::new();
    fs::create_dir(dir.0.join("sub")).unwrap();
    dir.write("a.yaml", &namespace("a", "1"));
    dir.write("sub/b.yml", &namespace("b", "1"));
    dir.write("c.json", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"c"}}"#);
    for ignored in [".a.yaml.swp", "a.yaml~", "#a.yaml#", "4913", "notes.txt", ".h.yaml"] {
        dir.write(ignored, &namespace("ignored", "1"));
    }
    let mut running = Running::start(&dir.0);
    running.batch().await;
    assert_eq!(running.ended, Kind::ALL);
    assert_eq!(running.names(), ["a", "b", "c"]);
    assert!(running.rejections.is_empty());

    dir.write("a.yaml", &namespace("a", "2"));
    running.until("a write", |r| r.namespaces["a"] == "2").await;
    dir.write("sub/.tmp", &namespace("b", "2"));
    fs::rename(dir.0.join("sub/.tmp"), dir.0.join("sub/b.yml")).unwrap();
    running.until("an atomic rename", |r| r.namespaces["b"] == "2").await;
    fs::remove_file(dir.0.join("c.json")).unwrap();
    running.until("a deletion", |r| r.names() == ["a", "b"]).await;
    fs::create_dir(dir.0.join("new")).unwrap();
    dir.write("new/d.yaml", &namespace("d", "1"));
    running.until("a new subdirectory", |r| r.names() == ["a", "b", "d"]).await;
    fs::remove_dir_all(dir.0.join("sub")).unwrap();
    running.until("a removed subdirectory", |r| r.names() == ["a", "d"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_when_its_writer_closes_it() {
    use std::io::Write as _;
    let dir = Temporary::new();
    dir.write("none.yaml", "");
    let mut running = Running::start(&dir.0);
    running.batch().await;
    let mut file = fs::File::create(dir.0.join("a.yaml")).unwrap();
    file.write_all(namespace("a", "1").as_bytes()).unwrap();
    dir.write("b.yaml", &namespace("b", "1"));
    running.until("the other file", |r| !r.namespaces.is_empty()).await;
    assert_eq!(running.names(), ["b"], "half a file was read");
    file.write_all(namespace("c", "1").as_bytes()).unwrap();
    drop(file);
    running.until("the closed file", |r| r.names() == ["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_directory_keeps_everything_and_its_return_is_noticed() {
    let dir = Temporary::new();
    let store = dir.0.join("store");
    fs::create_dir(&store).unwrap();
    dir.write("store/a.yaml", &namespace("a", "1"));
    let mut running = Running::start(&store);
    running.batch().await;
    fs::rename(&store, dir.0.join("away")).unwrap();
    running.until("the loss", |r| r.rejections.values().any(|code| *code == 1012)).await;
    assert_eq!(running.names(), ["a"]);
    fs::create_dir(dir.0.join("next")).unwrap();
    dir.write("next/a.yaml", &namespace("a", "2"));
    fs::rename(dir.0.join("next"), &store).unwrap();
    running.until("the return", |r| r.rejections.is_empty() && r.namespaces["a"] == "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_in_sync_before_the_directory_exists() {
    let dir = Temporary::new();
    let store = dir.0.join("store");
    let mut running = Running::start(&store);
    running.batch().await;
    assert!(running.ended.is_empty() && running.rejections.len() == 1);
    fs::create_dir(&store).unwrap();
    running.until("the empty directory", |r| r.told_empty()).await;
    assert!(running.ended.is_empty() && running.rejections.len() == 1);
    dir.write("store/none.yaml", "");
    running.until("the directory", |r| r.ended.len() == Kind::ALL.len()).await;
    assert!(running.rejections.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_in_place_of_the_store_takes_nothing_with_it() {
    let dir = Temporary::new();
    let store = dir.0.join("store");
    fs::create_dir_all(store.join("sub")).unwrap();
    dir.write("store/a.yaml", &namespace("a", "1"));
    dir.write("store/sub/b.yaml", &namespace("b", "1"));
    let mut running = Running::start(&store);
    running.batch().await;
    // Subdirectories and other files do not make it a store.
    fs::create_dir_all(dir.0.join("empty/sub")).unwrap();
    dir.write("empty/lost+found", "");
    std::os::unix::fs::symlink("nowhere", dir.0.join("empty/link.yaml")).unwrap();
    fs::rename(&store, dir.0.join("away")).unwrap();
    fs::rename(dir.0.join("empty"), &store).unwrap();
    running.until("the loss", Running::told_empty).await;
    assert_eq!(running.names(), ["a", "b"]);
    assert!(running.messages.last().unwrap().1.contains("none.yaml"), "{:?}", running.messages);
    fs::rename(&store, dir.0.join("empty")).unwrap();
    fs::rename(dir.0.join("away"), &store).unwrap();
    running.until("the return", |r| r.rejections.is_empty()).await;
    assert_eq!(running.names(), ["a", "b"]);
    // One file without objects is enough to remove everything.
    fs::remove_dir_all(dir.0.join("empty")).unwrap();
    fs::create_dir(dir.0.join("empty")).unwrap();
    dir.write("empty/none.yaml", "");
    fs::rename(&store, dir.0.join("away")).unwrap();
    fs::rename(dir.0.join("empty"), &store).unwrap();
    running.until("the removal", |r| r.namespaces.is_empty()).await;
    running.until("no complaint", |r| r.rejections.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_deleted_one_by_one_but_not_the_last() {
    let dir = Temporary::new();
    dir.write("a.yaml", &namespace("a", "1"));
    dir.write("b.yaml", &namespace("b", "1"));
    let mut running = Running::start(&dir.0);
    running.batch().await;
    fs::remove_file(dir.0.join("a.yaml")).unwrap();
    running.until("a deletion", |r| r.names() == ["b"]).await;
    assert!(running.rejections.is_empty());
    fs::remove_file(dir.0.join("b.yaml")).unwrap();
    running.until("the loss", Running::told_empty).await;
    assert_eq!(running.names(), ["b"]);
    dir.write("none.yaml", "");
    running.until("the removal", |r| r.names().is_empty() && r.rejections.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_covers_every_write_that_ended_before_it() {
    let dir = Temporary::new();
    dir.write("none.yaml", "");
    let mut running = Running::start(&dir.0);
    running.batch().await;
    for number in 0..20 {
        dir.write("a.yaml", &namespace("a", &number.to_string()));
        let (sender, answer) = oneshot::channel();
        running.flushes.send(sender).await.unwrap();
        let generation = answer.await.unwrap();
        assert!(generation > 1);
        // All batches up to that generation are in the channel by now.
        while let Ok(batch) = running.batches.try_recv() {
            for event in batch.events {
                if let Event::Apply(Object::Namespace(namespace), _) = event {
                    let labels = namespace.metadata.labels.unwrap();
                    running.namespaces.insert("a".into(), labels["l"].clone());
                }
            }
        }
        assert_eq!(running.namespaces["a"], number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_swapped_behind_a_link_are_noticed() {
    // The way a ConfigMap is mounted: a.yaml -> ..data/a.yaml, ..data -> ..1.
    let dir = Temporary::new();
    for (version, label) in [("..1", "1"), ("..2", "2")] {
        fs::create_dir(dir.0.join(version)).unwrap();
        dir.write(&format!("{version}/a.yaml"), &namespace("a", label));
    }
    std::os::unix::fs::symlink("..1", dir.0.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", dir.0.join("a.yaml")).unwrap();
    let mut running = Running::start(&dir.0);
    running.batch().await;
    assert_eq!(running.namespaces["a"], "1");
    std::os::unix::fs::symlink("..2", dir.0.join("..tmp")).unwrap();
    fs::rename(dir.0.join("..tmp"), dir.0.join("..data")).unwrap();
    running.until("the swap", |r| r.namespaces["a"] == "2").await;
}
