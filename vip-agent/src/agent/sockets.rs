//! Sockets that instances share: 255 of them on one interface need no more than one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use crate::vrrp::socket::{AdvertSender, AnnounceSender, Interface, OpenError};

/// The sending sockets that are open. Each is closed with the last binding that holds it.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    adverts: HashMap<(Interface, IpAddr), Weak<AdvertSender>>,
    announcements: HashMap<Interface, Weak<AnnounceSender>>,
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

    /// The socket that announces VIPs on an interface.
    ///
    /// # Errors
    /// It is not open yet, and cannot be opened.
    pub(super) fn of_announcements(
        &mut self,
        interface: &Interface,
    ) -> Result<Arc<AnnounceSender>, OpenError> {
        self.announcements.retain(|_, sender| sender.strong_count() > 0);
        let known = self.announcements.entry(interface.clone()).or_default();
        share(known, || AnnounceSender::open(interface))
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
