//! rustfmt and clippy: components of rustup's toolchains, packages of their own beside a distribution's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::toolchain::{self, Toolchain};
use super::{packages, rustup};
use crate::workspace::output;

/// A tool that a compiler lacks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    sysroot: PathBuf,
    component: &'static str,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for the compiler in {}", self.component, self.sysroot.display())
    }
}

/// The tools that are missing: both for ordinary builds, clippy for the BPF program's compiler.
pub(crate) fn missing(bpf: Option<&Toolchain>) -> Vec<Tool> {
    let active = toolchain::active_sysroot();
    let of_active =
        active.into_iter().flat_map(|sysroot| [(sysroot.clone(), "rustfmt"), (sysroot, "clippy")]);
    let of_bpf = bpf.into_iter().map(|toolchain| (toolchain.sysroot.clone(), "clippy"));
    let mut tools: Vec<Tool> = Vec::new();
    for (sysroot, component) in of_active.chain(of_bpf) {
        let program = if component == "clippy" { "clippy-driver" } else { component };
        let tool = Tool { sysroot, component };
        if !tool.sysroot.join("bin").join(program).is_file() && !tools.contains(&tool) {
            tools.push(tool);
        }
    }
    tools
}

/// Gets them.
pub(crate) fn install(tools: &[Tool]) -> Result<()> {
    let mut wanted = Vec::new();
    for tool in tools {
        match rustup::name_of(&tool.sysroot) {
            Some(name) => rustup::add_component(&name, tool.component)?,
            None => wanted.push(package(tool)?),
        }
    }
    packages::install(&wanted)
}

/// The package that brings a tool to a distribution's compiler.
fn package(tool: &Tool) -> Result<String> {
    let rustc = tool.sysroot.join("bin/rustc");
    let Some(compiler) = owner(&rustc) else {
        bail!("{tool} is missing, and neither rustup nor dpkg knows {}: install it by hand", rustc.display());
    };
    // rustc-web: rust-web-clippy, rustfmt-web · rustc: rust-clippy, rustfmt · rustc-1.95: rust-1.95-clippy, rustfmt-1.95
    let kind = compiler.strip_prefix("rustc").unwrap_or_default();
    Ok(if tool.component == "clippy" {
        format!("rust{kind}-clippy")
    } else {
        format!("{}{kind}", tool.component)
    })
}

fn owner(file: &Path) -> Option<String> {
    let line = output(Command::new("dpkg").arg("-S").arg(file))?;
    Some(line.split(':').next()?.to_owned())
}
