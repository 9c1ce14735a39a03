//! Hands the built BPF object to the library as `OUT_DIR/vip-ebpf`, or names the command that builds it.

use std::path::Path;
use std::{env, fs};

#[path = "../xtask/src/fingerprint.rs"]
mod fingerprint;

use fingerprint::{OBJECT, Object, RECORD, SOURCES};

fn main() {
    if let Err(message) = place_object() {
        // Cargo fails for this line; an exit code would only add the whole output of this script to the message.
        println!("cargo::error={message}");
    }
}

fn place_object() -> Result<(), String> {
    let variable = |name| env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"));
    let manifest = variable("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest).parent().ok_or("vip-agent has no parent folder")?;
    for path in SOURCES.iter().chain(&[OBJECT, RECORD, "xtask/src/fingerprint.rs"]) {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let object = workspace.join(OBJECT);
    match fingerprint::object(workspace).map_err(|error| format!("reading the BPF sources: {error}"))? {
        Object::Fresh => {}
        Object::Stale => {
            return Err("the BPF object is older than its sources: run `cargo xtask build-ebpf`".into());
        }
        Object::Missing => return Err("the BPF object is not built yet: run `cargo xtask build-ebpf`".into()),
    }
    let to = Path::new(&variable("OUT_DIR")?).join("vip-ebpf");
    fs::copy(&object, &to)
        .map_err(|error| format!("copying {} to {}: {error}", object.display(), to.display()))?;
    Ok(())
}
