//! What the kubelet's probes ask: is the agent ready, and does it still move?
//!
//! | path | says no while | never because of |
//! |---|---|---|
//! | `/healthz` | the policy task or the speaker thread does not answer | the API server, peers |
//! | `/readyz` | the input was not read, the table was not written, the plugin is not installed, our own peers had no chance yet | other nodes that are down, an API server that goes away later |

use std::time::Duration;

use bgp::config::PeerKind;
use bgp::view::{PeerView, SessionState};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::core::{Core, Ending};
use crate::reconcile::View;
use crate::reconcile_policy::Message;

/// Peers that somebody configured have so long to come up before the agent is ready without them.
const CHANCE: Duration = Duration::from_secs(5);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// An owner of state that does not answer for so long is stuck. The kubelet asks six times before it
/// does something about it.
const PATIENCE: Duration = Duration::from_secs(4);

/// Says so when all peers of BGPPeer objects are up, or have had `CHANCE`. Once only: a switch that
/// goes away later takes no node out of service.
pub async fn peers_had_their_chance(mut view: watch::Receiver<View>, done: watch::Sender<bool>) {
    let configured = view.wait_for(|view| view.speaker.is_some()).await;
    let Some(speaker) = configured.ok().and_then(|view| view.speaker.clone()) else { return };
    let deadline = Instant::now() + CHANCE;
    while Instant::now() < deadline {
        let Ok(peers) = speaker.peers().await else { return };
        if peers.iter().filter(|peer| peer.kind != PeerKind::Mesh).all(is_up) {
            break;
        }
        sleep(LOOK).await;
    }
    done.send_replace(true);
}

fn is_up(peer: &PeerView) -> bool {
    peer.state == SessionState::Established
}

impl Core {
    /// Why `/readyz` says no.
    pub(crate) fn unready(&self) -> Vec<String> {
        let mut reasons = self.not_ready();
        let network = self.parts().network.borrow();
        // What the table lacks was said before.
        if reasons.is_empty() && !network.ready {
            reasons.push(network.why_not.clone());
        }
        if reasons.is_empty() && !*self.parts().peers_asked.borrow() {
            reasons.push("peers of BGPPeer objects are being connected to".to_owned());
        }
        reasons
    }

    /// Who does not answer any more, and so keeps the agent from acting.
    pub(super) async fn stuck(&self) -> Option<&'static str> {
        if timeout(PATIENCE, self.policy_answers()).await.is_err() {
            return Some("the policy task");
        }
        let speaker = self.view().speaker;
        if let Some(speaker) = speaker
            && timeout(PATIENCE, speaker.summary()).await.is_err()
        {
            return Some("the speaker thread");
        }
        None
    }

    /// An owner that has ended is the watchdog's business.
    async fn policy_answers(&self) -> Result<(), Ending> {
        let (sender, answer) = oneshot::channel();
        self.parts().policy.send(Message::Count(sender)).await.map_err(|_| Ending)?;
        answer.await.map(drop).map_err(|_| Ending)
    }
}
