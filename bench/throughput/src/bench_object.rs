//! The programs that generate, stand in for the node, and receive.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::PerCpuArray;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

/// Loads these programs.
pub(crate) fn load(programs: &[&str]) -> Result<Ebpf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/vip-ebpf-bench");
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .load_file(&path)
        .with_context(|| format!("cannot load {}: run `cargo xtask build-ebpf`", path.display()))?;
    for name in programs {
        program_mut(&mut ebpf, name)?
            .load()
            .with_context(|| format!("the kernel refuses {name} (root is needed)"))?;
    }
    Ok(ebpf)
}

/// A program by its name.
pub(crate) fn program<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Xdp> {
    Ok(ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// A program by its name, to load or attach.
pub(crate) fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// Frames that have arrived.
pub(crate) fn arrived(ebpf: &Ebpf) -> Result<u64> {
    let arrived: PerCpuArray<_, u64> = PerCpuArray::try_from(ebpf.map("ARRIVED").context("no map ARRIVED")?)?;
    Ok(arrived.get(&0, 0)?.iter().sum())
}
