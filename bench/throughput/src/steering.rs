//! viplane's program at the node's end, with a service of ten backends in mode `dr`.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData};
use bytemuck::Zeroable as _;
use nix::net::if_::if_nametoindex;
use vip_agent::dataplane::{Dataplane, LoadOptions, XdpModeChoice};
use vip_agent::types::MonotonicTime;
use vip_common::maps::{Vip, vip_flags};
use vip_common::packet::ipv4::widen;
use vip_common::steering::maglev::{Candidate, RingSize, fill};
use vip_common::steering::packet::protocol;
use vip_common::steering::tables::{
    Backend, Mode, RingPair, Service, ServiceKey, ServicePort, backend_flags,
};

use crate::contender::VIP;
use crate::generator::{NODE, PORT};

/// BPF_F_MMAPABLE: rings of the agent are filled so, and the kernel wants all of a map to be alike.
const MMAPABLE: u32 = 1 << 10;
const BACKENDS: u8 = 10;
/// Where all of them are, so that one receiver counts.
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
/// Longer than any measurement.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// Two entries in each element.
type Ring = Array<MapData, RingPair>;

/// An owner of the VIP.
pub(crate) struct Steering {
    _dataplane: Dataplane,
    _ring: Ring,
}

/// Attaches the program to an interface of this thread's namespace.
pub(crate) fn attach(interface: &str) -> Result<Steering> {
    let ifindex = if_nametoindex(interface)?;
    let options = LoadOptions { pin_dir: None, xdp_mode: XdpModeChoice::Driver };
    let mut dataplane = Dataplane::load(&options)?;
    dataplane.load_steering(RingSize::DEFAULT)?;
    let router = dataplane.allocate_router()?;
    dataplane.words().store(router, MonotonicTime::now() + LEASE);
    let link = dataplane.link_slot(ifindex)?;
    let vip = Vip {
        router: router.get(),
        link: link.get(),
        mac: NODE,
        answering: NODE,
        flags: vip_flags::SERVICES,
    };
    dataplane.insert_vip(ifindex, IpAddr::V4(Ipv4Addr::from(VIP)), vip)?;
    let ring = serve(&dataplane, ifindex)?;
    dataplane.attach(ifindex, interface)?;
    Ok(Steering { _dataplane: dataplane, _ring: ring })
}

/// Service 0, on the UDP port that is sent to.
fn serve(dataplane: &Dataplane, ifindex: u32) -> Result<Ring> {
    let key = ServiceKey { vip: widen(VIP), port: PORT.to_be_bytes(), protocol: protocol::UDP, family: 4 };
    let mut ports: HashMap<_, [u8; 20], [u8; 4]> =
        HashMap::try_from(Map::HashMap(map(dataplane, "SERVICE_PORTS")?))?;
    let port = ServicePort { service: 0, shift: 0 };
    ports.insert(bytemuck::cast::<_, [u8; 20]>(key), bytemuck::cast::<_, [u8; 4]>(port), 0)?;
    let mut candidates = Vec::new();
    for number in 1..=BACKENDS {
        let backend = Backend {
            address: widen([10, 0, 1, number]),
            ifindex,
            mac: BACKEND_MAC,
            own: NODE,
            mtu: 1500,
            flags: backend_flags::UP,
            family: 4,
            ..Backend::zeroed()
        };
        set(dataplane, "BACKENDS", number.into(), bytemuck::cast::<_, [u64; 8]>(backend))?;
        let slot = NonZeroU32::new(number.into()).context("slot 0 is nobody's")?;
        candidates.push(Candidate::new(Ipv4Addr::new(10, 0, 1, number).to_ipv6_mapped().octets(), slot, 1));
    }
    let size = RingSize::DEFAULT;
    let mut entries = vec![0; size.get() as usize];
    fill(&mut entries, size, &mut candidates).map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let mut ring: Ring = Array::create(size.pairs(), MMAPABLE)?;
    for (index, pair) in (0..).zip(entries.chunks(2)) {
        ring.set(index, [pair[0], pair.get(1).copied().unwrap_or(0)], 0)?;
    }
    let mut rings: ArrayOfMaps<_, Ring> = ArrayOfMaps::try_from(Map::ArrayOfMaps(map(dataplane, "RINGS")?))?;
    rings.set(0, &ring, 0)?;
    let service = Service { ring_size: size.get(), mode: Mode::Direct as u8, ..Service::zeroed() };
    set(dataplane, "SERVICES", 0, bytemuck::cast::<_, [u8; 16]>(service))?;
    Ok(ring)
}

fn map(dataplane: &Dataplane, name: &str) -> Result<MapData> {
    let map = dataplane.steering_map(name).with_context(|| format!("no map {name}"))?;
    Ok(MapData::from_fd(map.try_clone_to_owned()?)?)
}

fn set<T: Pod>(dataplane: &Dataplane, array: &str, index: u32, value: T) -> Result<()> {
    Ok(Array::try_from(Map::Array(map(dataplane, array)?))?.set(index, value, 0)?)
}
