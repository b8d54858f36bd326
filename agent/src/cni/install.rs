//! Puts the plugin and the network list on the node, and keeps them there.
//!
//! The list is written when the agent can serve an ADD, never before: to the kubelet it means that the
//! node has a network. From then on it stays, also while the agent is down; an ADD waits meanwhile. Both
//! files are replaced by renaming, and only when they differ. What others put in the same directories is
//! left alone; a list that a runtime would take instead of ours is complained about.

mod files;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::agent_args::AgentArgs;
use api::constant::{CNI_CONFLIST, SOCKET_NAME};
use api::error_code;
use inotify::{Inotify, WatchMask};
use ipnet::IpNet;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::conflist::Conflist;
use super::uplink;
use crate::observe::problems::Complaint;
use crate::observe::{Area, Problems};
use crate::overlay::overhead;
use crate::reconcile::View;
use crate::reconcile_policy::Progress;
use files::{Change, Memory, Shadow};

/// What nobody tells (MTU, directories that come back) is looked at so often.
const LOOK: Duration = Duration::from_secs(10);
/// Someone else's installer that fights with ours gets this much of our time.
const SETTLE: Duration = Duration::from_millis(50);

/// Can the node have pods?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The policy table is written, and (where the agent installs the plugin) plugin and list are in
    /// place.
    pub ready: bool,
    /// One line, while it is not.
    pub why_not: String,
}

/// Where to install.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) bin: PathBuf,
    pub(super) conf: PathBuf,
}

/// What the list follows from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inputs {
    programmed: bool,
    pod_cidrs: Vec<IpNet>,
    addresses: Vec<IpAddr>,
    known: bool,
    /// MTU of pods, if NetworkConfiguration says so.
    mtu: Option<u32>,
    /// What an overlay takes from the uplink's.
    overhead: u32,
}

/// The task.
#[derive(Debug)]
pub struct Installer {
    node: String,
    places: Option<Places>,
    socket: PathBuf,
    state_dir: PathBuf,
    view: watch::Receiver<View>,
    progress: watch::Receiver<Progress>,
    problems: Problems,
    ready: watch::Sender<NodeNetwork>,
    memory: Memory,
}

impl Installer {
    /// As the flags say; without directories it installs nothing and only tells when the node is ready.
    #[must_use]
    pub fn new(
        args: &AgentArgs,
        view: watch::Receiver<View>,
        progress: watch::Receiver<Progress>,
        problems: Problems,
    ) -> (Self, watch::Receiver<NodeNetwork>) {
        let (ready, receiver) = watch::channel(NodeNetwork::default());
        let places = args.cni_bin_dir.clone().zip(args.cni_conf_dir.clone());
        let task = Self {
            node: args.node_name.clone(),
            places: places.map(|(bin, conf)| Places { bin, conf }),
            socket: args.run_dir.join(SOCKET_NAME),
            state_dir: args.state_dir.clone(),
            view,
            progress,
            problems,
            ready,
            memory: Memory::default(),
        };
        (task, receiver)
    }

    /// Runs until the agent ends.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut notify = None;
        loop {
            if notify.is_none()
                && let Some(places) = &self.places
            {
                notify = listen(places);
            }
            let inputs = self.inputs();
            self.round(&inputs).await;
            loop {
                tokio::select! {
                    changed = self.view.changed() => if changed.is_err() { return },
                    changed = self.progress.changed() => if changed.is_err() { return },
                    gone = touched(&mut notify) => {
                        if gone {
                            notify = None;
                        }
                        break;
                    }
                    _ = look.tick() => break,
                }
                if self.inputs() != inputs {
                    break;
                }
            }
        }
    }

    fn inputs(&mut self) -> Inputs {
        let programmed = self.progress.borrow_and_update().programmed;
        let view = self.view.borrow_and_update();
        let own = view.nodes.iter().find(|node| node.name == self.node);
        let desired = view.desired.as_deref();
        let overlay = desired.and_then(|desired| desired.overlay.as_ref());
        Inputs {
            programmed,
            known: own.is_some(),
            mtu: desired.and_then(|desired| desired.network.mtu).map(u32::from),
            overhead: overlay.map_or(0, |plan| overhead(plan.local)),
            pod_cidrs: own.map(|node| node.pod_cidrs.clone()).unwrap_or_default(),
            addresses: own.map(|node| node.addresses.clone()).unwrap_or_default(),
        }
    }

    async fn round(&mut self, inputs: &Inputs) {
        let why_not = match self.places.clone() {
            None if inputs.programmed => None,
            None => Some("the policy table was not written yet".to_owned()),
            Some(places) => self.install(&places, inputs).await.err(),
        };
        let new = NodeNetwork { ready: why_not.is_none(), why_not: why_not.unwrap_or_default() };
        self.ready.send_if_modified(|old| {
            let changed = *old != new;
            if changed {
                info!(ready = new.ready, why_not = new.why_not, "node network");
                *old = new;
            }
            changed
        });
    }

    async fn install(&mut self, places: &Places, inputs: &Inputs) -> Result<(), String> {
        let lacks_cidr = inputs.known && inputs.pod_cidrs.is_empty();
        self.say("no pod CIDR", lacks_cidr, || {
            let message = "it has no podCIDRs, so its pods get no addresses";
            Complaint::new(error_code::CNI_NO_POD_CIDR, format!("Node {}", self.node), message)
        });
        let work = (places.clone(), inputs.addresses.clone(), self.memory);
        let surveyed = tokio::task::spawn_blocking(move || {
            let (places, addresses, mut memory) = work;
            let plugin = files::install_plugin(&places.bin, &mut memory);
            let survey = files::survey(&places, &mut memory);
            (plugin, survey, uplink::mtu(&addresses), memory)
        });
        let Ok((plugin, survey, mtu, memory)) = surveyed.await else {
            return Err("the installer was interrupted".to_owned());
        };
        self.memory = memory;
        self.say("plugins", !survey.missing.is_empty(), || {
            let message =
                format!("{} missing in {}", survey.missing.join(", "), places.bin.display());
            Complaint::new(error_code::CNI_PLUGIN_MISSING, "CNI plugins", message)
        });
        self.complain_of_shadow(survey.shadow.as_ref());
        self.report(plugin, "plugin")?;
        let mtu = mtu.unwrap_or_else(|error| {
            warn!(%error, "the uplink's MTU cannot be read");
            None
        });
        let (mtu, too_large) = pod_mtu(inputs.mtu, mtu, inputs.overhead);
        self.say("mtu", too_large.is_some(), || {
            let message = too_large.unwrap_or_default();
            Complaint::new(error_code::MTU_MISMATCH, "NetworkConfiguration default", message)
        });
        if !inputs.programmed {
            return Err("the policy table was not written yet".to_owned());
        }
        if inputs.pod_cidrs.is_empty() {
            return Err(format!("Node {} has no podCIDRs", self.node));
        }
        if survey.missing.iter().any(|name| name == "host-local") {
            return Err(format!("host-local is missing in {}", places.bin.display()));
        }
        let list = Conflist {
            pod_cidrs: inputs.pod_cidrs.clone(),
            mtu,
            socket: self.socket.clone(),
            state_dir: self.state_dir.clone(),
            portmap: survey.portmap,
            recent: survey.recent,
        };
        let path = places.conf.join(CNI_CONFLIST);
        let written = tokio::task::spawn_blocking(move || {
            files::replace(&path, list.render().as_bytes(), 0o644)
        });
        let Ok(written) = written.await else {
            return Err("the installer was interrupted".to_owned());
        };
        self.report(written, "network list")
    }

    fn report(&self, result: std::io::Result<Change>, what: &str) -> Result<(), String> {
        let message = match &result {
            Ok(Change::Written) => {
                info!(what, "installed");
                None
            }
            Ok(Change::None) => None,
            Err(error) => Some(format!("cannot install the {what}: {error}")),
        };
        self.say(what, message.is_some(), || {
            let message = message.clone().unwrap_or_default();
            Complaint::new(error_code::CNI_INSTALL_FAILED, "CNI", message)
        });
        message.map_or(Ok(()), Err)
    }

    fn complain_of_shadow(&self, shadow: Option<&Shadow>) {
        self.say("foreign list", shadow.is_some(), || {
            let path = shadow.map(|shadow| shadow.path.display().to_string()).unwrap_or_default();
            let message =
                format!("runtimes take {path} instead of {CNI_CONFLIST}: it sorts before it");
            Complaint::new(error_code::CNI_SHADOWED, "CNI network list", message).at(path)
        });
    }

    fn say(&self, id: &str, wrong: bool, complaint: impl FnOnce() -> Complaint) {
        if wrong {
            self.problems.raise(Area::Cni, id, complaint());
        } else {
            self.problems.resolve(Area::Cni, id);
        }
    }
}

fn listen(places: &Places) -> Option<AsyncFd<Inotify>> {
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    let open = || {
        let inotify = Inotify::init()?;
        inotify.watches().add(&places.bin, mask)?;
        inotify.watches().add(&places.conf, mask)?;
        register(inotify)
    };
    match open() {
        Ok(notify) => Some(notify),
        Err(error) => {
            // The next round says what is wrong with the directories; until then there is the clock.
            warn!(%error, "the CNI directories cannot be watched");
            None
        }
    }
}

#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; Inotify owns its descriptor until it is dropped"
)]
fn register(inotify: Inotify) -> std::io::Result<AsyncFd<Inotify>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

/// Waits until something happens in the directories; true if one of them has gone. Cancel-safe: nothing
/// is taken from the kernel before there is something.
async fn touched(notify: &mut Option<AsyncFd<Inotify>>) -> bool {
    let Some(notify) = notify else { return std::future::pending().await };
    match notify.readable_mut().await {
        // Before it is emptied: what comes later makes it ready again.
        Ok(mut guard) => guard.clear_ready(),
        Err(_) => return true,
    }
    tokio::time::sleep(SETTLE).await;
    let mut gone = false;
    let mut buffer = [0_u8; 8 << 10];
    while let Ok(events) = notify.get_mut().read_events(&mut buffer) {
        let mut any = false;
        for event in events {
            any = true;
            gone |= event.mask.intersects(
                inotify::EventMask::DELETE_SELF
                    | inotify::EventMask::MOVE_SELF
                    | inotify::EventMask::IGNORED
                    | inotify::EventMask::UNMOUNT,
            );
        }
        if !any {
            break;
        }
    }
    gone
}

/// MTU of new pods: what somebody chose, but no more than fits into the uplink with what the overlay
/// adds; and what is wrong with the choice. Larger packets would be lost without a word.
fn pod_mtu(
    chosen: Option<u32>,
    uplink: Option<u32>,
    overhead: u32,
) -> (Option<u32>, Option<String>) {
    let fits = uplink.map(|uplink| uplink.saturating_sub(overhead));
    match (chosen, uplink, fits) {
        (Some(chosen), Some(uplink), Some(fits)) if chosen > fits => {
            let less = match overhead {
                0 => String::new(),
                octets => format!(", of which the overlay takes {octets}"),
            };
            let message = format!(
                "spec.mtu: {chosen} does not fit the uplink of this node, which has {uplink}{less}; \
                 new pods get {fits}"
            );
            (Some(fits), Some(message))
        }
        _ => (chosen.or(fits), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_never_get_a_larger_mtu_than_the_uplink_carries() {
        assert_eq!(pod_mtu(None, Some(1500), 50), (Some(1450), None));
        assert_eq!(pod_mtu(Some(1400), Some(1500), 50), (Some(1400), None));
        assert_eq!(pod_mtu(Some(1450), Some(1500), 50), (Some(1450), None));
        assert_eq!(pod_mtu(Some(9000), None, 50), (Some(9000), None), "nothing to compare with");
        let (mtu, told) = pod_mtu(Some(1500), Some(1500), 70);
        assert_eq!(mtu, Some(1430));
        assert!(told.is_some_and(|told| told.contains("the overlay takes 70")));
        let (mtu, told) = pod_mtu(Some(9000), Some(1500), 0);
        assert_eq!(mtu, Some(1500));
        assert!(told.is_some_and(|told| !told.contains("overlay") && told.contains("9000")));
    }
}
