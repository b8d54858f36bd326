//! Next hops: shared by many routes, looked up once each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::types::{Path, Unresolved};

/// What a next hop, or a set of them, came to.
pub(super) type Resolution = Result<Arc<[Path]>, Unresolved>;

/// Names a set of next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupId(usize);

#[derive(Debug)]
struct Group {
    hops: Arc<[IpAddr]>,
    users: usize,
    resolution: Resolution,
}

#[derive(Debug)]
struct Hop {
    groups: usize,
    /// `None`: never looked up.
    resolution: Option<Resolution>,
}

/// All next hops in use, in the sets in which routes use them.
#[derive(Debug, Default)]
pub(super) struct Hops {
    groups: Vec<Option<Group>>,
    free: Vec<usize>,
    by_hops: FxHashMap<Arc<[IpAddr]>, GroupId>,
    hops: BTreeMap<IpAddr, Hop>,
    fresh: bool,
    stale: bool,
}

impl Hops {
    /// The set of these next hops (ascending, no duplicates) has one user more.
    pub(super) fn acquire(&mut self, hops: &[IpAddr]) -> GroupId {
        if let Some(id) = self.by_hops.get(hops) {
            if let Some(Some(group)) = self.groups.get_mut(id.0) {
                group.users += 1;
            }
            return *id;
        }
        for hop in hops {
            let hop = self.hops.entry(*hop).or_insert(Hop { groups: 0, resolution: None });
            hop.groups += 1;
            self.fresh |= hop.resolution.is_none();
        }
        let hops: Arc<[IpAddr]> = hops.into();
        let group = Group { hops: Arc::clone(&hops), users: 1, resolution: self.combine(&hops) };
        let slot = self.free.pop().unwrap_or(self.groups.len());
        match self.groups.get_mut(slot) {
            Some(free) => *free = Some(group),
            None => self.groups.push(Some(group)),
        }
        self.by_hops.insert(hops, GroupId(slot));
        GroupId(slot)
    }

    /// The set has one user less; the last one ends it.
    pub(super) fn release(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(id.0) else { return };
        let Some(group) = slot.as_mut() else { return };
        group.users -= 1;
        if group.users > 0 {
            return;
        }
        let Some(group) = slot.take() else { return };
        self.free.push(id.0);
        self.by_hops.remove(&group.hops);
        for address in group.hops.iter() {
            if let Some(hop) = self.hops.get_mut(address) {
                hop.groups -= 1;
                if hop.groups == 0 {
                    self.hops.remove(address);
                }
            }
        }
    }

    /// The next hops of a set.
    pub(super) fn members(&self, id: GroupId) -> &[IpAddr] {
        self.group(id).map_or(&[], |group| &group.hops)
    }

    /// Paths of a set: those of every next hop that has some.
    pub(super) fn resolution(&self, id: GroupId) -> Resolution {
        self.group(id).map_or(Err(Unresolved::NoRoute), |group| group.resolution.clone())
    }

    /// A route to `prefix` changed; next hops inside it must be looked up again.
    pub(super) fn touch(&mut self, prefix: &IpNet) {
        if !self.stale {
            self.stale = self.hops.range(prefix.network()..=prefix.broadcast()).next().is_some();
        }
    }

    /// Everything must be looked up again.
    pub(super) fn touch_all(&mut self) {
        self.stale |= !self.hops.is_empty();
    }

    /// A next hop was never looked up: routes wait for it.
    pub(super) fn has_fresh(&self) -> bool {
        self.fresh
    }

    /// Something changed since the next hops were looked up.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Looks up what is due: everything if stale, else the new ones. `look_up` gets the next hop and
    /// what it came to before. Returns the sets that changed.
    pub(super) fn resolve<E>(
        &mut self,
        all: bool,
        mut look_up: impl FnMut(IpAddr, Option<&Resolution>) -> Result<Resolution, E>,
    ) -> Result<Vec<GroupId>, E> {
        for (address, hop) in &mut self.hops {
            if all || hop.resolution.is_none() {
                hop.resolution = Some(look_up(*address, hop.resolution.as_ref())?);
            }
        }
        self.fresh = false;
        self.stale &= !all;
        let mut changed = Vec::new();
        for slot in 0..self.groups.len() {
            let Some(Some(group)) = self.groups.get(slot) else { continue };
            let resolution = self.combine(&group.hops);
            if let Some(Some(group)) = self.groups.get_mut(slot)
                && group.resolution != resolution
            {
                group.resolution = resolution;
                changed.push(GroupId(slot));
            }
        }
        Ok(changed)
    }

    fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0)?.as_ref()
    }

    fn combine(&self, hops: &[IpAddr]) -> Resolution {
        let mut paths: Vec<Path> = Vec::new();
        let mut why = Unresolved::NoRoute;
        for hop in hops {
            match self.hops.get(hop).and_then(|hop| hop.resolution.as_ref()) {
                Some(Ok(more)) if hops.len() == 1 => return Ok(Arc::clone(more)),
                Some(Ok(more)) => paths.extend(more.iter()),
                Some(Err(reason)) => why = *reason,
                None => {}
            }
        }
        paths.sort_unstable();
        paths.dedup();
        if paths.is_empty() { Err(why) } else { Ok(paths.into()) }
    }
}
