//! Sockets that instances share: 255 of them on one interface need no more than one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::vrrp::socket::{AdvertSender, AnnounceSender, Interface, MulticastGroups, OpenError};

/// The sockets that are open. Each is closed with the last instance that uses it.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    adverts: HashMap<(Interface, IpAddr), Weak<AdvertSender>>,
    frames: HashMap<Interface, Weak<AdvertSender>>,
    announcements: HashMap<Interface, Weak<AnnounceSender>>,
    groups: HashMap<Interface, Weak<Mutex<MulticastGroups>>>,
}

/// The solicited-node groups of one instance's IPv6 VIPs. They are left when this is dropped.
#[derive(Debug)]
pub(super) struct Memberships {
    groups: Arc<Mutex<MulticastGroups>>,
    vips: Vec<Ipv6Addr>,
}

impl Sockets {
    /// The socket that sends adverts from `source`.
    ///
    /// # Errors
    /// It is not open yet, and cannot be opened.
    pub(super) fn of_adverts(
        &mut self,
        interface: &Interface,
        source: IpAddr,
    ) -> Result<Arc<AdvertSender>, OpenError> {
        self.adverts.retain(|_, sender| sender.strong_count() > 0);
        let known = self.adverts.entry((interface.clone(), source)).or_default();
        share(known, || AdvertSender::open(interface, source))
    }

    /// The socket that sends adverts from virtual MACs.
    ///
    /// # Errors
    /// It is not open yet, and cannot be opened.
    pub(super) fn of_frames(&mut self, interface: &Interface) -> Result<Arc<AdvertSender>, OpenError> {
        self.frames.retain(|_, sender| sender.strong_count() > 0);
        let known = self.frames.entry(interface.clone()).or_default();
        share(known, || AdvertSender::open_for_frames(interface))
    }

    /// The socket that announces VIPs on an interface.
    ///
    /// # Errors
    /// It is not open yet, and cannot be opened.
    pub(crate) fn of_announcements(
        &mut self,
        interface: &Interface,
    ) -> Result<Arc<AnnounceSender>, OpenError> {
        self.announcements.retain(|_, sender| sender.strong_count() > 0);
        let known = self.announcements.entry(interface.clone()).or_default();
        share(known, || AnnounceSender::open(interface))
    }

    /// No group yet, on the interface that carries the VIPs.
    pub(super) fn memberships(&mut self, interface: &Interface) -> Memberships {
        self.groups.retain(|_, groups| groups.strong_count() > 0);
        let known = self.groups.entry(interface.clone()).or_default();
        let groups = known.upgrade().unwrap_or_else(|| {
            let groups = Arc::new(Mutex::new(MulticastGroups::new(interface)));
            *known = Arc::downgrade(&groups);
            groups
        });
        Memberships { groups, vips: Vec::new() }
    }
}

impl Memberships {
    /// Joins the group of a VIP.
    ///
    /// # Errors
    /// As [`MulticastGroups::join`].
    pub(super) fn join(&mut self, vip: Ipv6Addr) -> Result<(), OpenError> {
        self.lock().join(vip)?;
        self.vips.push(vip);
        Ok(())
    }

    /// Leaves it.
    pub(super) fn leave(&mut self, vip: Ipv6Addr) {
        if let Some(at) = self.vips.iter().position(|joined| *joined == vip) {
            self.vips.swap_remove(at);
            self.lock().leave(vip);
        }
    }

    fn lock(&self) -> MutexGuard<'_, MulticastGroups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Memberships {
    fn drop(&mut self) {
        let vips = std::mem::take(&mut self.vips);
        let mut groups = self.lock();
        for vip in vips {
            groups.leave(vip);
        }
    }
}

fn share<T>(known: &mut Weak<T>, open: impl FnOnce() -> Result<T, OpenError>) -> Result<Arc<T>, OpenError> {
    if let Some(sender) = known.upgrade() {
        return Ok(sender);
    }
    let sender = Arc::new(open()?);
    *known = Arc::downgrade(&sender);
    Ok(sender)
}
