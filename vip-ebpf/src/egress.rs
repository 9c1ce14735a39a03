//! Traffic control on its way out: what local backends of mode `nat` send to clients is the VIP's again.

use core::{mem, ptr};

use aya_ebpf::bindings::{
    __sk_buff, BPF_ANY, BPF_F_MARK_MANGLED_0, BPF_F_NO_COMMON_LRU, BPF_F_PSEUDO_HDR, TC_ACT_SHOT,
    TC_ACT_UNSPEC,
};
use aya_ebpf::btf_maps::{LruHashMap, PerCpuArray};
use aya_ebpf::helpers::{
    bpf_ktime_get_coarse_ns, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes,
    bpf_skb_store_bytes,
};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use vip_common::packet::Bytes;
use vip_common::packet::checksum::Delta;
use vip_common::steering::egress::{
    Covered, EgressTables, Leaving, Left, LocalFlow, LocalFlowKey, MAX_LOCAL_FLOWS, MAX_LOCAL_FRAGMENTS,
    restore,
};
use vip_common::steering::tables::FragmentKey;

#[btf_map]
pub(crate) static LOCAL_FLOWS: LruHashMap<
    LocalFlowKey,
    LocalFlow,
    { MAX_LOCAL_FLOWS as usize },
    { BPF_F_NO_COMMON_LRU as usize },
> = LruHashMap::new();
#[btf_map]
static LOCAL_FRAGMENTS: LruHashMap<FragmentKey, LocalFlow, { MAX_LOCAL_FRAGMENTS as usize }> =
    LruHashMap::new();

/// Where bytes, keys and values stand when the kernel is asked for them: on the stack, each would have a place of its own.
#[repr(C)]
#[derive(Clone, Copy)]
struct Work {
    bytes: [u64; 2],
    key: [u64; 5],
    value: [u64; 4],
}
#[btf_map]
static EGRESS_WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// Gives back to the VIP what leaves for its clients; other programs on the interface see it, or do what they do with the rest.
#[classifier]
fn vip_egress(ctx: TcContext) -> i32 {
    let Some(work) = EGRESS_WORK.get_ptr_mut(0) else { return TC_ACT_UNSPEC };
    match restore(&mut Outgoing { skb: ctx.skb.skb, work }, &LocalMaps { work }) {
        Left::AsItWas | Left::Restored => TC_ACT_UNSPEC,
        // Half the VIP's, half the backend's: nobody is to see that.
        Left::Broken => TC_ACT_SHOT,
    }
}

/// The packet under the program. Of one that is not in one piece, not even all headers need be in the first: so it is read and
/// written by helpers only.
struct Outgoing {
    skb: *mut __sk_buff,
    work: *mut Work,
}

impl Bytes for Outgoing {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(matches!(N, 1 | 2 | 4 | 8), "the widths of BPF's loads") };
        // SAFETY: this CPU's own element, which nothing else uses while this packet is looked at; the helper writes N bytes to it,
        // or says that it did not. Numbers in memory order begin with the bytes that were read.
        unsafe {
            let place = &raw mut (*self.work).bytes;
            if bpf_skb_load_bytes(self.skb.cast(), offset as u32, place.cast(), N as u32) != 0 {
                return None;
            }
            let place = place.cast::<u64>();
            Some(match N {
                1 => mem::transmute_copy(&place.cast::<u8>().read_volatile()),
                2 => mem::transmute_copy(&place.cast::<u16>().read_volatile()),
                4 => mem::transmute_copy(&place.cast::<u32>().read_volatile()),
                _ => mem::transmute_copy(&place.read_volatile()),
            })
        }
    }
}

impl Leaving for Outgoing {
    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        const { assert!(N <= size_of::<[u64; 2]>()) };
        // SAFETY: as above; the helper reads the N bytes that were written there.
        let result = unsafe {
            let place = &raw mut (*self.work).bytes;
            place.cast::<[u8; N]>().write(bytes);
            bpf_skb_store_bytes(self.skb, at as u32, place.cast(), N as u32, 0)
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn adjust_header(&mut self, at: usize, delta: Delta) -> Option<()> {
        // SAFETY: a call with numbers; size 0 says that the last but one is a difference.
        let result = unsafe { bpf_l3_csum_replace(self.skb, at as u32, 0, delta.folded().into(), 0) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn adjust_transport(&mut self, at: usize, delta: Delta, covered: Covered, udp: bool) -> Option<()> {
        let pseudo = if covered == Covered::Addresses { BPF_F_PSEUDO_HDR } else { 0 };
        let mangled = if udp { BPF_F_MARK_MANGLED_0 } else { 0 };
        let flags = u64::from(pseudo | mangled);
        // SAFETY: as above.
        let result = unsafe { bpf_l4_csum_replace(self.skb, at as u32, 0, delta.folded().into(), flags) };
        (result == 0).then_some(())
    }
}

/// The maps, for what goes out.
struct LocalMaps {
    work: *mut Work,
}

impl LocalMaps {
    /// The key, where the kernel reads it; until the next one.
    #[inline(always)]
    fn key<K: Copy>(&self, key: &K) -> &K {
        const { assert!(size_of::<K>() <= size_of::<[u64; 5]>() && align_of::<K>() <= align_of::<u64>()) };
        // SAFETY: this CPU's own element, with room for it, which nothing else uses while this packet is looked at.
        unsafe {
            let place = (&raw mut (*self.work).key).cast::<K>();
            place.write(*key);
            &*place
        }
    }

    /// Likewise a value.
    #[inline(always)]
    fn value(&self, flow: &LocalFlow) -> &LocalFlow {
        const { assert!(size_of::<LocalFlow>() <= size_of::<[u64; 4]>()) };
        // SAFETY: as above.
        unsafe {
            let place = (&raw mut (*self.work).value).cast::<LocalFlow>();
            place.write(*flow);
            &*place
        }
    }
}

/// A copy of an entry, which may be replaced while it is read: then it is another flow's of this backend for one packet.
#[inline(always)]
fn copied(flow: Option<*const LocalFlow>) -> Option<LocalFlow> {
    // SAFETY: an element of a map, within which reading is always sound.
    flow.map(|flow| unsafe { ptr::read_volatile(flow) })
}

impl EgressTables for LocalMaps {
    type Known = *mut LocalFlow;

    #[inline(always)]
    fn local_flow(&self, key: &LocalFlowKey) -> Option<*mut LocalFlow> {
        LOCAL_FLOWS.get_ptr_mut(self.key(key))
    }

    #[inline(always)]
    fn read(&self, known: *mut LocalFlow) -> LocalFlow {
        // SAFETY: an element of a map, within which reading is always sound.
        unsafe { ptr::read_volatile(known) }
    }

    #[inline(always)]
    fn refresh(&self, known: *mut LocalFlow, seen: u64, state: u8) {
        // SAFETY: likewise; each of the two is written whole. If the entry has become another flow's meanwhile, that one lives longer.
        unsafe {
            (&raw mut (*known).seen).write_volatile(seen);
            (&raw mut (*known).state).write_volatile(state);
        }
    }

    #[inline(always)]
    fn local_fragment(&self, key: &FragmentKey) -> Option<LocalFlow> {
        copied(LOCAL_FRAGMENTS.get_ptr(self.key(key)))
    }

    #[inline(always)]
    fn note_local_fragment(&self, key: &FragmentKey, flow: &LocalFlow) {
        let _ = LOCAL_FRAGMENTS.insert(self.key(key), self.value(flow), BPF_ANY.into());
    }

    #[inline(always)]
    fn now_coarse(&self) -> u64 {
        // SAFETY: a call without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}
