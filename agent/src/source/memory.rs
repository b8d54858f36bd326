//! The last good version of objects, across a restart of the agent.
//!
//! Without it a file that is broken while the agent starts would take its policies with it, and
//! open what they closed. For each file of the store one file in the run directory holds what was
//! in force of it: Nodes, NetworkPolicies, Secrets (nobody but root may read the files) and our own
//! kinds. (A pod or namespace that cannot be
//! read is not let in anywhere, so those need no memory.) It is read back as if it were the file's
//! former content. Wrong or missing memory costs the memory, nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher as _;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustc_hash::FxHasher;
use serde_json::{Value, json};
use tracing::warn;

use super::Object;

/// The directory of what is remembered.
#[derive(Debug)]
pub(super) struct Memory {
    directory: PathBuf,
    /// Hashes of what was written last.
    written: BTreeMap<PathBuf, u64>,
}

impl Memory {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, written: BTreeMap::new() }
    }

    /// What was in force of `file` when it was last written down.
    pub(super) fn recall(&self, file: &Path) -> Option<String> {
        let text = fs::read_to_string(self.path(file)).ok()?;
        let list: Value = serde_json::from_str(&text).ok()?;
        // Another file may have the same hash.
        (list.pointer("/metadata/file") == Some(&json!(file))).then_some(text)
    }

    /// Writes down what is in force of `file`. Failing costs the memory of this version.
    pub(super) fn remember<'a>(&mut self, file: &Path, objects: impl Iterator<Item = &'a Object>) {
        let items: Vec<Value> = objects.filter_map(item).collect();
        let path = self.path(file);
        let result = if items.is_empty() {
            self.written.remove(&path);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        } else {
            let metadata = json!({"file": file});
            let list =
                json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items});
            self.write(&path, &list.to_string())
        };
        if let Err(error) = result {
            warn!(file = %file.display(), %error, "last good version cannot be written down");
        }
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let hash = hash(text.as_bytes());
        if self.written.get(path) == Some(&hash) {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let unfinished = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        fs::rename(&unfinished, path)?;
        self.written.insert(path.to_owned(), hash);
        Ok(())
    }

    fn path(&self, file: &Path) -> PathBuf {
        let name = hash(file.as_os_str().as_encoded_bytes());
        self.directory.join(format!("{name:016x}.json"))
    }
}

fn hash(octets: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(octets);
    hasher.finish()
}

fn item(object: &Object) -> Option<Value> {
    let value = match object {
        Object::Node(o) => serde_json::to_value(o),
        Object::NetworkPolicy(o) => serde_json::to_value(o),
        Object::BgpConfiguration(o) => serde_json::to_value(o),
        Object::BgpPeer(o) => serde_json::to_value(o),
        Object::NetworkConfiguration(o) => serde_json::to_value(o),
        Object::Secret(o) => serde_json::to_value(o).map(|mut value| {
            if let Some(fields) = value.as_object_mut() {
                fields.insert("apiVersion".to_owned(), json!("v1"));
                fields.insert("kind".to_owned(), json!("Secret"));
            }
            value
        }),
        Object::Namespace(_) | Object::Pod(_) => return None,
    };
    value.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::manifest::{self, Manifest};
    use super::*;

    const TEXT: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {a: b}}
spec: {podCIDRs: [10.1.0.0/24]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {podSelector: {}, ingress: [{ports: [{port: http}, {port: 80}]}]}
---
apiVersion: rampart.network/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asn: 64513}
---
apiVersion: rampart.network/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {peerAddress: 192.0.2.9, peerASN: 65001, import: [{prefix: 10.0.0.0/8}]}
---
apiVersion: v1
kind: Secret
metadata: {name: rampart-bgp-passwords, namespace: rampart-system}
type: Opaque
data: {tor: aHVudGVyMg==}
stringData: {other: swordfish}
";

    fn objects(file: &Arc<Path>, text: &str) -> Vec<Object> {
        let good = |manifest| match manifest {
            Manifest::Good { object, .. } => object,
            Manifest::Bad { faults, .. } => panic!("{faults:?}"),
        };
        manifest::read(file, text).into_iter().map(good).collect()
    }

    #[test]
    fn what_is_remembered_reads_back_as_the_same_objects() {
        let directory = std::env::temp_dir().join(format!("rampart-memory-{}", std::process::id()));
        let file: Arc<Path> = Arc::from(Path::new("/store/a.yaml"));
        let mut memory = Memory::new(directory.clone());
        assert_eq!(memory.recall(&file), None);
        let read = objects(&file, TEXT);
        memory.remember(&file, read.iter());
        let recalled = objects(&file, &Memory::new(directory.clone()).recall(&file).unwrap());
        let kept: Vec<&Object> =
            read.iter().filter(|object| !matches!(object, Object::Namespace(_))).collect();
        assert_eq!(recalled.iter().collect::<Vec<_>>(), kept);
        memory.remember(&file, std::iter::empty());
        assert_eq!(memory.recall(&file), None);
        fs::remove_dir_all(directory).unwrap();
    }
}
