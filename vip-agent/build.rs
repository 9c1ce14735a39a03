//! Hands the built BPF objects to the library, as `OUT_DIR/vip-ebpf` and the like, or names the command that builds it.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[path = "../xtask/src/fingerprint.rs"]
mod fingerprint;

use fingerprint::{OBJECT, Object, RECORD, SOURCES, STEERING_OBJECT};

fn main() {
    // Relocations are read at the start and stay resident: packed they are 10 KiB and not 600.
    if knows_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if let Err(message) = place_object() {
        // Cargo fails for this line; an exit code would only add the whole output of this script to the message.
        println!("cargo::error={message}");
    }
}

fn place_object() -> Result<(), String> {
    let variable = |name| env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"));
    let manifest = variable("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest).parent().ok_or("vip-agent has no parent folder")?;
    for path in SOURCES.iter().chain(&[OBJECT, STEERING_OBJECT, RECORD, "xtask/src/fingerprint.rs"]) {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    match fingerprint::object(workspace).map_err(|error| format!("reading the BPF sources: {error}"))? {
        Object::Fresh => {}
        Object::Stale => {
            return Err("the BPF object is older than its sources: run `cargo xtask build-ebpf`".into());
        }
        Object::Missing => return Err("the BPF object is not built yet: run `cargo xtask build-ebpf`".into()),
    }
    let out = variable("OUT_DIR")?;
    for object in [OBJECT, STEERING_OBJECT].map(|object| workspace.join(object)) {
        let to = Path::new(&out).join(object.file_name().unwrap_or_default());
        fs::copy(&object, &to)
            .map_err(|error| format!("copying {} to {}: {error}", object.display(), to.display()))?;
    }
    Ok(())
}

/// glibc since 2.36. A program runs with the glibc that it was built with, or a newer one, anyway.
fn knows_packed_relocations() -> bool {
    let native = env::var_os("HOST") == env::var_os("TARGET");
    let gnu = env::var_os("CARGO_CFG_TARGET_ENV").is_some_and(|libc| libc == "gnu");
    if !native || !gnu {
        return false;
    }
    let Ok(answer) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let minor = String::from_utf8(answer.stdout).ok().and_then(|text| {
        let minor = text.trim().strip_prefix("glibc 2.")?;
        minor.split('.').next()?.parse::<u32>().ok()
    });
    minor.is_some_and(|minor| minor >= 36)
}
