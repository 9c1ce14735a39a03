//! Says whether a built BPF object belongs to the sources beside it; shared by xtask and vip-agent/build.rs.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the built object lies, relative to the workspace, whatever `CARGO_TARGET_DIR` says: one place that
/// `cargo xtask build-ebpf` writes and every build of vip-agent reads.
pub(crate) const OBJECT: &str = "target/bpf/vip-ebpf";

/// Where the object with the programs and maps of steering lies, built together with [`OBJECT`].
pub(crate) const STEERING_OBJECT: &str = "target/bpf/vip-ebpf-steering";

/// Where the fingerprint of the sources that made [`OBJECT`] lies, relative to the workspace.
pub(crate) const RECORD: &str = "target/bpf/vip-ebpf.fingerprint";

/// The files and folders that decide what the object contains, relative to the workspace.
pub(crate) const SOURCES: [&str; 5] =
    ["Cargo.lock", "vip-common/Cargo.toml", "vip-common/src", "vip-ebpf/Cargo.toml", "vip-ebpf/src"];

/// The state of the object in `workspace`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// Built from the sources as they are now.
    Fresh,
    /// Built from other sources.
    Stale,
    /// Not built, or without a record of its sources.
    Missing,
}

/// Compares the object's record with the sources.
///
/// # Errors
/// When a source cannot be read.
pub(crate) fn object(workspace: &Path) -> io::Result<Object> {
    if [OBJECT, STEERING_OBJECT].iter().any(|object| !workspace.join(object).is_file()) {
        return Ok(Object::Missing);
    }
    let Ok(recorded) = fs::read_to_string(workspace.join(RECORD)) else { return Ok(Object::Missing) };
    Ok(if recorded.trim() == of_sources(workspace)? { Object::Fresh } else { Object::Stale })
}

/// The fingerprint of the sources: 64-bit FNV-1a over every file's path and contents, in hexadecimal. It guards
/// against forgetting, not against malice.
///
/// # Errors
/// When a source cannot be read.
pub(crate) fn of_sources(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&workspace.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let name = file.strip_prefix(workspace).unwrap_or(&file).to_string_lossy().into_owned();
        for part in [name.as_bytes(), &fs::read(&file)?] {
            let length = part.len().to_le_bytes();
            for byte in length.iter().chain(part) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    Ok(format!("{hash:016x}"))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with all sources, and an object that was built from them.
    fn built() -> tempfile::TempDir {
        let workspace = tempfile::tempdir().unwrap();
        for folder in ["vip-common/src", "vip-ebpf/src/deep", "target/bpf"] {
            fs::create_dir_all(workspace.path().join(folder)).unwrap();
        }
        let sources =
            ["Cargo.lock", "vip-common/Cargo.toml", "vip-ebpf/Cargo.toml", "vip-ebpf/src/deep/a.rs"];
        let files = sources.into_iter().chain([OBJECT, STEERING_OBJECT]);
        for file in files {
            fs::write(workspace.path().join(file), "as built").unwrap();
        }
        fs::write(workspace.path().join(RECORD), of_sources(workspace.path()).unwrap()).unwrap();
        workspace
    }

    #[test]
    fn an_object_is_fresh_until_a_source_changes_and_again_when_it_is_changed_back() {
        let workspace = built();
        let source = workspace.path().join("vip-ebpf/src/deep/a.rs");
        assert_eq!(object(workspace.path()).unwrap(), Object::Fresh);
        fs::write(&source, "edited").unwrap();
        assert_eq!(object(workspace.path()).unwrap(), Object::Stale);
        fs::write(&source, "as built").unwrap();
        assert_eq!(object(workspace.path()).unwrap(), Object::Fresh);
    }

    #[test]
    fn a_source_that_comes_goes_or_moves_makes_the_object_stale() {
        let changes: [fn(&Path); 3] = [
            |src| fs::write(src.join("b.rs"), "").unwrap(),
            |src| fs::remove_file(src.join("deep/a.rs")).unwrap(),
            |src| fs::rename(src.join("deep/a.rs"), src.join("a.rs")).unwrap(),
        ];
        for change in changes {
            let workspace = built();
            change(&workspace.path().join("vip-ebpf/src"));
            assert_eq!(object(workspace.path()).unwrap(), Object::Stale);
        }
    }

    #[test]
    fn an_object_or_a_record_that_is_gone_counts_as_missing() {
        for gone in [OBJECT, RECORD] {
            let workspace = built();
            fs::remove_file(workspace.path().join(gone)).unwrap();
            assert_eq!(object(workspace.path()).unwrap(), Object::Missing);
        }
    }
}
