//! The maps of full NAT, and its tables over them.

use core::mem;
use core::ptr;

use aya_ebpf::bindings::{BPF_EXIST, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_NOEXIST, bpf_fib_lookup as FibLookup};
use aya_ebpf::btf_maps::{Array, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_get_prandom_u32};
use aya_ebpf::macros::btf_map;
use vip_common::decision::Family;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::full_nat::tables::{
    MAX_NAT_FLOWS, NatFlow, NatHop, NatKey, NatReturn, NatTables, NatWork, Routed,
};
use vip_common::steering::tables::{FlowState, SteeredFlowKey};

use crate::steering_tables::SteeringMaps;

const ENTRIES: usize = MAX_NAT_FLOWS as usize;

/// One LRU list each, not one for each CPU: no entry is to go while others are older.
#[btf_map]
static NAT_FLOWS: LruHashMap<SteeredFlowKey, NatFlow, ENTRIES> = LruHashMap::new();
#[btf_map]
static NAT_RETURNS: LruHashMap<NatKey, NatReturn, ENTRIES> = LruHashMap::new();
#[btf_map]
static NAT_PORTS: Array<Ports, 1> = Array::new();
#[btf_map]
static NAT_WORK: PerCpuArray<NatWork, 1> = PerCpuArray::new();

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// This CPU's working memory.
#[inline(always)]
pub(crate) fn work() -> Option<*mut NatWork> {
    NAT_WORK.get_ptr_mut(0)
}

/// Copies an entry. Values of an LRU map may be another flow's while they are read: then this one has just been evicted.
#[inline(always)]
fn copied<T: Copy>(entry: Option<*const T>, to: &mut T) -> bool {
    let Some(entry) = entry else { return false };
    // SAFETY: an element of a map, within which reading is always sound; `to` is no element of that map.
    unsafe { ptr::copy_nonoverlapping(entry, to, 1) };
    true
}

impl NatTables for SteeringMaps {
    #[inline(always)]
    fn nat_ports(&self, ports: &mut Ports) {
        match NAT_PORTS.get(0) {
            Some(known) => *ports = *known,
            None => *ports = Ports::NONE,
        }
    }

    #[inline(always)]
    fn nat_flow(&self, key: &SteeredFlowKey, flow: &mut NatFlow) -> bool {
        copied(NAT_FLOWS.get_ptr(key), flow)
    }

    #[inline(always)]
    fn insert_nat_flow(&self, key: &SteeredFlowKey, flow: &NatFlow) -> bool {
        NAT_FLOWS.insert(key, flow, BPF_NOEXIST.into()).is_ok()
    }

    #[inline(always)]
    fn touch_nat_flow(&self, key: &SteeredFlowKey, seen: u64, state: FlowState) {
        if let Some(flow) = NAT_FLOWS.get_ptr_mut(key) {
            // SAFETY: an element of a map; each of both is stored at once.
            unsafe {
                (&raw mut (*flow).seen).write_volatile(seen);
                (&raw mut (*flow).state).write_volatile(state as u8);
            }
        }
    }

    #[inline(always)]
    fn remove_nat_flow(&self, key: &SteeredFlowKey) {
        let _ = NAT_FLOWS.remove(key);
    }

    #[inline(always)]
    fn nat_return(&self, key: &NatKey, back: &mut NatReturn) -> bool {
        copied(NAT_RETURNS.get_ptr(key), back)
    }

    #[inline(always)]
    fn insert_nat_return(&self, key: &NatKey, back: &NatReturn) -> bool {
        NAT_RETURNS.insert(key, back, BPF_NOEXIST.into()).is_ok()
    }

    #[inline(always)]
    fn touch_nat_return(&self, key: &NatKey, seen: u64, state: FlowState) {
        if let Some(back) = NAT_RETURNS.get_ptr_mut(key) {
            // SAFETY: as above.
            unsafe {
                (&raw mut (*back).seen).write_volatile(seen);
                (&raw mut (*back).state).write_volatile(state as u8);
            }
        }
    }

    #[inline(always)]
    fn replace_nat_return(&self, key: &NatKey, back: &NatReturn) {
        let _ = NAT_RETURNS.insert(key, back, BPF_EXIST.into());
    }

    #[inline(always)]
    fn remove_nat_return(&self, key: &NatKey) {
        let _ = NAT_RETURNS.remove(key);
    }

    /// By the rules for packets that this interface takes in, which do not ask where the source is at home.
    #[inline(always)]
    fn route(
        &self,
        family: Family,
        ifindex: u32,
        vip: &[u8; 16],
        client: &[u8; 16],
        hop: &mut NatHop,
    ) -> Routed {
        let (ctx, question) = (self.ctx, self.route_question().cast::<FibLookup>());
        // SAFETY: this CPU's own memory, with room for it, all zero before; each union is read as it was written, and zero means
        // in all of them that nothing is said.
        let answer = unsafe {
            question.write(mem::zeroed());
            (*question).ifindex = ifindex;
            match family {
                Family::V4 => {
                    (*question).family = AF_INET;
                    (*question).__bindgen_anon_3.ipv4_src = word(vip);
                    (*question).__bindgen_anon_4.ipv4_dst = word(client);
                }
                Family::V6 => {
                    (*question).family = AF_INET6;
                    (*question).__bindgen_anon_3.ipv6_src = mem::transmute::<[u8; 16], [u32; 4]>(*vip);
                    (*question).__bindgen_anon_4.ipv6_dst = mem::transmute::<[u8; 16], [u32; 4]>(*client);
                }
            }
            bpf_fib_lookup(ctx, question, size_of::<FibLookup>() as i32, 0)
        };
        if answer == BPF_FIB_LKUP_RET_NO_NEIGH.into() {
            return Routed::Unresolved;
        }
        if answer != 0 {
            return Routed::Nowhere;
        }
        // SAFETY: as above. Before Linux 5.13 the MTU stays zero: nothing is known of it.
        *hop = unsafe {
            NatHop {
                ifindex: (*question).ifindex,
                mac: (*question).dmac,
                own: (*question).smac,
                mtu: (*question).__bindgen_anon_1.mtu_result,
                reserved: 0,
            }
        };
        Routed::Known
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: it asks for nothing.
        unsafe { bpf_get_prandom_u32() }
    }

    /// By way of memory, of whose contents the verifier knows nothing.
    #[inline(always)]
    fn blurred(&self, place: u32) -> u32 {
        let memory = self.route_question().cast::<u32>();
        // SAFETY: this CPU's own memory, with room for it, and nothing else is in it now.
        unsafe {
            memory.write_volatile(place);
            memory.read_volatile()
        }
    }
}

/// An IPv4 address as the kernel has it in a word.
#[inline(always)]
const fn word(&[a, b, c, d, ..]: &[u8; 16]) -> u32 {
    u32::from_ne_bytes([a, b, c, d])
}
