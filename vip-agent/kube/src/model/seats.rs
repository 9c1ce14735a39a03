//! Virtual routers for units: which VRID, and who shares it.

use std::collections::BTreeMap;

use super::claims::{Eligible, Kind};
use super::hash;
use super::remark::{Remark, Trouble};
use super::units::Unit;
use super::{LocalAddress, Settings};
use crate::cluster::Family;

/// Virtual routers over which units that any node can serve are spread; as many again for those with a local address.
const SHARDS: u8 = 8;
/// First offset of the virtual routers that units have for themselves.
const OWN: u8 = 1 + 2 * SHARDS;
/// IPv4 VIPs that an advert can list: it counts them by an octet (RFC 9568, 5.2.5).
const ROOM_V4: usize = 255;
/// IPv6 VIPs that fit an advert: an Ethernet frame is what every network carries, and holds the IPv6 header, that of VRRP and these.
const ROOM_V6: usize = (1500 - 40 - 8) / 16;

/// A virtual router and the units that it moves.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// VRID above the first one.
    pub(super) offset: u8,
    pub(super) units: Vec<Unit>,
}

impl Seat {
    fn has_room_for(&self, unit: &Unit) -> bool {
        let count = |family| {
            let vips = self.units.iter().chain([unit]).flat_map(|unit| &unit.vips);
            vips.filter(|vip| Family::of(vip.address) == family).count()
        };
        count(Family::V4) <= ROOM_V4 && count(Family::V6) <= ROOM_V6
    }
}

/// What kind of place a unit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The ConfigMap's.
    ConfigMap,
    /// One of those that units are spread over, from this offset on.
    Shard(u8),
    /// For itself.
    Own,
}

impl Place {
    pub(super) fn of(unit: &Unit) -> Self {
        match (unit.kind, &unit.eligible) {
            (Kind::ConfigMap, _) => Self::ConfigMap,
            (_, Eligible::Nodes(_)) => Self::Own,
            // It would be that of all VIPs of the router.
            (_, Eligible::Any) if unit.local_address == LocalAddress::Always => Self::Own,
            (_, Eligible::Any) if unit.local_address == LocalAddress::Never => Self::Shard(1),
            (_, Eligible::Any) => Self::Shard(1 + SHARDS),
        }
    }

    /// Offsets to be tried, in this order; `last` is the highest there is.
    fn offsets(self, unit: &Unit, last: u8) -> impl Iterator<Item = u8> {
        let (first, count) = match self {
            Self::ConfigMap => (0, 1),
            Self::Shard(first) => (first, SHARDS),
            Self::Own => (OWN, last - OWN + 1),
        };
        let begin = unit.vips.first().map_or(0, |vip| hash::within(hash::of_address(vip.address), count));
        // In u16, since the sum may exceed an octet before it is reduced.
        (0..count).map(move |step| {
            let place = (u16::from(begin) + u16::from(step)) % u16::from(count);
            first + u8::try_from(place).unwrap_or(0)
        })
    }
}

/// Seats the units, the oldest first, so that nobody moves for a newcomer.
pub(super) fn seats(units: Vec<Unit>, settings: &Settings, remarks: &mut Vec<Remark>) -> Vec<Seat> {
    let first = settings.kubernetes.virtual_router_id.get();
    let last = u8::MAX - first;
    let taken = |offset: u8| settings.taken_ids.iter().any(|id| Some(id.get()) == first.checked_add(offset));
    let mut seats: BTreeMap<u8, Seat> = BTreeMap::new();
    for unit in units {
        let place = Place::of(&unit);
        let fits = |offset: &u8| {
            !taken(*offset)
                && match seats.get(offset) {
                    None => true,
                    Some(_) if place == Place::Own => false,
                    Some(seat) => seat.has_room_for(&unit),
                }
        };
        let offset = place.offsets(&unit, last).find(fits);
        match offset {
            Some(offset) => {
                seats.entry(offset).or_insert_with(|| Seat { offset, units: Vec::new() }).units.push(unit);
            }
            None => remarks.extend(unit.holders.into_iter().map(|(about, _)| Remark {
                about,
                trouble: Trouble::Exhausted,
                message: match place {
                    Place::ConfigMap => format!(
                        "virtual router {first} has no room for more VIPs ({ROOM_V4} of IPv4, {ROOM_V6} of IPv6), or \
                         is one of the configuration file's"
                    ),
                    Place::Shard(_) => "all virtual routers for Services are full".to_owned(),
                    Place::Own => format!(
                        "all of the {} virtual routers for VIPs that need one of their own are in use",
                        last - OWN + 1
                    ),
                },
            })),
        }
    }
    seats.into_values().collect()
}
