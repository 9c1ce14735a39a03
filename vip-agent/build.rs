//! Hands the eBPF object to the library, which carries it.

use std::path::Path;
use std::{env, fs};

fn main() {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/vip-ebpf");
    println!("cargo::rerun-if-changed={}", object.display());
    let copy = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("vip-ebpf");
    if fs::copy(&object, copy).is_err() {
        println!("cargo::error=the eBPF object is missing: run `cargo xtask build-ebpf`");
    }
}
