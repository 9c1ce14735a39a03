//! The programs in the kernel with services in their maps, and one frame at a time through them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp, loaded_programs};
use aya_obj::programs::XdpAttachType;
use vip_agent::dataplane::{Dataplane, LoadOptions};
use vip_agent::types::MonotonicTime;
use vip_common::maps::{Vip, VlanKey, vip_flags};
use vip_common::rewrite::Verdict;
use vip_common::steering::egress::{LocalFlow, LocalFlowKey};
use vip_common::steering::full_nat::tables::{NatFlow, NatReturn};
use vip_common::steering::maglev::RingSize;
use vip_common::steering::reason::Outcome;
use vip_common::steering::steer::FullNat;
use vip_common::steering::tables::{Backend, Choice, Closed, Gate, MAX_SERVICES, RingPair, SteeredFlowKey};
use vip_common::steering::tunnel_end::TunnelEndKey;

use crate::packets::{ENDS4, ENDS6, Ends, OWN};
use crate::world::{IFINDEX, RING, World, slot};

/// BPF_F_MMAPABLE, which inner maps have as the program declares them.
const MMAPABLE: u32 = 1 << 10;
/// Bytes in front of each frame that real NICs leave as they were. The most that the kernel takes as metadata.
const POISON: [u8; 32] = [0xff; 32];
/// Room for what is put in front of a frame.
const GROWTH: usize = 256;

/// Two entries in each element.
type Ring = Array<MapData, RingPair>;

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) verdict: Verdict,
    pub(crate) frame: Vec<u8>,
    /// Counters of services that rose by one: the service ([`MAX_SERVICES`]: none), and the index of the outcome.
    pub(crate) counted: Vec<(u32, usize)>,
    /// Backends that a packet more went to.
    pub(crate) backends: Vec<u32>,
}

/// The loaded programs.
pub(crate) struct Kernel {
    pub(crate) dataplane: Dataplane,
    /// The interface that frames come by, which [`IFINDEX`] stands for.
    ifindex: u32,
    viplane: Xdp,
    egress: SchedClassifier,
    /// The kernel keeps only those rings that are in the map, which needs their descriptors once.
    rings: Vec<Ring>,
    services: u32,
    backends: Vec<u32>,
}

impl Kernel {
    /// An owner of both VIPs, with the services of the world.
    pub(crate) fn with(world: &World) -> Result<Self> {
        Self::on(IFINDEX, world)
    }

    /// Likewise, where frames come by this interface.
    pub(crate) fn on(ifindex: u32, world: &World) -> Result<Self> {
        let mut dataplane = Dataplane::load(&LoadOptions::default())?;
        dataplane.load_steering(RingSize::new(RING).context("a prime")?)?;
        let router = dataplane.allocate_router()?;
        dataplane.words().store(router, MonotonicTime::now() + Duration::from_secs(3600));
        let closed = match world.closed {
            Closed::Pass => 0,
            Closed::Drop => vip_flags::CLOSED_DROP,
            Closed::Reject => vip_flags::CLOSED_REJECT,
        };
        let echo = if world.echo { vip_flags::ECHO } else { 0 };
        let full_nat = if world.full_nat == FullNat::Nothing { 0 } else { vip_flags::FULL_NAT };
        let flags = vip_flags::SERVICES | echo | closed | full_nat;
        dataplane.set_nat_ports(&world.nat.ports)?;
        let vip = Vip { router: router.get(), link: 0, mac: OWN, answering: OWN, flags };
        for ends in [ENDS4, ENDS6] {
            dataplane.insert_vip(ifindex, address_of_vip(ends), vip)?;
        }
        for (outer, inner) in [(100, 0), (100, 200)] {
            dataplane.insert_vlan(VlanKey { parent: ifindex, outer, inner }, ifindex)?;
        }
        let id = dataplane.program_id();
        let loaded = |wanted| {
            let mut programs = loaded_programs().filter_map(Result::ok);
            programs.find(|info| info.id() == wanted).context("the program is not there")
        };
        let viplane = Xdp::from_program_info(loaded(id)?, "viplane".into(), XdpAttachType::Interface)?;
        let egress = dataplane.egress_program().context("steering is loaded")?;
        let egress = loaded(id_of(egress)?)?;
        let egress = SchedClassifier::from_program_info(egress, "vip_egress".into())?;
        let (rings, backends) = (Vec::new(), Vec::new());
        let mut kernel = Self { dataplane, ifindex, viplane, egress, rings, services: 0, backends };
        kernel.fill(world)?;
        Ok(kernel)
    }

    /// What the agent does when a set changes.
    pub(crate) fn fill(&mut self, world: &World) -> Result<()> {
        let mut ports: HashMap<_, [u8; 20], [u8; 4]> =
            HashMap::try_from(Map::HashMap(self.map("SERVICE_PORTS")?))?;
        for (key, port) in &world.ports {
            ports.insert(bytemuck::cast::<_, [u8; 20]>(*key), bytemuck::cast::<_, [u8; 4]>(*port), 0)?;
        }
        let mut sources4: LpmTrie<_, [u8; 8], u32> = LpmTrie::try_from(Map::LpmTrie(self.map("SOURCES4")?))?;
        let mut sources6: LpmTrie<_, [u8; 20], u32> = LpmTrie::try_from(Map::LpmTrie(self.map("SOURCES6")?))?;
        for (service, client) in &world.allowed {
            let service = u32::from(*service).to_ne_bytes();
            let of4 = world
                .ports
                .iter()
                .any(|(key, port)| u32::from(port.service).to_ne_bytes() == service && key.family == 4);
            if of4 {
                let key = [&service[..], &client[..4]].concat();
                sources4.insert(&Key::new(64, key.as_slice().try_into()?), 1, 0)?;
            } else {
                let key = [&service[..], &client[..]].concat();
                sources6.insert(&Key::new(160, key.as_slice().try_into()?), 1, 0)?;
            }
        }
        for (slot, backend) in &world.backends {
            let ifindex = if backend.ifindex == IFINDEX { self.ifindex } else { backend.ifindex };
            let backend = Backend { ifindex, ..*backend };
            self.set("BACKENDS", *slot, bytemuck::cast::<_, [u64; 8]>(backend))?;
        }
        self.rings.clear();
        for (number, service) in (0..).zip(&world.services) {
            self.set("SERVICES", number, bytemuck::cast::<_, [u8; 16]>(*service))?;
            self.set_ring(number, &world.rings[number as usize])?;
        }
        self.services = u32::try_from(world.services.len())?;
        self.backends = world.backends.keys().copied().collect();
        self.backends.sort_unstable();
        Ok(())
    }

    fn set_ring(&mut self, service: u32, entries: &[Option<usize>]) -> Result<()> {
        let mut ring: Ring = Array::create(RingSize::new(RING).context("a prime")?.pairs(), MMAPABLE)?;
        let slot = |member: &Option<usize>| member.map_or(0, |member| slot(service as usize, member));
        for (index, pair) in (0..).zip(entries.chunks(2)) {
            let [even, odd] = [pair.first(), pair.get(1)].map(|member| member.map_or(0, slot));
            ring.set(index, [even, odd], 0)?;
        }
        let mut rings: ArrayOfMaps<_, Ring> = ArrayOfMaps::try_from(Map::ArrayOfMaps(self.map("RINGS")?))?;
        rings.set(service, &ring, 0)?;
        self.rings.push(ring);
        Ok(())
    }

    fn map(&self, name: &str) -> Result<MapData> {
        let map = self.dataplane.steering_map(name).with_context(|| format!("no map {name}"))?;
        Ok(MapData::from_fd(map.as_fd().try_clone_to_owned()?)?)
    }

    fn set<T: Pod>(&self, array: &str, index: u32, value: T) -> Result<()> {
        Ok(Array::try_from(Map::Array(self.map(array)?))?.set(index, value, 0)?)
    }

    /// The flows that are noted.
    pub(crate) fn flows(&self) -> Result<BTreeMap<[u8; 24], Choice>> {
        let flows: HashMap<_, [u8; 24], [u8; 16]> = HashMap::try_from(Map::LruHashMap(self.map("FLOWS")?))?;
        flows
            .iter()
            .map(|entry| entry.map(|(key, choice)| (key, bytemuck::cast(choice))).map_err(Into::into))
            .collect()
    }

    /// The flows of full NAT, each by what its client's packets name.
    pub(crate) fn nat_flows(&self) -> Result<BTreeMap<[u8; 24], NatFlow>> {
        let map: HashMap<_, [u8; 24], [u64; 7]> = HashMap::try_from(Map::LruHashMap(self.map("NAT_FLOWS")?))?;
        let entry = |entry: Result<_, MapError>| Ok(entry.map(|(key, flow)| (key, bytemuck::cast(flow)))?);
        map.iter().map(entry).collect()
    }

    /// Their ways back, each by what its backend's packets name.
    pub(crate) fn nat_returns(&self) -> Result<BTreeMap<[u8; 40], NatReturn>> {
        let map: HashMap<_, [u8; 40], [u64; 10]> =
            HashMap::try_from(Map::LruHashMap(self.map("NAT_RETURNS")?))?;
        let entry = |entry: Result<_, MapError>| Ok(entry.map(|(key, back)| (key, bytemuck::cast(back)))?);
        map.iter().map(entry).collect()
    }

    /// Changes one of those, or makes it.
    pub(crate) fn put_nat_return(&self, key: [u8; 40], back: NatReturn) -> Result<()> {
        let mut map: HashMap<_, [u8; 40], [u64; 10]> =
            HashMap::try_from(Map::LruHashMap(self.map("NAT_RETURNS")?))?;
        Ok(map.insert(key, bytemuck::cast::<_, [u64; 10]>(back), 0)?)
    }

    /// Forgets what a client's packets become.
    pub(crate) fn remove_nat_flow(&self, key: [u8; 24]) -> Result<()> {
        let mut map: HashMap<_, [u8; 24], [u64; 7]> =
            HashMap::try_from(Map::LruHashMap(self.map("NAT_FLOWS")?))?;
        Ok(map.remove(&key)?)
    }

    /// How much a gate has let through in this interval, on every CPU.
    pub(crate) fn set_gate(&self, name: &str, gate: Gate) -> Result<()> {
        let mut gates: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(Map::PerCpuArray(self.map(name)?))?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let gate: [u64; 2] = bytemuck::cast(gate);
        Ok(gates.set(0, PerCpuValues::try_from(vec![gate; cpus])?, 0)?)
    }

    /// Runs a frame through the program once.
    pub(crate) fn run(&self, frame: &[u8]) -> Result<Run> {
        self.set_gate("ANSWERS", Gate::default())?;
        self.run_through_gates(frame)
    }

    /// Likewise, where the gates stand as they are.
    pub(crate) fn run_through_gates(&self, frame: &[u8]) -> Result<Run> {
        let before = (self.outcomes()?, self.packets()?);
        let mut out = vec![0; POISON.len() + frame.len() + GROWTH];
        let input = [&POISON[..], frame].concat();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context: [u32; 6] =
            [u32::try_from(POISON.len())?, u32::try_from(input.len())?, 0, self.ifindex, 0, 0];
        let mut context_out = [0_u32; 6];
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut out),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            ctx_out: Some(bytemuck::bytes_of_mut(&mut context_out)),
            ..TestRunOptions::default()
        };
        let result = self.viplane.test_run(options).context("BPF_PROG_TEST_RUN")?;
        out.truncate(usize::try_from(result.data_size_out)?);
        let out = out.get(context_out[0] as usize..).context("data begins behind the end")?.to_vec();
        let verdict = match result.return_value {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Transmit,
            other => bail!("the program returned {other}"),
        };
        let counted = risen(&before.0, &self.outcomes()?)?;
        let backends = risen(&before.1, &self.packets()?)?;
        Ok(Run { verdict, frame: out, counted, backends })
    }

    /// Sends a frame on its way out: what the program returned, and what it made of it.
    pub(crate) fn leave(&self, frame: &[u8]) -> Result<(i32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + GROWTH];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.egress.test_run(options).context("BPF_PROG_TEST_RUN")?;
        out.truncate(usize::try_from(result.data_size_out)?);
        Ok((result.return_value.cast_signed(), out))
    }

    /// The flows of local backends.
    pub(crate) fn local_flows(&self) -> Result<BTreeMap<[u8; 40], LocalFlow>> {
        let flows: HashMap<_, [u8; 40], [u64; 4]> =
            HashMap::try_from(Map::LruHashMap(self.map("LOCAL_FLOWS")?))?;
        flows
            .iter()
            .map(|entry| entry.map(|(key, flow)| (key, bytemuck::cast(flow))).map_err(Into::into))
            .collect()
    }

    /// Makes a flow of a local backend another.
    pub(crate) fn set_local_flow(&self, key: LocalFlowKey, flow: LocalFlow) -> Result<()> {
        let mut flows: HashMap<_, [u8; 40], [u64; 4]> =
            HashMap::try_from(Map::LruHashMap(self.map("LOCAL_FLOWS")?))?;
        Ok(flows.insert(bytemuck::cast::<_, [u8; 40]>(key), bytemuck::cast::<_, [u64; 4]>(flow), 0)?)
    }

    /// Makes this node the end of a tunnel, for a VIP.
    pub(crate) fn end_tunnel(&self, key: TunnelEndKey) -> Result<()> {
        let mut ends: HashMap<_, [u8; 36], u32> = HashMap::try_from(Map::HashMap(self.map("TUNNEL_ENDS")?))?;
        Ok(ends.insert(bytemuck::cast::<_, [u8; 36]>(key), 1, 0)?)
    }

    fn outcomes(&self) -> Result<BTreeMap<(u32, usize), u64>> {
        let counters: PerCpuArray<_, [u64; 1 + Outcome::COUNT]> =
            PerCpuArray::try_from(Map::PerCpuArray(self.map("SERVICE_COUNTERS")?))?;
        let mut sums = BTreeMap::new();
        for service in (0..self.services).chain([MAX_SERVICES]) {
            for [_, outcomes @ ..] in counters.get(&service, 0)?.iter() {
                for (index, count) in outcomes.iter().enumerate() {
                    *sums.entry((service, index)).or_default() += count;
                }
            }
        }
        Ok(sums)
    }

    fn packets(&self) -> Result<BTreeMap<u32, u64>> {
        let counters: PerCpuArray<_, [u64; 3]> =
            PerCpuArray::try_from(Map::PerCpuArray(self.map("BACKEND_COUNTERS")?))?;
        let sum = |slot: &u32| Ok((*slot, counters.get(slot, 0)?.iter().map(|[packets, ..]| packets).sum()));
        self.backends.iter().map(sum).collect()
    }
}

/// A program's id, as the kernel says it of its descriptor.
fn id_of(program: BorrowedFd<'_>) -> Result<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")).context("no program")?;
    Ok(id.trim().parse()?)
}

fn risen<K: Copy + Ord + std::fmt::Debug>(
    before: &BTreeMap<K, u64>,
    after: &BTreeMap<K, u64>,
) -> Result<Vec<K>> {
    let mut risen = Vec::new();
    for (key, after) in after {
        match after - before.get(key).copied().unwrap_or_default() {
            0 => {}
            1 => risen.push(*key),
            more => bail!("{key:?} rose by {more}"),
        }
    }
    ensure!(risen.len() < 2, "{risen:?} rose");
    Ok(risen)
}

fn address_of_vip(ends: Ends) -> IpAddr {
    match ends {
        Ends::V4(_, vip) => Ipv4Addr::from(vip).into(),
        Ends::V6(_, vip) => Ipv6Addr::from(vip).into(),
    }
}

/// The key of a flow as bytes.
pub(crate) fn key_of(key: SteeredFlowKey) -> [u8; 24] {
    bytemuck::cast(key)
}
