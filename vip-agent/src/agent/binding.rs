//! Makes what the driver thread works with: sockets, advertisements and announcements of one instance.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::place::Place;
use super::sockets::Sockets;
use crate::config;
use crate::dataplane::announce::{Announcements, Answering, frame_to_itself, questions};
use crate::types::{Family, MacAddr};
use crate::vrrp::codec::{DecodeOptions, Dialect, EncodeError, Fields, LEAVING, advert_group};
use crate::vrrp::driver;
use crate::vrrp::machine::{AdvertPhase, Parameters};
use crate::vrrp::prepared::PreparedAdverts;
use crate::vrrp::receive::{Rules, Senders};
use crate::vrrp::socket::OpenError;
use crate::vrrp::trailer::{AuthRules, Signer};

/// Why an instance cannot work on its interfaces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
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
        phase: Some(AdvertPhase::of(instance.virtual_router_id)),
        preempt: instance.preempt,
        preempt_delay: instance.preempt_delay,
        hold_down: instance.hold_down,
        staging: instance.stands_on_lo() == config::LocalAddress::Active,
        announce_repeat: instance.announce.repeat,
        announce_interval: instance.announce.interval,
        announce_refresh: instance.announce.refresh,
    }
}

/// Which MAC answers for the VIPs.
pub(super) fn answering(instance: &config::Instance, place: &Place) -> Answering {
    if instance.virtual_mac {
        Answering::Virtual(instance.virtual_router_id)
    } else {
        Answering::Interface(place.mac)
    }
}

/// Opens the sockets that are not open yet, and builds the frames.
pub(crate) fn bind(
    instance: &config::Instance,
    place: &Place,
    router: bool,
    sockets: &mut Sockets,
    signer: Option<&Signer>,
) -> Result<Box<driver::Binding>, BindError> {
    let families = place.sources.iter().map(|&source| family(instance, place, source, sockets, signer));
    let families = families.collect::<Result<ArrayVec<_, 2>, _>>()?;
    let vips = || instance.vips.iter().map(|vip| vip.address);
    Ok(Box::new(driver::Binding {
        ifindex: place.advert.index,
        one_link: place.advert.index == place.vip.index,
        detect: instance.detect.as_ref().map(|detect| detect.settings),
        families,
        announcements: Announcements::build(vips(), answering(instance, place), router),
        questions: questions(vips(), place.mac, place.link_local),
        rehearsal: [frame_to_itself(place.mac)],
        announcer: sockets.of_announcements(&place.vip)?,
    }))
}

fn family(
    instance: &config::Instance,
    place: &Place,
    source: IpAddr,
    sockets: &mut Sockets,
    signer: Option<&Signer>,
) -> Result<driver::Family, BindError> {
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
        Ok::<_, EncodeError>(
            PreparedAdverts::build(&fields, source, &destinations)?.signed_by(signer.cloned()),
        )
    };
    let priority = instance.priority.get();
    // Unicast adverts go through the IP stack, which finds the way to each peer. The virtual MAC has no business on that way:
    // behind a router it means nothing, and switches learn it from announcements.
    let (sender, adverts, leaving, yielding) = if instance.virtual_mac && instance.unicast.is_none() {
        let frames = |priority, mac| adverts(priority).map(|adverts| adverts.in_frame(mac));
        let mac = MacAddr::of_virtual_router(instance.virtual_router_id, family);
        let sender = sockets.of_frames(&place.advert)?;
        let yielding = frames(priority, place.advert_mac)?;
        (sender, frames(priority, mac)?, frames(LEAVING, mac)?, Some(yielding))
    } else {
        (sockets.of_adverts(&place.advert, source)?, adverts(priority)?, adverts(LEAVING)?, None)
    };
    Ok(driver::Family {
        sender,
        adverts,
        leaving,
        yielding,
        rules: Rules {
            own: source,
            own_mac: place.advert_mac,
            senders,
            decode: DecodeOptions { dialect, strict: instance.strict },
            auth: instance
                .auth_trailer
                .as_ref()
                .map(|auth| AuthRules { keys: auth.keys.clone(), accept_unsigned: auth.accept_unsigned }),
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
