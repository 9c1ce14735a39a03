//! The schema of one instance.

use std::time::Duration;

use super::VipAddress;
use super::auth_trailer::auth_trailer;
use super::detect::detect;
use super::field::{Field, Mapping};
use super::interface::InterfaceSelector;
use super::model::{AllFailed, Announce, Instance, InstanceName, LocalAddress, Name, OnConflict, Protocol};
use super::probe::track;
use super::protocol::protocol;
use super::schema::{UP_TO_AN_HOUR, interface};
use super::secrets::Secrets;
use super::unicast::unicast;
use crate::types::{Family, Priority, Version, VirtualRouterId};
use crate::vrrp::codec::{MAX_ADDRESSES, capacity};

pub(super) const KEYS: [&str; 26] = [
    "name",
    "virtual_router_id",
    "interface",
    "vip_interface",
    "version",
    "priority",
    "advert_interval",
    "preempt",
    "preempt_delay",
    "hold_down",
    "accept",
    "strict",
    "checksum",
    "virtual_mac",
    "unicast",
    "auth",
    "auth_trailer",
    "vips",
    "on_conflict",
    "local_address",
    "announce",
    "grace",
    "track",
    "all_failed",
    "sync_group",
    "detect",
];

/// IPv6 VIPs whose advert fits an Ethernet frame without a jumbo MTU.
const MOST_VIPS_PER_FRAME_V6: usize = capacity(Version::V3, Family::V6, 1500);

/// An instance of the file: what was valid of that which other instances must not repeat, and the whole if all was.
#[derive(Default)]
pub(super) struct Draft<'a> {
    pub(super) name: Option<(Field<'a>, InstanceName)>,
    pub(super) virtual_router_id: Option<(Field<'a>, VirtualRouterId)>,
    pub(super) interface: Option<InterfaceSelector>,
    pub(super) vips: Vec<(Field<'a>, VipAddress)>,
    pub(super) track: Vec<(Field<'a>, Name)>,
    pub(super) sync_group: Option<(Field<'a>, Name)>,
    /// Where the instance stands, and what sync groups must agree in.
    pub(super) mapping: Option<Mapping<'a>>,
    instance: Option<Instance>,
}

impl Draft<'_> {
    /// The instance, if nothing in it alone was wrong.
    pub(super) fn instance(&self) -> Option<&Instance> {
        self.instance.as_ref()
    }

    /// The instance, if nothing in it was wrong.
    pub(super) fn finish(self) -> Option<Instance> {
        self.instance
    }
}

/// One instance; `default_interface` is `None` where the file's own was refused.
pub(super) fn instance<'a>(
    field: &Field<'a>,
    default_interface: Option<&InterfaceSelector>,
    secrets: &Secrets<'_>,
) -> Draft<'a> {
    let Some(mapping) = field.mapping(&KEYS) else { return Draft::default() };
    let name = mapping.required("name").and_then(|field| {
        let name = field.accept(InstanceName::new(field.text()?))?;
        Some((field, name))
    });
    let virtual_router_id = mapping.required("virtual_router_id").and_then(|field| {
        let id = field.number()?;
        Some((field, id))
    });
    let adverts_on = match mapping.get("interface") {
        Some(field) => interface(&field),
        None => default_interface.cloned(),
    };
    let (vips, all_vips) = vips(&mapping);
    let (track, tracked) = track(&mapping);
    let sync_group = sync_group(&mapping);
    let whole_group = mapping.get("sync_group").is_none_or(|field| field.is_null()) || sync_group.is_some();
    let mut draft = Draft {
        name,
        virtual_router_id,
        interface: adverts_on,
        vips,
        track,
        sync_group,
        mapping: None,
        instance: None,
    };
    draft.instance = rest(&mapping, &draft, all_vips, tracked, secrets).filter(|_| whole_group);
    draft.mapping = Some(mapping);
    draft
}

fn sync_group<'a>(mapping: &Mapping<'a>) -> Option<(Field<'a>, Name)> {
    let field = mapping.get("sync_group").filter(|field| !field.is_null())?;
    let name = field.accept(Name::of("a sync group's name", field.text()?))?;
    Some((field, name))
}

/// What concerns this instance alone, and the whole if nothing was refused.
fn rest(
    mapping: &Mapping<'_>,
    draft: &Draft<'_>,
    all_vips: Option<Vec<VipAddress>>,
    tracked: Option<Vec<Name>>,
    secrets: &Secrets<'_>,
) -> Option<Instance> {
    let vip_interface = match mapping.get("vip_interface") {
        Some(field) => interface(&field),
        None => draft.interface.clone(),
    };
    let priority = mapping.or("priority", Priority::DEFAULT, Field::number);
    let protocol = protocol(mapping, &draft.vips, secrets);
    let detect = detect(mapping, protocol.as_ref().map(Protocol::advert_interval), secrets);
    let preempt = mapping.or("preempt", true, Field::boolean);
    let preempt_delay = up_to_an_hour(mapping, "preempt_delay", Duration::ZERO);
    let hold_down = up_to_an_hour(mapping, "hold_down", Duration::ZERO);
    let accept = mapping.or("accept", true, Field::boolean);
    let strict = mapping.or("strict", false, Field::boolean);
    let virtual_mac = mapping.or("virtual_mac", false, Field::boolean);
    let unicast = mapping.or("unicast", None, |field| match field.is_null() {
        true => Some(None),
        false => unicast(field, all_vips.as_deref(), priority).map(Some),
    });
    let auth_trailer = mapping.or("auth_trailer", None, |field| match field.is_null() {
        true => Some(None),
        false => auth_trailer(field, secrets).map(Some),
    });
    let on_conflict = mapping.or("on_conflict", OnConflict::default(), |field| {
        field.choice(&[("alarm", OnConflict::Alarm), ("fault", OnConflict::Fault)])
    });
    let local_address = mapping.or("local_address", LocalAddress::default(), local_address);
    let announce = mapping.or("announce", Announce::default(), announce);
    let grace = up_to_an_hour(mapping, "grace", Duration::from_secs(5));
    let all_failed = mapping.or("all_failed", AllFailed::default(), |field| {
        field.choice(&[("close", AllFailed::Close), ("open", AllFailed::Open)])
    });
    let instance = Instance {
        name: draft.name.as_ref()?.1.clone(),
        virtual_router_id: draft.virtual_router_id.as_ref()?.1,
        interface: draft.interface.clone()?,
        vip_interface: vip_interface?,
        protocol: protocol?,
        priority: priority?,
        preempt: preempt?,
        preempt_delay: preempt_delay?,
        hold_down: hold_down?,
        accept: accept?,
        strict: strict?,
        virtual_mac: virtual_mac?,
        unicast: unicast?,
        vips: all_vips?,
        auth_trailer: auth_trailer?,
        on_conflict: on_conflict?,
        local_address: local_address?,
        announce: announce?,
        grace: grace?,
        track: tracked?,
        all_failed: all_failed?,
        sync_group: draft.sync_group.as_ref().map(|(_, name)| name.clone()),
        detect: detect?,
    };
    warn_of_the_ineffective(mapping, &instance);
    Some(instance)
}

fn up_to_an_hour(mapping: &Mapping<'_>, key: &str, default: Duration) -> Option<Duration> {
    mapping.or(key, default, |field| field.duration_within(UP_TO_AN_HOUR))
}

/// Values that are valid and do nothing.
fn warn_of_the_ineffective(mapping: &Mapping<'_>, instance: &Instance) {
    let warn = |key: &str, message: &str| {
        if let Some(field) = mapping.get(key) {
            field.warn(message);
        }
    };
    let delayed = instance.preempt_delay > Duration::ZERO;
    if instance.priority == Priority::OWNER {
        if !instance.preempt {
            warn("preempt", "has no effect: the address owner (priority 255) always preempts");
        }
        if delayed {
            warn("preempt_delay", "has no effect: the address owner (priority 255) does not wait");
        }
        if !instance.accept {
            warn("accept", "has no effect: the address owner (priority 255) always accepts");
        }
    } else if delayed && !instance.preempt {
        warn("preempt_delay", "has no effect without `preempt: true`");
    }
    if !instance.accepts() && instance.local_address == LocalAddress::Active {
        warn("local_address", "has no effect: with `accept: false` this node never serves the VIPs itself");
    }
    if instance.all_failed == AllFailed::Open && instance.track.is_empty() {
        warn("all_failed", "has no effect: the instance tracks no probe");
    }
    if instance.virtual_mac && instance.unicast.is_some() && instance.announce.refresh.is_none() {
        let why = "without a refresh, and with unicast adverts, switches forget the port of the virtual MAC";
        warn("announce", why);
    }
}

/// The valid VIPs, and all of them if none was refused.
fn vips<'a>(mapping: &Mapping<'a>) -> (Vec<(Field<'a>, VipAddress)>, Option<Vec<VipAddress>>) {
    let Some(field) = mapping.required("vips") else { return (Vec::new(), None) };
    let Some(fields) = field.list() else { return (Vec::new(), None) };
    let written = fields.len();
    let read = |field: Field<'a>| {
        let vip = field.accept(super::vip(field.text()?))?;
        Some((field, vip))
    };
    let vips: Vec<_> = fields.into_iter().filter_map(read).collect();
    let v4 = vips.iter().filter(|(_, vip)| vip.address.is_ipv4()).count();
    let v6 = vips.len() - v4;
    let mut valid = vips.len() == written;
    if written == 0 {
        field.error("needs at least one address");
        valid = false;
    }
    for (family, count) in [(Family::V4, v4), (Family::V6, v6)] {
        if count > MAX_ADDRESSES {
            let message = format!(
                "has {count} {family} addresses: an advert holds {MAX_ADDRESSES}; make another instance"
            );
            field.error(message);
            valid = false;
        }
    }
    if (MOST_VIPS_PER_FRAME_V6 + 1..=MAX_ADDRESSES).contains(&v6) {
        field.warn(format_args!(
            "has {v6} IPv6 addresses: above {MOST_VIPS_PER_FRAME_V6} their advert needs an MTU of {}",
            48 + 16 * v6
        ));
    }
    let all = valid.then(|| vips.iter().map(|(_, vip)| *vip).collect());
    (vips, all)
}

fn local_address(field: &Field<'_>) -> Option<LocalAddress> {
    field.choice(&[
        ("active", LocalAddress::Active),
        ("always", LocalAddress::Always),
        ("never", LocalAddress::Never),
    ])
}

fn announce(field: &Field<'_>) -> Option<Announce> {
    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);
    let default = Announce::default();
    let announce = field.mapping(&["repeat", "interval", "refresh"])?;
    let repeat = announce.or("repeat", default.repeat, |field| field.integer(0..=100));
    let interval = announce
        .or("interval", default.interval, |field| field.duration_within(Duration::from_millis(10)..=HOUR));
    let refresh = announce.or("refresh", default.refresh, |field| match field.duration()? {
        Duration::ZERO => Some(None),
        _ => field.duration_within(SECOND..=24 * HOUR).map(Some),
    });
    Some(Announce { repeat: repeat?, interval: interval?, refresh: refresh? })
}
