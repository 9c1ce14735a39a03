//! The network itself: it is up when it is built, isolated, and gone with its process.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use vip_lab::firewall::Firewall;
use vip_lab::{Lab, Mac, Node, Stamp, wait};

fn ping(from: &Node, to: impl Into<IpAddr>) -> Result<String> {
    from.command("ping").args(["-n", "-c", "1", "-W", "2"]).arg(to.into().to_string()).read()
}

#[test]
fn every_node_reaches_every_other_at_once() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(2).build()?;
    for to in [lab.node(2), lab.node(3), lab.client()] {
        ping(lab.node(1), to.ipv4())?;
        ping(lab.node(1), to.ipv6())?;
    }
    let neighbors = lab.node(1).ip("neigh show")?;
    assert!(neighbors.contains("10.0.0.3 dev eth0 lladdr 02:00:00:00:00:03"), "{neighbors}");
    let addresses = lab.node(2).ip("-6 addr show dev eth0")?;
    assert!(addresses.contains(&lab.node(2).link_local().to_string()), "{addresses}");
    Ok(())
}

#[test]
fn vips_outside_of_the_24_widen_the_subnet() -> Result<()> {
    let lab = Lab::builder().nodes(1).many_vips(300).build()?;
    assert_eq!((lab.prefix4(), lab.vips().len()), (16, 300));
    assert!(lab.node(1).ip("addr show dev eth0")?.contains("10.0.0.1/16"));
    assert!(Lab::builder().vips(["192.0.2.1"]).build().is_err());
    Ok(())
}

#[test]
fn nodes_keep_their_files_pins_settings_and_names_to_themselves() -> Result<()> {
    let lab = Lab::builder().nodes(2).build()?;
    let (one, two) = (lab.node(1), lab.node(2));
    // Not viplane's own directories: the host may run an agent of its own.
    for directory in ["/run/viplane-lab-test", "/var/lib/viplane-lab-test", "/sys/fs/bpf/viplane-lab-test"] {
        one.command("mkdir").arg(directory).read()?;
        assert!(one.exists(directory) && !two.exists(directory), "{directory} is shared");
        let ours = Command::new("test").args(["-e", directory]).status()?;
        assert!(!ours.success(), "{directory} is on the host");
    }
    one.set_sysctl("net.ipv4.conf.eth0.arp_ignore", 3)?;
    assert_eq!(one.sysctl("net.ipv4.conf.eth0.arp_ignore")?, "3");
    assert_eq!(two.sysctl("net.ipv4.conf.eth0.arp_ignore")?, "0");
    assert!(one.set_sysctl("kernel.hostname", "lab").is_err(), "a setting of the host was allowed");
    assert_eq!(one.command("hostname").read()?.trim(), "node1");
    assert!(one.exists("/sys/class/net/eth0"));
    Ok(())
}

#[test]
fn a_pulled_cable_costs_the_carrier_and_a_partition_does_not() -> Result<()> {
    let lab = Lab::builder().nodes(2).build()?;
    let node = lab.node(1);
    let carrier = || node.read_file("/sys/class/net/eth0/carrier").unwrap_or_default().trim().to_owned();
    let limit = Duration::from_secs(5);

    lab.switch().set_forwarding(node, false)?;
    assert!(ping(node, lab.node(2).ipv4()).is_err(), "the partition lets pings through");
    assert_eq!(carrier(), "1");
    lab.switch().set_forwarding(node, true)?;
    wait::until(limit, || ping(node, lab.node(2).ipv4()).is_ok())?;

    lab.switch().set_cable(node, false)?;
    wait::until(limit, || carrier() == "0")?;
    lab.switch().set_cable(node, true)?;
    wait::until(limit, || ping(node, lab.node(2).ipv4()).is_ok())?;

    node.set_link(false)?;
    assert!(ping(lab.node(2), node.ipv4()).is_err(), "a link that is down answers");
    Ok(())
}

#[test]
fn a_firewall_drops_what_comes_in_until_it_is_cleared() -> Result<()> {
    let lab = Lab::builder().nodes(2).build()?;
    lab.node(1).set_firewall(Firewall::MuteAdverts)?;
    ping(lab.node(2), lab.node(1).ipv4())?;
    lab.node(1).set_firewall(Firewall::DropInput)?;
    assert!(ping(lab.node(2), lab.node(1).ipv4()).is_err(), "input is not dropped");
    ping(lab.node(1), lab.node(2).ipv4())?;
    lab.node(1).clear_firewall()?;
    ping(lab.node(2), lab.node(1).ipv4())?;
    Ok(())
}

#[test]
fn processes_are_signalled_logged_waited_for_and_killed_on_drop() -> Result<()> {
    let lab = Lab::builder().nodes(1).build()?;
    let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let process = lab.node(1).command("sh").args(["-c", script]).spawn("script")?;
    process.wait_log("ready", Duration::from_secs(5))?;
    process.signal(Signal::SIGTERM)?;
    assert_eq!(process.wait(Duration::from_secs(5))?.code(), Some(7));
    assert!(process.log().contains("got it"));
    assert!(process.signal(Signal::SIGTERM).is_err(), "an exited process took a signal");

    let sleeper = lab.node(1).command("sleep").arg("1000").spawn("sleeper")?;
    let pid = sleeper.pid();
    sleeper.signal(Signal::SIGSTOP)?;
    drop(sleeper);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "a stopped process survived its handle");
    Ok(())
}

#[test]
fn the_namespaces_end_with_the_lab() -> Result<()> {
    let lab = Lab::builder().nodes(2).web().build()?;
    let namespaces = namespaces_of(&lab)?;
    assert!(
        namespaces.iter().all(|namespace| is_in_use(*namespace)),
        "a namespace is empty while the lab stands"
    );
    drop(lab);
    wait::until(Duration::from_secs(10), || !namespaces.iter().any(|namespace| is_in_use(*namespace)))
        .context("a namespace is in use after the end of its lab")
}

#[test]
fn nothing_survives_a_killed_process() -> Result<()> {
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_lab_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(holder.stdout.take().context("the pipe")?).lines();
    let line = lines
        .find_map(|line| line.ok()?.strip_prefix("HOLDS ").map(str::to_owned))
        .context("the lab was not built")?;
    let namespaces: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert!(namespaces.len() == 4 && namespaces.iter().all(|namespace| is_in_use(*namespace)));
    holder.kill()?;
    holder.wait()?;
    wait::until(Duration::from_secs(10), || !namespaces.iter().any(|namespace| is_in_use(*namespace)))
        .context("a process lives on in a namespace of the killed lab")
}

#[test]
#[ignore = "not a test: the process that nothing_survives_a_killed_process kills"]
fn a_lab_to_be_killed() -> Result<()> {
    let lab = Lab::builder().nodes(2).vips(["10.0.0.50"]).web().build()?;
    let _keepalived = lab.keepalived(1).start()?;
    let _sleeper = lab.node(2).command("sleep").arg("1000").spawn("sleeper")?;
    // Dropped capabilities must not make the kernel forget the signal for the parent's death.
    let _humble = lab
        .client()
        .command("setpriv")
        .args(["--bounding-set=-sys_nice", "sleep", "1000"])
        .spawn("humble")?;
    let namespaces: Vec<String> = namespaces_of(&lab)?.iter().map(u64::to_string).collect();
    println!("\nHOLDS {}", namespaces.join(" "));
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

#[test]
fn nodes_have_the_macs_and_names_that_the_wire_will_show() -> Result<()> {
    let before = Stamp::now();
    let lab = Lab::builder().nodes(2).build()?;
    assert_eq!(lab.node(2).mac(), "02:00:00:00:00:02".parse::<Mac>()?);
    assert_eq!(lab.owner_of(lab.client().mac()).map(Node::name), Some("client1"));
    assert_eq!(lab.owner_of(Mac::BROADCAST).map(Node::name), None);
    assert!(Stamp::now() > before);
    Ok(())
}

fn namespaces_of(lab: &Lab) -> Result<Vec<u64>> {
    let nodes = lab.nodes().iter().chain(lab.clients()).chain([lab.switch().node()]);
    nodes.map(|node| Ok(std::fs::metadata(node.netns_path())?.ino())).collect()
}

/// Whether any thread on this machine is in the network namespace.
fn is_in_use(namespace: u64) -> bool {
    let inode = |path: std::path::PathBuf| std::fs::metadata(path).map(|file| file.ino()).unwrap_or_default();
    let entries = |path: &std::path::Path| {
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let is_process = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    };
    let processes = entries("/proc".as_ref()).filter(is_process);
    processes
        .into_iter()
        .any(|process| entries(&process.join("task")).any(|thread| inode(thread.join("ns/net")) == namespace))
}
