//! Policy engine and nft writer of one node, wired together as the agent does it, and all objects
//! it was told, for the oracle.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent::kernel::nft::NftWriter;
use anyhow::{Context as _, Result, bail, ensure};
use policy::Engine;
use policy::event::{Event, Key, Kind, Object};
use policy::verdict::Cluster;
use serde::de::DeserializeOwned;

/// Kinds that the engine waits for.
pub const KINDS: [Kind; 4] = [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy];

/// Objects of a stream of YAML documents.
///
/// # Errors
/// A document is not an object of a kind that policy reads.
pub fn objects(yaml: &str) -> Result<Vec<Object>> {
    yaml.split("\n---\n").filter(|text| !text.trim().is_empty()).map(object).collect()
}

fn object(yaml: &str) -> Result<Object> {
    fn read<T: DeserializeOwned>(yaml: &str) -> Result<Box<T>> {
        serde_saphyr::from_str(yaml).map(Box::new).with_context(|| yaml.to_owned())
    }
    let kind = yaml.lines().find_map(|line| line.strip_prefix("kind: ")).context("no kind")?;
    Ok(match kind.trim() {
        "Node" => Object::Node(read(yaml)?),
        "Namespace" => Object::Namespace(read(yaml)?),
        "Pod" => Object::Pod(read(yaml)?),
        "NetworkPolicy" => Object::NetworkPolicy(read(yaml)?),
        other => bail!("kind {other} means nothing to policy"),
    })
}

/// Names an object.
#[must_use]
pub fn key(object: &Object) -> Key {
    let (kind, metadata) = match object {
        Object::Node(o) => (Kind::Node, &o.metadata),
        Object::Namespace(o) => (Kind::Namespace, &o.metadata),
        Object::Pod(o) => (Kind::Pod, &o.metadata),
        Object::NetworkPolicy(o) => (Kind::NetworkPolicy, &o.metadata),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Key { kind, namespace: text(&metadata.namespace), name: text(&metadata.name) }
}

/// See the module. Lives in the network namespace of the thread that makes it.
#[derive(Debug)]
pub struct PolicyNode {
    /// The engine.
    pub engine: Engine,
    /// The writer.
    pub writer: NftWriter,
    objects: BTreeMap<Key, Object>,
    interfaces: BTreeMap<IpAddr, String>,
}

impl PolicyNode {
    /// A node that has been told these objects, and behind which interfaces its pods are; it has
    /// adopted what the kernel holds and programmed the difference.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start(
        name: &str,
        objects: Vec<Object>,
        interfaces: BTreeMap<IpAddr, String>,
    ) -> Result<Self> {
        let mut node = Self {
            engine: Engine::new(name),
            writer: NftWriter::open()?,
            objects: BTreeMap::new(),
            interfaces,
        };
        KINDS.into_iter().for_each(|kind| drop(node.engine.handle(Event::RelistBegin(kind))));
        objects.into_iter().for_each(|object| node.tell(object));
        KINDS.into_iter().for_each(|kind| drop(node.engine.handle(Event::RelistEnd(kind))));
        for (address, interface) in node.interfaces.clone() {
            node.engine.handle(Event::Interface { address, interface: Some(interface) });
        }
        node.reconcile()?;
        Ok(node)
    }

    /// The same node with a new engine and a new socket, which know nothing but the same input.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn restart(self) -> Result<Self> {
        let name = self.engine.node_name().to_owned();
        Self::start(&name, self.objects.into_values().collect(), self.interfaces)
    }

    fn tell(&mut self, object: Object) {
        self.objects.insert(key(&object), object.clone());
        self.engine.handle(Event::Apply(object));
    }

    /// Applies objects and programs the difference.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&mut self, objects: Vec<Object>) -> Result<()> {
        objects.into_iter().for_each(|object| self.tell(object));
        self.program()
    }

    /// Deletes an object and programs the difference.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete(&mut self, key: &Key) -> Result<()> {
        ensure!(self.objects.remove(key).is_some(), "no {key}");
        self.engine.handle(Event::Delete(key.clone()));
        self.program()
    }

    /// Says behind which interface a local pod address is.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn interface(&mut self, address: IpAddr, interface: &str) -> Result<()> {
        self.interfaces.insert(address, interface.to_owned());
        let interface = Some(interface.to_owned());
        self.engine.handle(Event::Interface { address, interface });
        self.program()
    }

    /// Programs what differs from what the kernel has acknowledged.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn program(&mut self) -> Result<()> {
        self.program_counting().map(drop)
    }

    fn program_counting(&mut self) -> Result<usize> {
        let mut steps = 0;
        while let Some(transaction) = self.engine.poll_transaction() {
            steps += transaction.steps.len();
            let result = self.writer.apply(&transaction);
            self.engine.acknowledge(transaction.id, result.clone());
            result?;
        }
        Ok(steps)
    }

    /// Reads the kernel back and programs the difference, as after a restart or an alarm; returns
    /// how many steps it took.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reconcile(&mut self) -> Result<usize> {
        self.engine.settle();
        let observed = self.writer.readback(self.engine.desired())?;
        self.engine.adopt(observed);
        self.program_counting()
    }

    /// Keys of all policies there are.
    #[must_use]
    pub fn policies(&self) -> Vec<Key> {
        self.objects.keys().filter(|key| key.kind == Kind::NetworkPolicy).cloned().collect()
    }

    /// Everything the node was told, for the oracle.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        self.objects.values().cloned().collect()
    }
}
