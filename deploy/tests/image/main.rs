//! The image, and the agent from its root file system with no more than the chart's pod gives it: another mount and its
//! capabilities, /proc/sys read-only, nothing of a distribution beside it.

mod container;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use container::Container;
use nix::sys::signal::Signal;
use vip_deploy::image::{self, Image};
use vip_deploy::{Helm, PROGRAMS, Release, Rendered};
use vip_lab::Lab;
use vip_lab::wait::until;

const SOON: Duration = Duration::from_secs(15);
const VIP: &str = "10.0.0.50";

/// The chart's pod, for the lab's interface.
fn rendered() -> Result<Rendered> {
    let values = format!(
        "instances: [{{ name: edge, virtual_router_id: 51, interface: eth0, advert_interval: 100ms, vips: [{VIP}/24], grace: 0s }}]\n\
         kubernetes: {{ sources: [service] }}"
    );
    Helm::start()?.render(Release::default(), &values)
}

/// The programs of this build, with the libraries that static ones do without: making these takes minutes. Stripped copies in
/// `folder`: debug information is ten times the rest.
fn dynamic(folder: &Path) -> Result<Image> {
    let own = std::env::current_exe()?;
    let built = own.ancestors().nth(2).context("tests are in deps/")?;
    let programs = folder.join("programs");
    fs::create_dir(&programs)?;
    let mut files = BTreeSet::new();
    for name in PROGRAMS {
        let program = built.join(name);
        ensure!(program.is_file(), "there is no {}: run `cargo build --package {name}`", program.display());
        let strip = Command::new("strip").arg("-o").arg(programs.join(name)).arg(&program).status();
        ensure!(strip.context("cannot start strip")?.success(), "strip failed");
        let libraries = Command::new("ldd").arg(&program).output()?;
        let libraries = String::from_utf8(libraries.stdout)?;
        let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
        files.extend(libraries.lines().filter_map(path));
    }
    let files = files.into_iter().map(|path| (path.clone(), path)).collect();
    Ok(Image { files, ..Image::of(programs) })
}

/// The static one of `cargo xtask image`.
fn finished() -> Result<PathBuf> {
    let archive = vip_deploy::root()
        .join("target/image")
        .join(format!("viplane-{}.tar", Image::of(PathBuf::new()).arch));
    let made = Command::new("cargo").args(["xtask", "image"]).current_dir(vip_deploy::root()).status()?;
    ensure!(made.success(), "cargo xtask image failed");
    Ok(archive)
}

fn the_agent_of(archive: &Path) -> Result<()> {
    let rendered = rendered()?;
    let lab = Lab::builder().nodes(1).clients(1).vips([VIP]).build()?;
    let node = lab.node(1);
    node.set_sysctl("net.ipv4.conf.eth0.arp_ignore", 0)?;
    let container = Container::unpack(archive)?;
    let agent = container.start(node, &rendered)?;
    let status = |text: &str| {
        let said = container.command(node, &rendered, &["status", "--json"]).output();
        said.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).replace(' ', "").contains(text))
    };
    until(SOON, || status("\"state\":\"active\"")).with_context(|| agent.last_words())?;

    let ping = lab.client().command("ping").args(["-c", "1", "-W", "2", VIP]).output()?;
    ensure!(ping.status.success(), "the VIP answers nobody: {}", agent.last_words());
    ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == "3", "the sysctl was not set: {}", agent.log());
    ensure!(!agent.log().contains("cannot set"), "{}", agent.log());
    // vip-kube runs as well, and finds no cluster: there is no kubelet that would give it a token.
    until(SOON, || status("apod'sserviceaccountsayshow")).with_context(|| agent.last_words())?;

    // What the kubelet does at an uninstallation, and what must be left then: nothing.
    agent.signal(Signal::SIGTERM)?;
    let exit = agent.wait(SOON)?;
    ensure!(exit.success(), "{exit}: {}", agent.last_words());
    ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == "0");
    ensure!(!node.exists("/sys/fs/bpf/viplane"), "pins are left");
    ensure!(!node.ip("address show dev lo")?.contains(VIP), "the VIP is left on lo");
    Ok(())
}

#[test]
fn the_agent_serves_from_the_images_root_file_system() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("viplane.tar");
    image::assemble(&dynamic(folder.path())?, &folder.path().join("work"), &archive)?;
    the_agent_of(&archive)
}

#[test]
fn the_same_programs_make_the_same_image() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in PROGRAMS {
        fs::copy("/bin/true", folder.path().join(name))?;
    }
    let image = Image::of(folder.path().to_owned());
    let archive = |name: &str| -> Result<Vec<u8>> {
        let archive = folder.path().join(name);
        image::assemble(&image, &folder.path().join("work"), &archive)?;
        Ok(fs::read(archive)?)
    };
    ensure!(archive("a.tar")? == archive("b.tar")?);
    Ok(())
}

#[test]
fn the_static_agent_of_xtask_image_needs_nothing_beside_it() -> Result<()> {
    if std::env::var_os("VIPLANE_FULL").is_none() {
        return Ok(());
    }
    let archive = finished()?;
    let container = Container::unpack(&archive)?;
    let files = container.files()?;
    ensure!(!files.iter().any(|file| file.contains(".so")), "{files:?}");
    the_agent_of(&archive)
}
