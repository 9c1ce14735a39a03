//! The eBPF objects, built by `cargo xtask build-ebpf`.

/// The ELF file with the program `viplane` and its maps.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vip-ebpf"));

/// The ELF file with the programs and maps of steering, which share some maps with [`OBJECT`].
pub const STEERING_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vip-ebpf-steering"));
