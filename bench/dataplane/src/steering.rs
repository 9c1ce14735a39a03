//! Nanoseconds per steered packet by BPF_PROG_TEST_RUN, over a program that only passes, and what the verifier went through.
//!
//! The whole way: `viplane`, its tables, the tail calls. Steered frames can be measured in mode `dr` alone, which leaves them as
//! they are but for the MACs, which nothing on the way depends on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun as _, TestRunOptions, Xdp, loaded_programs};
use aya::util::nr_cpus;
use aya_obj::programs::XdpAttachType;
use bytemuck::Zeroable as _;
use serde::Serialize;
use vip_agent::dataplane::{Dataplane, LoadOptions};
use vip_agent::types::MonotonicTime;
use vip_common::maps::{Vip, vip_flags};
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::maglev::{Candidate, RingSize, fill};
use vip_common::steering::tables::{
    Backend, Gate, Mode, NEW_FLOWS_ADMITTED, RingPair, Service, ServiceKey, ServicePort, backend_flags,
    service_flags,
};

use crate::cost::{Cost, LOOPBACK, Rounds, ethernet};
use crate::object::{self, OWN, VIP4, VIP6};

const MMAPABLE: u32 = 1 << 10;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const DROP: u32 = 1;
const PASS: u32 = 2;
const TRANSMIT: u32 = 3;
/// The other port has no service.
const PORT: u16 = 80;
const BACKENDS: u8 = 10;
/// Of full NAT, with one backend.
const NAT_PORT: u16 = 81;
/// The client's, which it keeps through full NAT.
const CLIENT_PORT: u16 = 40_000;

/// Two entries in each element.
type Ring = Array<MapData, RingPair>;

/// A program of steering, and how many instructions the verifier went through.
#[derive(Serialize)]
pub(crate) struct Verified {
    pub(crate) program: &'static str,
    pub(crate) instructions: Option<u32>,
}

/// What steering costs.
#[derive(Serialize)]
pub(crate) struct Steering {
    pub(crate) cost: Vec<Cost>,
    pub(crate) verified: Vec<Verified>,
}

/// Runs every case once per round, each beside `pass`.
pub(crate) fn measure(rounds: usize) -> Result<Steering> {
    let node = Node::new(vip_flags::SERVICES)?;
    let ebpf = object::load(LOOPBACK)?;
    let pass = object::program(&ebpf, "pass")?;
    // As many as are noted of new flows, for those to be measured.
    let frames = u32::try_from(NEW_FLOWS_ADMITTED - 100)?;
    let mut cost = Vec::new();
    for Case { name, frame, verdict, budget_ns } in cases() {
        node.steer(&frame, 1, verdict)?;
        let mut measured = Rounds::default();
        for _ in 0..rounds {
            node.open_gate()?;
            measured.push(run(pass, &frame, frames, PASS)?, node.steer(&frame, frames, verdict)?);
        }
        cost.push(measured.cost(name, budget_ns).context("no rounds")?);
    }
    Ok(Steering { cost, verified: node.verified() })
}

/// A kind of frame, what becomes of it, and what that may cost.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    /// What the program returns.
    pub(crate) verdict: u32,
    budget_ns: Option<i64>,
}

pub(crate) fn cases() -> [Case; 6] {
    [
        ("IPv4, steered, established", segment4(ACK, PORT), TRANSMIT, Some(90)),
        ("IPv6, steered, established", segment6(ACK, PORT), TRANSMIT, Some(90)),
        ("IPv4, steered, new", segment4(SYN, PORT), TRANSMIT, Some(200)),
        ("IPv6, steered, new", segment6(SYN, PORT), TRANSMIT, Some(200)),
        ("IPv4, a port without a service", segment4(ACK, 22), PASS, None),
        ("IPv6, a port without a service", segment6(ACK, 22), PASS, None),
    ]
    .map(|(name, frame, verdict, budget_ns)| Case { name, frame, verdict, budget_ns })
}

/// What a client sends by full NAT, and what comes back and finds no route here. They cannot be measured: each changes the frame.
pub(crate) fn of_full_nat() -> [Case; 4] {
    [
        ("IPv4, full NAT", segment4(SYN, NAT_PORT), TRANSMIT),
        ("IPv6, full NAT", segment6(SYN, NAT_PORT), TRANSMIT),
        ("IPv4, full NAT, an answer", packet4([1; 4], &segment(SYN | ACK, NAT_PORT, CLIENT_PORT)), DROP),
        ("IPv6, full NAT, an answer", packet6([1; 16], &segment(SYN | ACK, NAT_PORT, CLIENT_PORT)), DROP),
    ]
    .map(|(name, frame, verdict)| Case { name, frame, verdict, budget_ns: None })
}

/// An owner of both VIPs, with a service of ten backends on each and one of full NAT, attached to nothing.
pub(crate) struct Node {
    dataplane: Dataplane,
    viplane: Xdp,
    /// The kernel keeps only those rings that are in the map, which needs their descriptors once.
    _rings: Vec<Ring>,
}

impl Node {
    /// `flags`: of its VIPs.
    pub(crate) fn new(flags: u16) -> Result<Self> {
        let mut dataplane = Dataplane::load(&LoadOptions::default())?;
        dataplane.load_steering(RingSize::DEFAULT)?;
        let router = dataplane.allocate_router()?;
        dataplane.words().store(router, MonotonicTime::now() + Duration::from_secs(3600));
        dataplane.set_nat_ports(&Ports::new(1024..=65_535, &[]))?;
        let vip = Vip { router: router.get(), link: 0, mac: OWN, answering: OWN, flags };
        let mut rings = Vec::new();
        for (number, address) in
            (0_u16..).zip([IpAddr::V4(Ipv4Addr::from(VIP4)), IpAddr::V6(Ipv6Addr::from(VIP6))])
        {
            dataplane.insert_vip(LOOPBACK, address, vip)?;
            rings.push(serve(&dataplane, 2 * number, address, Mode::Direct)?);
            rings.push(serve(&dataplane, 2 * number + 1, address, Mode::Nat)?);
        }
        let id = dataplane.program_id();
        let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
        let info = info.context("no program")?;
        let viplane = Xdp::from_program_info(info, "viplane".into(), XdpAttachType::Interface)?;
        Ok(Self { dataplane, viplane, _rings: rings })
    }

    /// Lets new flows be noted again.
    fn open_gate(&self) -> Result<()> {
        let mut gates: PerCpuArray<_, [u64; 2]> =
            PerCpuArray::try_from(Map::PerCpuArray(map(&self.dataplane, "NEW_FLOWS")?))?;
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let open: [u64; 2] = bytemuck::cast(Gate::default());
        Ok(gates.set(0, PerCpuValues::try_from(vec![open; cpus])?, 0)?)
    }

    /// Nanoseconds per frame, each of which comes to `verdict`.
    pub(crate) fn steer(&self, frame: &[u8], repeat: u32, verdict: u32) -> Result<i64> {
        run(&self.viplane, frame, repeat, verdict)
    }

    /// `viplane`, and the programs of steering.
    pub(crate) fn verified(&self) -> Vec<Verified> {
        let viplane = ("viplane", self.dataplane.verified_instructions());
        let programs = [&viplane].into_iter().chain(self.dataplane.verified_steering());
        programs.map(|(program, instructions)| Verified { program, instructions: *instructions }).collect()
    }
}

fn run(program: &Xdp, frame: &[u8], repeat: u32, verdict: u32) -> Result<i64> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = program.test_run(options).context("BPF_PROG_TEST_RUN (root is needed)")?;
    ensure!(result.return_value == verdict, "the frame came to {}", result.return_value);
    Ok(i64::try_from(result.duration.as_nanos())?)
}

fn map(dataplane: &Dataplane, name: &str) -> Result<MapData> {
    let map: BorrowedFd<'_> = dataplane.steering_map(name).with_context(|| format!("no map {name}"))?;
    Ok(MapData::from_fd(map.try_clone_to_owned()?)?)
}

/// A service on a TCP port of the VIP; the slots of its backends begin at 1 + 100 for each.
fn serve(dataplane: &Dataplane, service: u16, vip: IpAddr, mode: Mode) -> Result<Ring> {
    let (at, backends, flags) = match mode {
        Mode::Nat => (NAT_PORT, 1, service_flags::FULL_NAT),
        _ => (PORT, BACKENDS, 0),
    };
    let (address, family) = match vip {
        IpAddr::V4(vip) => (widened(vip.octets()), 4),
        IpAddr::V6(vip) => (vip.octets(), 6),
    };
    let key = ServiceKey { vip: address, port: at.to_be_bytes(), protocol: 6, family };
    let mut ports: HashMap<_, [u8; 20], [u8; 4]> =
        HashMap::try_from(Map::HashMap(map(dataplane, "SERVICE_PORTS")?))?;
    let port = ServicePort { service, shift: 0 };
    ports.insert(bytemuck::cast::<_, [u8; 20]>(key), bytemuck::cast::<_, [u8; 4]>(port), 0)?;
    let mut candidates = Vec::new();
    for number in 1..=backends {
        let slot = u32::from(service) * 100 + u32::from(number);
        let backend = Backend {
            address: if family == 4 { widened([number; 4]) } else { [number; 16] },
            ifindex: LOOPBACK,
            mac: [2, 0, 0, 0, 0xbb, number],
            own: OWN,
            mtu: 1500,
            service,
            flags: backend_flags::UP,
            family,
            ..Backend::zeroed()
        };
        set(dataplane, "BACKENDS", slot, bytemuck::cast::<_, [u64; 8]>(backend))?;
        candidates.push(Candidate::new([number; 16], NonZeroU32::new(slot).context("slot 0")?, 1));
    }
    let size = RingSize::DEFAULT;
    let mut entries = vec![0; size.get() as usize];
    fill(&mut entries, size, &mut candidates).map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let mut ring: Ring = Array::create(size.pairs(), MMAPABLE)?;
    for (index, pair) in (0..).zip(entries.chunks(2)) {
        ring.set(index, [pair[0], pair.get(1).copied().unwrap_or(0)], 0)?;
    }
    let mut rings: ArrayOfMaps<_, Ring> = ArrayOfMaps::try_from(Map::ArrayOfMaps(map(dataplane, "RINGS")?))?;
    rings.set(service.into(), &ring, 0)?;
    let definition = Service { ring_size: size.get(), mode: mode as u8, flags, ..Service::zeroed() };
    set(dataplane, "SERVICES", service.into(), bytemuck::cast::<_, [u8; 16]>(definition))?;
    Ok(ring)
}

/// An IPv4 address as tables have it.
fn widened(address: [u8; 4]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&address);
    wide
}

fn set<T: Pod>(dataplane: &Dataplane, array: &str, index: u32, value: T) -> Result<()> {
    Ok(Array::try_from(Map::Array(map(dataplane, array)?))?.set(index, value, 0)?)
}

fn segment(flags: u8, from: u16, to: u16) -> [u8; 20] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
}

fn segment4(flags: u8, port: u16) -> Vec<u8> {
    packet4([192, 0, 2, 9], &segment(flags, CLIENT_PORT, port))
}

fn segment6(flags: u8, port: u16) -> Vec<u8> {
    packet6([0x20; 16], &segment(flags, CLIENT_PORT, port))
}

fn packet4([a, b, c, d]: [u8; 4], segment: &[u8]) -> Vec<u8> {
    let [e, f, g, h] = VIP4;
    let header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, a, b, c, d, e, f, g, h];
    ethernet(0x0800, &[&header[..], segment].concat())
}

fn packet6(source: [u8; 16], segment: &[u8]) -> Vec<u8> {
    let start = [0x60, 0, 0, 0, 0, 20, 6, 64];
    ethernet(0x86dd, &[&start[..], &source, &VIP6, segment].concat())
}
