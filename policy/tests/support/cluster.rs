//! Objects for tests, from YAML, and an engine with a simulated kernel.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use policy::event::{Event, Key, Kind, Object};
use policy::fault::Fault;
use policy::nft::ir::Table;
use policy::{Engine, nft};

use super::kernel::Kernel;

pub(crate) const KINDS: [Kind; 4] = [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy];

/// Objects of a stream of YAML documents.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let documents = yaml.split("\n---\n").filter(|text| !text.trim().is_empty());
    documents.map(object).collect()
}

pub(crate) fn object(yaml: &str) -> Object {
    let kind = yaml
        .lines()
        .find_map(|line| line.trim().strip_prefix("kind: "))
        .unwrap_or_else(|| panic!("no kind in {yaml}"));
    fn read<T: serde::de::DeserializeOwned>(yaml: &str) -> Box<T> {
        Box::new(serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")))
    }
    match kind.trim() {
        "Node" => Object::Node(read::<Node>(yaml)),
        "Namespace" => Object::Namespace(read::<Namespace>(yaml)),
        "Pod" => Object::Pod(read::<Pod>(yaml)),
        "NetworkPolicy" => Object::NetworkPolicy(read::<NetworkPolicy>(yaml)),
        other => panic!("kind {other}"),
    }
}

pub(crate) fn key(object: &Object) -> Key {
    let (kind, metadata) = match object {
        Object::Node(o) => (Kind::Node, &o.metadata),
        Object::Namespace(o) => (Kind::Namespace, &o.metadata),
        Object::Pod(o) => (Kind::Pod, &o.metadata),
        Object::NetworkPolicy(o) => (Kind::NetworkPolicy, &o.metadata),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Key { kind, namespace: text(&metadata.namespace), name: text(&metadata.name) }
}

/// An engine that has listed everything (nothing so far) and its kernel.
#[derive(Debug)]
pub(crate) struct Node1 {
    pub(crate) engine: Engine,
    pub(crate) kernel: Kernel,
    pub(crate) transactions: usize,
}

impl Node1 {
    pub(crate) fn new(node: &str) -> Self {
        let mut this =
            Self { engine: Engine::new(node), kernel: Kernel::default(), transactions: 0 };
        for kind in KINDS {
            this.engine.handle(Event::RelistBegin(kind));
            this.engine.handle(Event::RelistEnd(kind));
        }
        this
    }

    pub(crate) fn with(node: &str, yaml: &str) -> Self {
        let mut this = Self::new(node);
        this.apply(yaml);
        this
    }

    /// Applies objects, then programs the kernel; returns the faults.
    pub(crate) fn apply(&mut self, yaml: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for object in objects(yaml) {
            faults.extend(self.engine.handle(Event::Apply(object)));
        }
        self.program();
        faults
    }

    pub(crate) fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        self.engine.handle(Event::Delete(key));
        self.program();
    }

    /// Everything there is to send; each transaction must be taken, and end in what is desired.
    pub(crate) fn program(&mut self) {
        while let Some(transaction) = self.engine.poll_transaction() {
            self.transactions += 1;
            let result = self.kernel.apply(&transaction);
            assert_eq!(result, Ok(()), "{transaction:#?}");
            self.engine.acknowledge(transaction.id, result);
        }
        assert_eq!(self.table(), self.engine.desired());
        assert_eq!(self.engine.programmed_generation(), self.engine.generation());
    }

    pub(crate) fn table(&self) -> &Table {
        self.kernel.table.as_ref().expect("table")
    }

    pub(crate) fn script(&self) -> String {
        nft::text::script(self.table())
    }
}
