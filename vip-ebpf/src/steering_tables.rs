//! The steering maps, and steering's tables over them.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_COMMON_LRU, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use vip_common::steering::egress::{LocalFlow, LocalFlowKey};
use vip_common::steering::maglev::RingSize;
use vip_common::steering::reason::{BackendCounters, Outcome, ServiceCounters};
use vip_common::steering::tables::{
    ANSWERS_ADMITTED, AffinityKey, Backend, Choice, FragmentKey, Gate, MAX_AFFINITIES, MAX_BACKENDS,
    MAX_FLOWS, MAX_FRAGMENTS, MAX_SERVICE_PORTS, MAX_SERVICES, MAX_SOURCES, NEW_FLOWS_ADMITTED, RingPair,
    Service, ServiceKey, ServicePort, Source4Key, Source6Key, SteeredFlowKey, SteeringTables,
};
use vip_common::steering::tunnel_end::{MAX_TUNNEL_ENDS, TunnelEndKey, TunnelEnds};

use crate::egress::LOCAL_FLOWS;

const SERVICE_SLOTS: usize = MAX_SERVICES as usize;
const BACKEND_SLOTS: usize = MAX_BACKENDS as usize;
const SOURCES: usize = MAX_SOURCES as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const LISTS_PER_CPU: usize = BPF_F_NO_COMMON_LRU as usize;
const BY_USE: usize = BPF_F_NO_PREALLOC as usize;

/// The loader gives it as many entries as the agent's rings have.
type Ring = Array<RingPair, { RingSize::DEFAULT.pairs() as usize }, MMAPABLE>;

#[btf_map]
static SERVICE_PORTS: HashMap<ServiceKey, ServicePort, { MAX_SERVICE_PORTS as usize }, BY_USE> =
    HashMap::new();
#[btf_map]
static SERVICES: Array<Service, SERVICE_SLOTS> = Array::new();
#[btf_map]
static RINGS: ArrayOfMaps<Ring, SERVICE_SLOTS> = ArrayOfMaps::new();
#[btf_map]
static BACKENDS: Array<Backend, BACKEND_SLOTS> = Array::new();
#[btf_map]
static FLOWS: LruHashMap<SteeredFlowKey, Choice, { MAX_FLOWS as usize }, LISTS_PER_CPU> = LruHashMap::new();
#[btf_map]
static AFFINITIES: LruHashMap<AffinityKey, Choice, { MAX_AFFINITIES as usize }, LISTS_PER_CPU> =
    LruHashMap::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, Choice, { MAX_FRAGMENTS as usize }> = LruHashMap::new();
#[btf_map]
static SOURCES4: LpmTrie<Source4Key, u32, SOURCES> = LpmTrie::new();
#[btf_map]
static SOURCES6: LpmTrie<Source6Key, u32, SOURCES> = LpmTrie::new();
#[btf_map]
static NEW_FLOWS: PerCpuArray<Gate, 1> = PerCpuArray::new();
#[btf_map]
static ANSWERS: PerCpuArray<Gate, 1> = PerCpuArray::new();
#[btf_map]
static SERVICE_COUNTERS: PerCpuArray<ServiceCounters, { SERVICE_SLOTS + 1 }> = PerCpuArray::new();
#[btf_map]
static BACKEND_COUNTERS: PerCpuArray<BackendCounters, BACKEND_SLOTS> = PerCpuArray::new();

#[btf_map]
static TUNNEL_ENDS: HashMap<TunnelEndKey, u32, { MAX_TUNNEL_ENDS as usize }, BY_USE> = HashMap::new();

/// The ends of tunnels on this node.
pub(crate) struct Ends;

impl TunnelEnds for Ends {
    #[inline(always)]
    fn holds(&self, key: &TunnelEndKey) -> bool {
        TUNNEL_ENDS.get_ptr(key).is_some()
    }
}

/// Where keys and values stand when the kernel is asked for them: on the stack, those of all maps together would not find room,
/// and the verifier would tell states apart by what is left of them there.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    key: [u64; 6],
    value: [u64; 4],
    /// `struct bpf_fib_lookup`
    route: [u64; 8],
}
#[btf_map]
static ARGUMENTS: PerCpuArray<Arguments, 1> = PerCpuArray::new();

/// The maps, as one packet sees them.
pub(crate) struct SteeringMaps {
    now: u64,
    arguments: *mut Arguments,
    /// The packet's.
    pub(crate) ctx: *mut c_void,
}

impl SteeringMaps {
    /// At a time of the coarse clock, which the decision has read.
    #[inline(always)]
    pub(crate) fn at(now: u64, ctx: &impl EbpfContext) -> Option<Self> {
        Some(Self { now, arguments: ARGUMENTS.get_ptr_mut(0)?, ctx: ctx.as_ptr() })
    }

    /// Where the kernel is asked for a way.
    #[inline(always)]
    pub(crate) const fn route_question(&self) -> *mut [u64; 8] {
        // SAFETY: this CPU's own element.
        unsafe { &raw mut (*self.arguments).route }
    }

    /// The key, where the kernel reads it; until the next one.
    #[inline(always)]
    fn key<K>(&self, key: K) -> &K {
        const { assert!(size_of::<K>() <= size_of::<[u64; 6]>() && align_of::<K>() <= align_of::<u64>()) };
        // SAFETY: this CPU's own element, with room for it, which nothing else uses while this packet is looked at.
        unsafe {
            let place = (&raw mut (*self.arguments).key).cast::<K>();
            write_words(place, &key);
            &*place
        }
    }

    /// Likewise a value.
    #[inline(always)]
    fn value<V>(&self, value: V) -> &V {
        const { assert!(size_of::<V>() <= size_of::<[u64; 4]>() && align_of::<V>() <= align_of::<u64>()) };
        // SAFETY: as above.
        unsafe {
            let place = (&raw mut (*self.arguments).value).cast::<V>();
            write_words(place, &value);
            &*place
        }
    }

    /// Counts a packet of `bytes` from the IP header on, as [`Handoff::counted`] says.
    #[inline(always)]
    pub(crate) fn count(&self, (service, backend, outcome): (u32, u32, u32), bytes: u64) {
        if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(service)
            && outcome < Outcome::COUNT as u32
        {
            // SAFETY: this CPU's own element; the outcome is below the number of counters.
            unsafe {
                (*counters).bytes += bytes;
                let outcomes = (&raw mut (*counters).outcomes).cast::<u64>();
                *outcomes.add(outcome as usize) += 1;
            }
        }
        if backend != 0
            && let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend)
        {
            // SAFETY: this CPU's own element.
            unsafe {
                (*counters).packets += 1;
                (*counters).bytes += bytes;
                (*counters).new_flows += u64::from(outcome == Outcome::NewFlow as u32);
            }
        }
    }
}

/// Writes what the kernel is to read, as the words that it reads. Byte by byte, as LLVM would where the types say no more, each of
/// its reads waits until all bytes have left the store buffer, and zeros become a call of `memset`: 200 ns for the two keys of an
/// IPv4 packet where returns are dear.
///
/// # Safety
/// `place` can be written, and is aligned to eight bytes.
#[inline(always)]
unsafe fn write_words<T>(place: *mut T, from: &T) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let mut word = 0;
    while word < size_of::<T>() / 4 {
        // SAFETY: within both, of which no byte is padding: keys and values of maps have none.
        unsafe {
            let value = (&raw const *from).cast::<u32>().add(word).read_unaligned();
            place.cast::<u32>().add(word).write_volatile(value);
        }
        word += 1;
    }
}

/// A copy of a choice. Values of an LRU map may be replaced while they are read: then it is another flow's, of which the
/// generation and the service tell most, and the next packet the rest.
#[inline(always)]
fn copied(choice: Option<*const Choice>) -> Option<Choice> {
    // SAFETY: an element of a map, within which reading is always sound.
    choice.map(|choice| unsafe { ptr::read_volatile(choice) })
}

impl SteeringTables for SteeringMaps {
    #[inline(always)]
    fn service_port(&self, key: &ServiceKey) -> Option<ServicePort> {
        // SAFETY: copied at once.
        unsafe { SERVICE_PORTS.get(self.key(*key)) }.copied()
    }

    #[inline(always)]
    fn service(&self, service: u16) -> Option<&Service> {
        SERVICES.get(service.into())
    }

    #[inline(always)]
    fn ring(&self, service: u16, position: u32) -> u32 {
        let pair = RINGS.get_value(service.into(), &(position / 2)).copied();
        pair.map_or(0, |[even, odd]| if position.is_multiple_of(2) { even } else { odd })
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<&Backend> {
        BACKENDS.get(slot)
    }

    #[inline(always)]
    fn flow(&self, key: &SteeredFlowKey) -> Option<Choice> {
        copied(FLOWS.get_ptr(self.key(*key)))
    }

    #[inline(always)]
    fn note_flow(&self, key: &SteeredFlowKey, choice: Choice) {
        let _ = FLOWS.insert(self.key(*key), self.value(choice), BPF_ANY.into());
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Choice> {
        copied(AFFINITIES.get_ptr(self.key(*key)))
    }

    #[inline(always)]
    fn note_affinity(&self, key: &AffinityKey, choice: Choice) {
        let _ = AFFINITIES.insert(self.key(*key), self.value(choice), BPF_ANY.into());
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Choice> {
        copied(FRAGMENTS.get_ptr(self.key(*key)))
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey, choice: Choice) {
        let _ = FRAGMENTS.insert(self.key(*key), self.value(choice), BPF_ANY.into());
    }

    #[inline(always)]
    fn local_flow(&self, key: &LocalFlowKey) -> Option<LocalFlow> {
        // SAFETY: an element of a map, within which reading is always sound. Field by field: a copy would be on the stack.
        LOCAL_FLOWS.get_ptr(self.key(*key)).map(|flow| unsafe { *flow })
    }

    #[inline(always)]
    fn note_local_flow(&self, key: &LocalFlowKey, flow: &LocalFlow) {
        let _ = LOCAL_FLOWS.insert(self.key(*key), self.value(*flow), BPF_ANY.into());
    }

    #[inline(always)]
    fn is_allowed(&self, service: u16, family: u8, client: &[u8; 16]) -> bool {
        let service = service.into();
        match family {
            4 => {
                let [a, b, c, d, ..] = *client;
                SOURCES4.get(self.key(Key::new(64, Source4Key { service, address: [a, b, c, d] }))).is_some()
            }
            _ => SOURCES6.get(self.key(Key::new(160, Source6Key { service, address: *client }))).is_some(),
        }
    }

    #[inline(always)]
    fn admits_flow(&self, now: u64) -> bool {
        admits(NEW_FLOWS.get_ptr_mut(0), now, NEW_FLOWS_ADMITTED)
    }

    #[inline(always)]
    fn admits_answer(&self, now: u64) -> bool {
        admits(ANSWERS.get_ptr_mut(0), now, ANSWERS_ADMITTED)
    }

    #[inline(always)]
    fn now_coarse(&self) -> u64 {
        self.now
    }
}

#[inline(always)]
fn admits(gate: Option<*mut Gate>, now: u64, limit: u64) -> bool {
    // SAFETY: this CPU's own element.
    gate.is_some_and(|gate| unsafe { (*gate).admits(now, limit) })
}
