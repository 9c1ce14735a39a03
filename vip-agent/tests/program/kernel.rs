//! The object in the kernel, with a world in its maps, and one frame at a time through it.

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use vip_agent::dataplane::OBJECT;
use vip_common::maps::{ForeignOwner, Handover, Peer};
use vip_common::reason::Reason;

use crate::common::world::{LINK, ROUTER, TAILROOM, World};

/// XDP_DROP, XDP_PASS, XDP_TX (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Pass,
    Transmit,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// The frame afterwards.
    pub(crate) frame: Vec<u8>,
    /// Names of the counters that rose by one.
    pub(crate) counted: Vec<&'static str>,
}

pub(crate) struct Kernel {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
}

impl Kernel {
    pub(crate) fn with(world: &World) -> Result<Self> {
        // Without the kernel's types, which nothing here needs and which take long to read.
        let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT)?;
        let program: &mut Xdp = ebpf.program_mut("viplane").context("no program viplane")?.try_into()?;
        match program.load() {
            Err(ProgramError::LoadError { io_error, verifier_log }) => bail!("{io_error}: {verifier_log}"),
            loaded => loaded?,
        }
        let events = RingBuf::try_from(ebpf.take_map("EVENTS").context("no map EVENTS")?)?;
        let mut kernel = Self { ebpf, events };
        kernel.fill(world)?;
        Ok(kernel)
    }

    fn fill(&mut self, world: &World) -> Result<()> {
        self.insert("VIPS4", &world.vips4, bytemuck::cast::<_, [u8; 8]>, bytemuck::cast::<_, [u8; 18]>)?;
        self.insert("VIPS6", &world.vips6, bytemuck::cast::<_, [u8; 20]>, bytemuck::cast::<_, [u8; 18]>)?;
        self.insert(
            "VIRTUAL_MACS",
            &world.virtual_macs,
            bytemuck::cast::<_, [u8; 8]>,
            bytemuck::cast::<_, [u8; 18]>,
        )?;
        self.insert("VLANS", &world.vlans, bytemuck::cast::<_, [u8; 8]>, u32::to_ne_bytes)?;
        self.insert("HEARTBEAT_LINKS", &world.heartbeat_links, |index| index, bytemuck::cast::<_, [u8; 32]>)?;
        for (slot, peer) in world.peers.borrow().iter() {
            self.set("PEERS", *slot, *peer)?;
        }
        for (word, bits) in (0..).zip(world.filter.words()) {
            self.set("FILTER", word, *bits)?;
        }
        self.set_deadline(world.deadline)?;
        self.set_handover(world.handover)
    }

    fn insert<K: Copy, V: Copy, KeyBytes: Pod, ValueBytes: Pod>(
        &mut self,
        name: &str,
        entries: &std::collections::HashMap<K, V>,
        key: fn(K) -> KeyBytes,
        value: fn(V) -> ValueBytes,
    ) -> Result<()> {
        let mut map: HashMap<_, KeyBytes, ValueBytes> = HashMap::try_from(self.map(name)?)?;
        entries.iter().try_for_each(|(k, v)| Ok(map.insert(key(*k), value(*v), 0)?))
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    /// Stores into an array map.
    pub(crate) fn set<T: Pod>(&mut self, array: &str, index: u32, value: T) -> Result<()> {
        Ok(Array::try_from(self.map(array)?)?.set(index, value, 0)?)
    }

    /// When the router's last event went out.
    pub(crate) fn last_event(&mut self) -> Result<u64> {
        Ok(Array::<_, u64>::try_from(self.map("EVENT_GATES")?)?.get(&ROUTER.into(), 0)?)
    }

    /// What is known of a peer.
    pub(crate) fn peer(&self, slot: u32) -> Result<Peer> {
        let peers = self.ebpf.map("PEERS").context("no map PEERS")?;
        Ok(Array::<_, Peer>::try_from(peers)?.get(&slot, 0)?)
    }

    /// Until when the VIPs are owned: CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn set_deadline(&mut self, deadline: u64) -> Result<()> {
        self.set("DEADLINES", ROUTER.into(), deadline)
    }

    /// Whom the VIPs were taken over from, and until when it serves its connections.
    pub(crate) fn set_handover(&mut self, handover: Handover) -> Result<()> {
        let handover: [u64; 3] = bytemuck::cast(handover);
        self.set("HANDOVERS", ROUTER.into(), handover)
    }

    /// Runs the frame through the program once.
    pub(crate) fn run(&self, frame: &[u8]) -> Result<Outcome> {
        let before = self.counters()?;
        let (verdict, out) = self.run_repeatedly(frame, 1)?;
        let mut counted = Vec::new();
        for ((reason, before), after) in Reason::ALL.into_iter().zip(before).zip(self.counters()?) {
            match after - before {
                0 => {}
                1 => counted.push(reason.name()),
                more => bail!("{} rose by {more}", reason.name()),
            }
        }
        Ok(Outcome { verdict, frame: out, counted })
    }

    /// Runs the frame through the program; what comes out is what the last run made of it.
    pub(crate) fn run_repeatedly(&self, frame: &[u8], repeat: u32) -> Result<(Verdict, Vec<u8>)> {
        let mut out = vec![0; frame.len() + TAILROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self.program()?.test_run(options)?;
        out.truncate(usize::try_from(result.data_size_out)?);
        let verdict = match result.return_value {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Transmit,
            other => bail!("the program returned {other}"),
        };
        Ok((verdict, out))
    }

    pub(crate) fn program(&self) -> Result<&Xdp> {
        Ok(self.ebpf.program("viplane").context("no program viplane")?.try_into()?)
    }

    /// The counters of the one interface, in the order of [`Reason::ALL`].
    pub(crate) fn counters(&self) -> Result<Vec<u64>> {
        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map("COUNTERS").context("no map COUNTERS")?)?;
        Reason::ALL
            .into_iter()
            .map(|reason| Ok(counters.get(&reason.counter(LINK), 0)?.iter().sum()))
            .collect()
    }

    pub(crate) fn counter(&self, reason: Reason) -> Result<u64> {
        Ok(self.counters()?[reason as usize])
    }

    /// All events since the last call.
    pub(crate) fn events(&mut self) -> Vec<ForeignOwner> {
        std::iter::from_fn(|| self.events.next().map(|record| bytemuck::pod_read_unaligned(&record)))
            .collect()
    }
}

/// The frame went out again as `frame`.
pub(crate) fn transmitted(frame: Vec<u8>, counter: &'static str) -> Outcome {
    Outcome { verdict: Verdict::Transmit, frame, counted: vec![counter] }
}

/// The frame went up as it came.
pub(crate) fn passed(frame: &[u8], counted: &[&'static str]) -> Outcome {
    Outcome { verdict: Verdict::Pass, frame: frame.to_vec(), counted: counted.to_vec() }
}

/// The frame ended here, as it came.
pub(crate) fn dropped(frame: &[u8], counter: &'static str) -> Outcome {
    Outcome { verdict: Verdict::Drop, frame: frame.to_vec(), counted: vec![counter] }
}
