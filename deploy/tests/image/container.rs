//! A container without a runtime: the image's root file system, and the mounts and capabilities of a rendered pod.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vip_deploy::Rendered;
use vip_lab::process::NodeCommand;
use vip_lab::{Node, Process};

/// Changes the root and gives up capabilities, as a runtime does: what is not in the list is out of reach of whatever starts.
const ENTER: &str = r#"
import ctypes, os, sys
root, kept, program = sys.argv[1], set(map(int, sys.argv[2].split(","))), sys.argv[3:]
os.chroot(root)
os.chdir("/")
libc = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
for capability in range(41):
    if capability not in kept:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
os.execv(program[0], program)
"#;

/// linux/capability.h, as far as pods may have them here.
const CAPABILITIES: [(&str, u8); 7] = [
    ("NET_BIND_SERVICE", 10),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("IPC_LOCK", 14),
    ("SYS_NICE", 23),
    ("PERFMON", 38),
    ("BPF", 39),
];

/// An unpacked image.
pub(crate) struct Container {
    root: TempDir,
}

impl Container {
    /// Unpacks the one layer of an archive.
    pub(crate) fn unpack(archive: &Path) -> Result<Self> {
        let unpacked = tempfile::tempdir()?;
        untar(archive, unpacked.path())?;
        let manifest: Value = serde_json::from_reader(File::open(unpacked.path().join("manifest.json"))?)?;
        let layers = manifest[0]["Layers"].as_array().context("an image has layers")?;
        ensure!(layers.len() == 1, "FROM scratch: {layers:?}");
        let config: Value = {
            let name = manifest[0]["Config"].as_str().context("an image has a configuration")?;
            serde_json::from_reader(File::open(unpacked.path().join(name))?)?
        };
        ensure!(config["config"]["Entrypoint"] == serde_json::json!(["/usr/bin/vip-agent"]), "{config}");
        let root = tempfile::tempdir()?;
        untar(&unpacked.path().join(layers[0].as_str().context("a layer is a file")?), root.path())?;
        Ok(Self { root })
    }

    /// All files of the image.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let found = Command::new("find").arg(self.root.path()).args(["-type", "f"]).output()?;
        Ok(String::from_utf8(found.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Mounts what the pod has and starts the agent as the pod does.
    pub(crate) fn start(&self, node: &Node, rendered: &Rendered) -> Result<Process> {
        let root = self.root.path();
        let config = node.file_path("pod");
        let text = rendered.config().to_owned();
        let folder = config.clone();
        node.run(move || {
            fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("config.yaml"), text))
        })?;
        let mount = |arguments: &[&str]| node.command("mount").args(arguments).read().map(drop);
        let inside = |path: &str| root.join(path.trim_start_matches('/')).display().to_string();
        let own = root.display().to_string();
        mount(&["--bind", &own, &own])?;
        for system in ["/proc", "/sys", "/dev"] {
            mount(&["--rbind", system, &inside(system)])?;
        }
        for volume in rendered.pod()["volumes"].as_array().context("a pod has volumes")? {
            let is_it = |mount: &&Value| mount["name"] == volume["name"];
            let mounts = rendered.container()["volumeMounts"].as_array().context("a container has mounts")?;
            let to = mounts
                .iter()
                .find(is_it)
                .and_then(|mount| mount["mountPath"].as_str())
                .context("a mount path")?;
            let from = match volume["hostPath"]["path"].as_str() {
                Some(path) => PathBuf::from(path),
                None => config.clone(),
            };
            let made = from.clone();
            node.run(move || fs::create_dir_all(made))?;
            mount(&["--bind", &from.display().to_string(), &inside(to)])?;
        }
        // As a runtime has it for a container that is not privileged.
        mount(&["--bind", &inside("/proc/sys"), &inside("/proc/sys")])?;
        mount(&["-o", "remount,bind,ro", &inside("/proc/sys")])?;
        mount(&["-o", "remount,bind,ro", &own])?;
        let arguments = rendered.container()["args"].as_array().context("a container has arguments")?;
        let arguments: Vec<&str> = arguments.iter().filter_map(Value::as_str).collect();
        let variables = rendered.container()["env"].as_array().context("a container has variables")?;
        let mut command = self.command(node, rendered, &arguments);
        for variable in variables {
            let value = variable["value"].as_str().unwrap_or("node1");
            command = command.env(variable["name"].as_str().unwrap_or_default(), value);
        }
        command.spawn("agent")
    }

    /// The agent's program in the container, with other arguments.
    pub(crate) fn command(&self, node: &Node, rendered: &Rendered, arguments: &[&str]) -> NodeCommand {
        let added = &rendered.container()["securityContext"]["capabilities"]["add"];
        let number = |name: &Value| {
            CAPABILITIES.iter().find(|(known, _)| name == known).map(|(_, number)| number.to_string())
        };
        let kept: Vec<String> = added.as_array().into_iter().flatten().filter_map(number).collect();
        let python =
            node.command("/usr/bin/python3").args(["-c", ENTER]).arg(self.root.path()).arg(kept.join(","));
        python.arg("/usr/bin/vip-agent").args(arguments)
    }
}

fn untar(archive: &Path, to: &Path) -> Result<()> {
    let done = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to).status()?;
    ensure!(done.success(), "tar cannot unpack {}", archive.display());
    Ok(())
}
