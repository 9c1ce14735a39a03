//! The eBPF object, built by `cargo xtask build-ebpf`.

/// The ELF file with the program `viplane` and its maps.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vip-ebpf"));
