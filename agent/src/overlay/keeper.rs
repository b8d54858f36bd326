//! Makes the kernel be as planned, and keeps it so.

use std::time::Duration;

use api::constant::OVERLAY_INTERFACE;
use api::error_code;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::Plan;
use crate::kernel::route::{OverlayLink, Routes};
use crate::kernel::vxlan::{self, VxlanError};
use crate::observe::problems::Complaint;
use crate::observe::{Area, Problems};
use crate::reconcile::View;

/// After the kernel refused something.
const RETRY: Duration = Duration::from_secs(5);
/// Several changes at once are looked at once.
const CALM: Duration = Duration::from_millis(20);

/// The task.
#[derive(Debug)]
pub struct Keeper {
    view: watch::Receiver<View>,
    routes: Routes,
    problems: Problems,
    /// What the route thread was told.
    told: Option<OverlayLink>,
}

impl Keeper {
    /// Follows the plan in `view`.
    #[must_use]
    pub fn new(view: watch::Receiver<View>, routes: Routes, problems: Problems) -> Self {
        Self { view, routes, problems, told: None }
    }

    /// Runs until the view ends. `changes` tells that somebody changed links, neighbours or FDB.
    pub async fn run(mut self, mut changes: mpsc::Receiver<()>) {
        let mut done: Option<Option<Plan>> = None;
        let mut failed = false;
        loop {
            let desired = self.view.borrow_and_update().desired.clone();
            // Until there is a configuration, what an earlier agent left stays as it is.
            if let Some(desired) = desired {
                let plan = desired.overlay.clone();
                failed = !self.establish(plan.as_ref()).await;
                if done.as_ref() != Some(&plan) {
                    match &plan {
                        Some(plan) => info!(
                            interface = OVERLAY_INTERFACE,
                            vni = plan.vni,
                            nodes = plan.remotes.len(),
                            "overlay on"
                        ),
                        None if done.is_some() => info!("overlay off"),
                        None => {}
                    }
                    done = Some(plan);
                }
            }
            loop {
                tokio::select! {
                    changed = self.view.changed() => match changed {
                        Err(_) => return,
                        // Most of what changes there is not about the overlay.
                        Ok(()) if !failed && self.is_old_news(done.as_ref()) => continue,
                        Ok(()) => {}
                    },
                    Some(()) = changes.recv(), if matches!(done, Some(Some(_))) => {}
                    () = tokio::time::sleep(RETRY), if failed => {}
                }
                break;
            }
            tokio::time::sleep(CALM).await;
        }
    }

    fn is_old_news(&mut self, done: Option<&Option<Plan>>) -> bool {
        let view = self.view.borrow_and_update();
        match (&view.desired, done) {
            (Some(desired), Some(done)) => desired.overlay == *done,
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    /// True if all is well.
    async fn establish(&mut self, plan: Option<&Plan>) -> bool {
        let Some(plan) = plan else {
            // Routes first: they would be gone with the interface.
            self.tell(None).await;
            let removed = tokio::task::block_in_place(vxlan::remove);
            return self.report(removed);
        };
        match tokio::task::block_in_place(|| vxlan::establish(plan)) {
            Ok(interface) => {
                let hops = plan.remotes.values().flat_map(|remote| {
                    remote.next_hops.iter().map(|hop| (*hop, remote.gateway(*hop)))
                });
                self.tell(Some(OverlayLink { interface, gateways: hops.collect() })).await;
                self.report(Ok(()))
            }
            Err(error) => self.report(Err(error)),
        }
    }

    async fn tell(&mut self, link: Option<OverlayLink>) {
        if self.told == link {
            return;
        }
        if self.routes.set_overlay(link.clone()).await.is_err() {
            warn!("the route thread has ended");
        }
        self.told = link;
    }

    fn report(&self, result: Result<(), VxlanError>) -> bool {
        match result {
            Ok(()) => {
                self.problems.resolve(Area::Host, OVERLAY_INTERFACE);
                true
            }
            Err(error) => {
                let subject = format!("interface {OVERLAY_INTERFACE}");
                let message = match std::error::Error::source(&error) {
                    Some(why) => format!("{error}: {why}"),
                    None => error.to_string(),
                };
                let complaint = Complaint::new(error_code::OVERLAY_FAILED, subject, message);
                self.problems.raise(Area::Host, OVERLAY_INTERFACE, complaint);
                false
            }
        }
    }
}
