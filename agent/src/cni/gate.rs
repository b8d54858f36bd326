//! The attachments of this node: on disk, in the policy engine, and held back until the kernel has the
//! pod's policy.
//!
//! One task owns them and handles requests in their order, so that a DEL never overtakes the ADD before
//! it. The waiting is done by whoever asked, not by the task.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use api::cni::{Attachment, AttachmentId};
use api::error_code;
use nix::net::if_::if_nameindex;
use policy::event::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::store::Store;
use super::{name, plugin};
use crate::observe::problems::Complaint;
use crate::observe::{Area, Problems};
use crate::reconcile_policy::Message;

/// How often it is looked whether the interfaces are still there. An interface must be missing twice:
/// the plugin removes it just before it says so.
const LOOK: Duration = Duration::from_secs(30);

/// What the task is asked.
#[derive(Debug)]
enum Request {
    Add {
        attachment: Box<Attachment>,
        written: oneshot::Sender<io::Result<()>>,
        programmed: oneshot::Sender<u64>,
    },
    Del {
        id: AttachmentId,
        done: oneshot::Sender<io::Result<()>>,
    },
    Gc {
        network: String,
        valid: BTreeSet<AttachmentId>,
        done: oneshot::Sender<io::Result<Vec<Attachment>>>,
    },
    Restore(IpAddr),
    List(oneshot::Sender<Vec<Attachment>>),
}

/// Asks the task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(mpsc::Sender<Request>);

/// The task has ended; so does the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task of attachments has ended")]
pub struct Stopped;

/// An ADD that was taken in.
#[derive(Debug)]
pub struct Pending {
    /// The attachment is on disk, or why not.
    pub written: oneshot::Receiver<io::Result<()>>,
    /// The pod's policy is in the kernel, as of this generation.
    pub programmed: oneshot::Receiver<u64>,
}

impl Gate {
    async fn send(&self, request: Request) -> Result<(), Stopped> {
        self.0.send(request).await.map_err(|_| Stopped)
    }

    /// Takes an attachment in; it stays until it is deleted, whether or not anybody waits.
    ///
    /// # Errors
    /// The task has ended.
    pub async fn add(&self, attachment: Attachment) -> Result<Pending, Stopped> {
        let (written, on_disk) = oneshot::channel();
        let (programmed, in_kernel) = oneshot::channel();
        let attachment = Box::new(attachment);
        self.send(Request::Add { attachment, written, programmed }).await?;
        Ok(Pending { written: on_disk, programmed: in_kernel })
    }

    /// Forgets an attachment, known or not.
    ///
    /// # Errors
    /// The task has ended; or (inner) the disk does not take it.
    pub async fn del(&self, id: AttachmentId) -> Result<io::Result<()>, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Del { id, done }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Forgets all of a network but these; returns those forgotten.
    ///
    /// # Errors
    /// The task has ended; or (inner) the disk does not take it.
    pub async fn gc(
        &self,
        network: String,
        valid: BTreeSet<AttachmentId>,
    ) -> Result<io::Result<Vec<Attachment>>, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Gc { network, valid, done }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// The kernel does not route this address to a pod any more: if its pod still runs, somebody else
    /// has taken the route away or the link down, and both are put back.
    ///
    /// # Errors
    /// The task has ended.
    pub async fn restore(&self, address: IpAddr) -> Result<(), Stopped> {
        self.send(Request::Restore(address)).await
    }

    /// All attachments.
    ///
    /// # Errors
    /// The task has ended.
    pub async fn list(&self) -> Result<Vec<Attachment>, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(Request::List(done)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

/// The task.
#[derive(Debug)]
pub struct GateTask {
    attachments: BTreeMap<AttachmentId, Attachment>,
    /// Those whose interface was missing when it was looked for last.
    suspects: BTreeSet<AttachmentId>,
    store: Store,
    policy: mpsc::Sender<Message>,
    problems: Problems,
    inbox: mpsc::Receiver<Request>,
}

impl GateTask {
    /// Reads what is on disk and drops what is not there any more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(
        store: Store,
        policy: mpsc::Sender<Message>,
        problems: &Problems,
    ) -> io::Result<(Self, Gate)> {
        let (loaded, unreadable) = store.load()?;
        for file in unreadable {
            let subject = file.path.display().to_string();
            let complaint = Complaint::new(error_code::CNI_STATE_UNREADABLE, &subject, file.why);
            problems.raise(Area::Cni, format!("attachment {subject}"), complaint);
        }
        let interfaces = interfaces();
        let mut attachments = BTreeMap::new();
        for attachment in loaded {
            if is_gone(&attachment, interfaces.as_ref()) {
                info!(pod = %attachment.pod, interface = %attachment.interface, "attachment without interface dropped");
                store.remove(&attachment.id)?;
            } else {
                attachments.insert(attachment.id.clone(), attachment);
            }
        }
        // Full means that the disk is slow: runtimes wait with us.
        let (sender, inbox) = mpsc::channel(64);
        let problems = problems.clone();
        let task = Self { attachments, suspects: BTreeSet::new(), store, policy, problems, inbox };
        Ok((task, Gate(sender)))
    }

    /// What the policy engine is told before anything else.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.attachments.values().map(event).collect()
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = self.inbox.recv() => {
                    let Some(request) = request else { return };
                    self.handle(request).await;
                }
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn handle(&mut self, request: Request) {
        match request {
            Request::Add { attachment, written, programmed } => {
                let id = attachment.id.clone();
                debug!(pod = %attachment.pod, namespace = %attachment.namespace, container = %id.container_id, "attachment");
                let message = Message::Attach { event: event(&attachment), programmed };
                self.tell(message).await;
                self.attachments.insert(id, (*attachment).clone());
                let store = self.store.clone();
                let result = blocking(move || store.write(&attachment)).await;
                // Who does not wait any more calls DEL.
                written.send(result).ok();
            }
            Request::Del { id, done } => {
                done.send(self.forget(&id).await).ok();
            }
            Request::Gc { network, valid, done } => {
                let stale = self.attachments.values().filter(|attachment| {
                    attachment.network == network && !valid.contains(&attachment.id)
                });
                let stale: Vec<Attachment> = stale.cloned().collect();
                let mut result = Ok(());
                for attachment in &stale {
                    let forgotten = self.forget(&attachment.id).await;
                    result = result.and(forgotten);
                }
                done.send(result.map(|()| stale)).ok();
            }
            Request::Restore(address) => self.restore(address).await,
            Request::List(done) => {
                done.send(self.attachments.values().cloned().collect()).ok();
            }
        }
    }

    async fn forget(&mut self, id: &AttachmentId) -> io::Result<()> {
        if self.attachments.remove(id).is_some() {
            self.tell(Message::Detach { id: name::key(id) }).await;
        }
        let (store, id) = (self.store.clone(), id.clone());
        blocking(move || store.remove(&id)).await
    }

    async fn restore(&self, address: IpAddr) {
        let ours = |a: &&Attachment| {
            a.addresses.contains(&address) && name::is_host_interface(&a.interface)
        };
        let Some(attachment) = self.attachments.values().find(ours).cloned() else { return };
        let subject = format!("Pod {}/{}", attachment.namespace, attachment.pod);
        let interface = attachment.interface.clone();
        let restored = blocking(move || Ok(plugin::restore_host_side(&attachment))).await;
        match restored {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                let words = format!("{address} was not routed to {interface} any more");
                let complaint = Complaint::new(error_code::ROUTE_DRIFT, subject, words);
                self.problems.note(Area::Route, format!("pod {address}"), complaint);
            }
            Ok(Err(failure)) => {
                warn!(%address, error = failure.message, "route to a pod not restored");
            }
            Err(error) => warn!(%address, %error, "route to a pod not restored"),
        }
    }

    async fn tell(&self, message: Message) {
        if self.policy.send(message).await.is_err() {
            warn!("the policy task has ended");
        }
    }

    /// Drops attachments whose interface has gone without a DEL.
    async fn look(&mut self) {
        let interfaces = interfaces();
        let gone = self.attachments.values().filter(|a| is_gone(a, interfaces.as_ref()));
        let gone: BTreeSet<AttachmentId> = gone.map(|attachment| attachment.id.clone()).collect();
        let certain: Vec<AttachmentId> = gone.intersection(&self.suspects).cloned().collect();
        self.suspects = gone;
        for id in certain {
            if let Some(attachment) = self.attachments.get(&id) {
                let subject = format!("Pod {}/{}", attachment.namespace, attachment.pod);
                let words = format!("its interface {} is gone", attachment.interface);
                let complaint = Complaint::new(error_code::POD_INTERFACE_GONE, &subject, words);
                self.problems.note(Area::Cni, format!("interface {subject}"), complaint);
            }
            info!(container = %id.container_id, "attachment without interface dropped");
            if let Err(error) = self.forget(&id).await {
                warn!(%error, container = %id.container_id, "attachment cannot be removed from disk");
            }
        }
    }
}

/// Where waiting does no harm.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn event(attachment: &Attachment) -> Event {
    Event::Attachment {
        id: name::key(&attachment.id),
        namespace: attachment.namespace.clone(),
        name: attachment.pod.clone(),
        uid: attachment.uid.clone(),
        addresses: attachment.addresses.clone(),
        interface: attachment.interface.clone(),
    }
}

/// Names of all interfaces; `None` if the kernel does not tell.
fn interfaces() -> Option<BTreeSet<String>> {
    match if_nameindex() {
        Ok(list) => Some(list.iter().map(|i| i.name().to_string_lossy().into_owned()).collect()),
        Err(error) => {
            warn!(%error, "interfaces cannot be listed");
            None
        }
    }
}

/// Only for interfaces of our own making it is certain that they go with the pod.
fn is_gone(attachment: &Attachment, interfaces: Option<&BTreeSet<String>>) -> bool {
    name::is_host_interface(&attachment.interface)
        && interfaces.is_some_and(|interfaces| !interfaces.contains(&attachment.interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pod_whose_interface_is_gone_is_told_when_it_is_certain() {
        let state = std::env::temp_dir().join(format!("rampart-gate-{}", std::process::id()));
        let store = Store::open(&state).unwrap();
        let problems = Problems::default();
        let (policy, mut told) = mpsc::channel(8);
        let (mut task, _gate) = GateTask::new(store, policy, &problems).unwrap();
        let id = AttachmentId { container_id: "c1".to_owned(), ifname: "eth0".to_owned() };
        let attachment = Attachment {
            id: id.clone(),
            network: "rampart".to_owned(),
            interface: name::host_interface(&id),
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: String::new(),
            netns: String::new(),
            addresses: vec!["10.1.0.2".parse().unwrap(), "fd00:1::2".parse().unwrap()],
        };
        task.attachments.insert(id, attachment);
        let stands = || problems.stands(Area::Cni, "interface Pod shop/web");
        task.look().await;
        assert!(!stands() && task.attachments.len() == 1, "it may be the plugin's doing");
        task.look().await;
        assert!(stands() && task.attachments.is_empty());
        assert!(matches!(told.try_recv(), Ok(Message::Detach { .. })));
        std::fs::remove_dir_all(state).unwrap();
    }
}
