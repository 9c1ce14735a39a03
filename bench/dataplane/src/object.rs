//! The program with one VIP of each family in its maps, and the client's side of it.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use vip_agent::dataplane::OBJECT;
use vip_common::filter::{Bit, Filter};
use vip_common::maps::{Vip, Vip4Key, Vip6Key};
use vip_common::packet::ipv6::Address;

/// The VIPs.
pub(crate) const VIP4: [u8; 4] = [10, 0, 0, 50];
pub(crate) const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];

/// This node's MAC.
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Loads `viplane` and `pass`, with the VIPs on the interface `ifindex`, owned forever.
pub(crate) fn load(ifindex: u32) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT).context("cannot load the program")?;
    for name in ["viplane", "pass"] {
        load_program(&mut ebpf, name)?;
    }
    let vip: [u8; 18] = bytemuck::cast(Vip { router: 0, link: 0, mac: OWN, answering: OWN, flags: 0 });
    let mut vips4: HashMap<_, [u8; 8], [u8; 18]> =
        HashMap::try_from(ebpf.map_mut("VIPS4").context("VIPS4")?)?;
    vips4.insert(bytemuck::cast::<_, [u8; 8]>(Vip4Key { ifindex, address: VIP4 }), vip, 0)?;
    let mut vips6: HashMap<_, [u8; 20], [u8; 18]> =
        HashMap::try_from(ebpf.map_mut("VIPS6").context("VIPS6")?)?;
    vips6.insert(bytemuck::cast::<_, [u8; 20]>(Vip6Key { ifindex, address: VIP6 }), vip, 0)?;
    let mut deadlines: Array<_, u64> = Array::try_from(ebpf.map_mut("DEADLINES").context("DEADLINES")?)?;
    deadlines.set(0, u64::MAX, 0)?;
    let mut filter = Filter::new();
    filter.admit(Bit::of_ipv4(VIP4));
    filter.admit(Bit::of_ipv6(Address::new(VIP6)));
    let mut words: Array<_, u64> = Array::try_from(ebpf.map_mut("FILTER").context("FILTER")?)?;
    for (index, word) in (0..).zip(filter.words()) {
        words.set(index, word, 0)?;
    }
    Ok(ebpf)
}

/// Loads `ask` and `count`.
pub(crate) fn load_client() -> Result<Ebpf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/vip-ebpf-bench");
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .load_file(&path)
        .with_context(|| format!("cannot load {}: run `cargo xtask build-ebpf`", path.display()))?;
    for name in ["ask", "count"] {
        load_program(&mut ebpf, name)?;
    }
    Ok(ebpf)
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    program_mut(ebpf, name)?.load().with_context(|| format!("the kernel refuses {name} (root is needed)"))
}

/// A program by its name.
pub(crate) fn program<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Xdp> {
    Ok(ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// A program by its name, to load or attach.
pub(crate) fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}
