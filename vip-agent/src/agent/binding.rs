//! Makes what the driver thread works with: sockets, advertisements and announcements of one instance.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::place::Place;
use crate::config;
use crate::dataplane::announce::{Announcements, frame_to_itself, questions};
use crate::types::Family;
use crate::vrrp::codec::{DecodeOptions, Dialect, EncodeError, Fields, LEAVING, advert_group};
use crate::vrrp::driver;
use crate::vrrp::machine::Parameters;
use crate::vrrp::prepared::PreparedAdverts;
use crate::vrrp::receive::{Rules, Senders};
use crate::vrrp::socket::{AdvertSender, AnnounceSender, OpenError};

/// Why an instance cannot work on its interfaces.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// A socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An advertisement.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The machine's parameters as configured.
pub(super) fn parameters(instance: &config::Instance) -> Parameters {
    Parameters {
        priority: instance.priority,
        interval: instance.protocol.advert_interval(),
        preempt: instance.preempt,
        preempt_delay: instance.preempt_delay,
        hold_down: instance.hold_down,
        staging: instance.local_address == config::LocalAddress::Active,
        announce_repeat: instance.announce.repeat,
        announce_interval: instance.announce.interval,
        announce_refresh: instance.announce.refresh,
    }
}

/// Opens the sockets and builds the frames.
pub(super) fn bind(
    instance: &config::Instance,
    place: &Place,
    router: bool,
) -> Result<Box<driver::Binding>, BindError> {
    let families = place.sources.iter().map(|&source| family(instance, place, source));
    let vips = || instance.vips.iter().map(|vip| vip.address);
    Ok(Box::new(driver::Binding {
        ifindex: place.advert.index,
        families: families.collect::<Result<ArrayVec<_, 2>, _>>()?,
        announcements: Announcements::build(vips(), place.mac, router),
        questions: questions(vips(), place.mac, place.link_local),
        rehearsal: [frame_to_itself(place.mac)],
        announcer: AnnounceSender::open(&place.vip)?,
    }))
}

fn family(instance: &config::Instance, place: &Place, source: IpAddr) -> Result<driver::Family, BindError> {
    let family = Family::of(source);
    let of_family = |address: &IpAddr| Family::of(*address) == family;
    let mut vips: Vec<IpAddr> = instance.vips.iter().map(|vip| vip.address).filter(of_family).collect();
    // A link-local address comes first, where there is one (RFC 9568, erratum 8300).
    vips.sort_by_key(|vip| !matches!(vip, IpAddr::V6(vip) if vip.is_unicast_link_local()));
    let (destinations, senders) = match &instance.unicast {
        None => (vec![advert_group(family)], Senders::Multicast),
        Some(unicast) => {
            let peers: Vec<IpAddr> = unicast.peers.iter().copied().filter(of_family).collect();
            (peers.clone(), Senders::Unicast { peers, min_ttl: unicast.min_ttl })
        }
    };
    let dialect = dialect(&instance.protocol);
    let adverts = |priority| {
        let virtual_router_id = instance.virtual_router_id;
        let fields = Fields { virtual_router_id, priority, dialect, addresses: &vips };
        PreparedAdverts::build(&fields, source, &destinations)
    };
    Ok(driver::Family {
        sender: AdvertSender::open(&place.advert, source)?,
        adverts: adverts(instance.priority.get())?,
        leaving: adverts(LEAVING)?,
        rules: Rules {
            own: source,
            senders,
            decode: DecodeOptions { dialect, strict: instance.strict },
            vips,
        },
    })
}

fn dialect(protocol: &config::Protocol) -> Dialect {
    match *protocol {
        config::Protocol::V2 { advert_interval, ref auth } => {
            Dialect::V2 { interval: advert_interval, password: auth.as_ref().map(|auth| *auth.password()) }
        }
        config::Protocol::V3 { advert_interval, checksum } => {
            Dialect::V3 { interval: advert_interval, checksum }
        }
    }
}
