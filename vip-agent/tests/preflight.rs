//! `vip-agent preflight`: each broken set-up is named, a good one is not blamed, and nothing is left behind.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "of its programs one that is not ours is needed here")]
mod bpf;
#[path = "support/footprint.rs"]
mod footprint;

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use agents::{SOON, VIPS, agent, binary, say};
use anyhow::{Context as _, Result, ensure};
use footprint::{changes, footprint};
use serde_json::{Value, json};
use vip_lab::agent::AgentBuilder;
use vip_lab::firewall::Firewall;
use vip_lab::{Lab, Node};

/// A state directory that outlives a reboot, as a host has one: the lab's nodes keep theirs in memory.
fn on_a_disk(node: &Node) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("preflight-{}-{}", node.name(), node.tid()))
}

/// The agent of a node, set up as it should be.
fn sound(lab: &Lab, number: usize) -> AgentBuilder {
    agent(lab, number).set("state_dir", json!(on_a_disk(lab.node(number))))
}

/// What preflight found.
struct Looked {
    code: Option<i32>,
    report: Value,
}

/// Looks where this agent would run.
fn look(builder: &AgentBuilder) -> Result<Looked> {
    builder.write_config()?;
    let config = builder.config_path();
    let file = config.to_str().context("a path that is text")?;
    let said = say(builder, &["preflight", "--json", "--config", file])?;
    let report = serde_json::from_str(&said.out).with_context(|| format!("no JSON: {said:?}"))?;
    Ok(Looked { code: said.code, report })
}

impl Looked {
    fn findings(&self) -> &[Value] {
        self.report["findings"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Those that are not ok.
    fn complaints(&self) -> Vec<&Value> {
        self.findings().iter().filter(|finding| finding["outcome"] != "ok").collect()
    }

    /// There is a finding of this check and outcome which says this, with a remedy; and the exit code fits the worst of all.
    fn names(&self, check: &str, outcome: &str, text: &str) -> Result<()> {
        let fits = |finding: &&Value| {
            let says = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            finding["check"] == check
                && finding["outcome"] == outcome
                && says("found").contains(text)
                && (outcome == "ok") == finding["remedy"].is_null()
        };
        let complaints = self.complaints();
        ensure!(
            self.findings().iter().any(|finding| fits(&finding)),
            "no {outcome} {check} with {text:?}: {complaints:#?}"
        );
        let worst = |word| complaints.iter().any(|finding| finding["outcome"] == word);
        let code = if worst("error") { 2 } else { i32::from(worst("warning")) };
        ensure!(self.code == Some(code), "exit code {:?} for {complaints:#?}", self.code);
        Ok(())
    }
}

#[test]
fn a_host_as_it_should_be_is_ok_and_looking_leaves_nothing_and_moves_nobody() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips(VIPS).build()?;
    let owner = sound(&lab, 2).start()?;
    let begun = owner.wait_state("active", SOON)?.instances[0].transitions;
    let node = lab.node(1);
    let before = footprint(node)?;
    let wire = lab.wire()?;
    let looked = look(&sound(&lab, 1))?;
    ensure!(looked.code == Some(0) && looked.complaints().is_empty(), "{:#?}", looked.complaints());
    looked.names("vrid", "ok", "10.0.0.2 (02:00:00:00:00:02) is the Active router of virtual router 51")?;
    looked.names("multicast", "ok", "adverts of 10.0.0.2")?;
    looked.names("vip", "ok", "10.0.0.2 advertises it")?;
    looked.names("firewall", "ok", "lets adverts out")?;
    looked.names("program", "ok", "loaded and attached by a link")?;
    ensure!(wire.adverts(node).is_empty(), "it takes part in the election");
    ensure!(changes(&before, &footprint(node)?).is_empty(), "{:?}", changes(&before, &footprint(node)?));
    ensure!(!on_a_disk(lab.node(1)).exists(), "it made the state directory");
    let status = owner.status()?;
    ensure!(status.alarms.is_empty() && status.instances[0].state == "active", "{status:?}");
    ensure!(status.instances[0].transitions == begun, "the owner moved");
    owner.signal(nix::sys::signal::Signal::SIGTERM)?;
    owner.wait(SOON)?;
    std::fs::remove_dir_all(on_a_disk(lab.node(2))).context("the owner's state")
}

#[test]
fn what_people_read_says_the_same_and_a_configuration_that_is_wrong_or_missing_ends_no_look_at_the_host()
-> Result<()> {
    let lab = Lab::builder().nodes(1).clients(1).vips(VIPS).build()?;
    let broken = sound(&lab, 1).set("colour", json!("red"));
    broken.write_config()?;
    let config = broken.config_path();
    let file = config.to_str().context("a path that is text")?;
    let said = say(&broken, &["preflight", "--config", file])?;
    ensure!(said.code == Some(2) && said.err.is_empty(), "{said:?}");
    let line = said.out.lines().next().unwrap_or_default();
    ensure!(line.starts_with("error    configuration") && line.contains("colour"), "{said:?}");
    ensure!(said.out.lines().any(|line| line.starts_with("ok       kernel ")), "{said:?}");
    ensure!(
        said.out.trim_end().lines().last().is_some_and(|line| line.starts_with("errors: 1, ")),
        "{said:?}"
    );
    Ok(())
}

/// What is done to a node, and what must be said about it.
struct Broken {
    what: &'static str,
    /// Breaks the node; yields the agent as it is set up there.
    set_up: fn(&Node, AgentBuilder) -> Result<AgentBuilder>,
    named: [&'static str; 3],
}

/// A second interface, of another network.
fn second_interface(node: &Node) -> Result<()> {
    node.ip("link add eth1 type veth peer name eth1x")?;
    node.ip("address add 192.0.2.1/24 dev eth1")?;
    node.ip("link set eth1x up")?;
    node.ip("link set eth1 up").map(drop)
}

/// Each on a node of its own, with a virtual router and a VIP of its own.
const BROKEN: [Broken; 15] = [
    Broken {
        what: "the interface is missing",
        set_up: |_, agent| Ok(agent.set_instance("interface", json!("eth9"))),
        named: ["interface", "error", "eth9"],
    },
    Broken {
        what: "the interface is down",
        set_up: |node, agent| node.set_link(false).map(|()| agent),
        named: ["interface", "error", "eth0 is down"],
    },
    Broken {
        what: "a strict rp_filter on an interface that replies do not leave by",
        set_up: |node, agent| {
            second_interface(node)?;
            node.set_sysctl("net.ipv4.conf.eth1.rp_filter", 1)?;
            Ok(agent.set_instance("vip_interface", json!("eth1")))
        },
        named: ["rp_filter", "error", "come in by eth1, but this host replies to them by eth0"],
    },
    Broken {
        what: "pin_dir is on no BPF file system",
        set_up: |_, agent| Ok(agent.set("pin_dir", json!("/run/viplane-pins"))),
        named: ["pin_dir", "error", "not on a BPF file system"],
    },
    Broken {
        what: "a kernel that answers ARP for nothing",
        set_up: |node, agent| node.set_sysctl("net.ipv4.conf.eth0.arp_ignore", 8).map(|()| agent),
        named: ["arp_ignore", "warning", "8: "],
    },
    Broken {
        what: "IPv6 VIPs without IPv6",
        set_up: |node, agent| {
            node.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)?;
            Ok(agent.vips(["fd00::66"]))
        },
        named: ["ipv6", "error", "does without IPv6"],
    },
    Broken {
        what: "a firewall that keeps adverts in",
        set_up: |node, agent| node.set_firewall(Firewall::MuteAdverts).map(|()| agent),
        named: ["firewall", "error", "output chain"],
    },
    Broken {
        what: "a state directory that cannot be written",
        set_up: |_, agent| Ok(agent.set("state_dir", json!("/proc/viplane"))),
        named: ["state_dir", "error", "cannot be written"],
    },
    Broken {
        what: "a state directory that a reboot empties",
        set_up: |_, agent| Ok(agent.set("state_dir", json!("/run/viplane-state"))),
        named: ["state_dir", "warning", "tmpfs"],
    },
    Broken {
        what: "an interface that does no multicast",
        set_up: |node, agent| node.ip("link set eth0 multicast off").map(|_| agent),
        named: ["multicast", "warning", "set not to do multicast"],
    },
    Broken {
        what: "driver mode on a veth",
        set_up: |_, agent| Ok(agent.set("xdp_mode", json!("driver"))),
        named: ["xdp_mode", "warning", "only if the other end has an XDP program"],
    },
    Broken {
        what: "driver mode where no driver has it",
        set_up: |node, agent| {
            node.ip("link add eth1 type bridge")?;
            node.ip("link set eth1 up")?;
            Ok(agent.set("xdp_mode", json!("driver")).set_instance("vip_interface", json!("eth1")))
        },
        named: ["xdp_mode", "error", "runs no XDP programs"],
    },
    Broken {
        what: "an MTU that the driver has no fragments for",
        set_up: |node, agent| {
            node.ip("tuntap add dev eth1 mode tap")?;
            node.ip("link set eth1 mtu 9000 up")?;
            Ok(agent.set("xdp_mode", json!("driver")).set_instance("vip_interface", json!("eth1")))
        },
        named: ["mtu", "error", "9000: frames do not fit a page"],
    },
    Broken {
        what: "the VIP is on the node's own interface",
        set_up: |node, agent| {
            node.ip("address add 10.0.0.64/24 dev eth0")?;
            Ok(agent.vips(["10.0.0.64"]))
        },
        named: ["vip_here", "warning", "eth0 has 10.0.0.64"],
    },
    Broken {
        what: "two instances that are one virtual router",
        set_up: |_, agent| {
            let twin = json!({
                "name": "twin", "virtual_router_id": 90, "interface": {"regex": "^eth0$"}, "vips": ["10.0.0.65"],
            });
            Ok(agent.vrid(90).instance(twin))
        },
        named: ["clash", "error", "both virtual router 90"],
    },
];

#[test]
fn each_broken_host_is_named_with_what_is_broken() -> Result<()> {
    let lab = Lab::builder().nodes(u8::try_from(BROKEN.len())?).clients(0).vips(["10.0.0.50"]).build()?;
    let prepared: Vec<(&Broken, AgentBuilder)> = BROKEN
        .iter()
        .enumerate()
        .map(|(index, broken)| {
            let id = u8::try_from(index)? + 60;
            let vip = format!("10.0.0.{}", 100 + index);
            let sound = sound(&lab, index + 1).vrid(id).vips([vip]);
            Ok((broken, (broken.set_up)(lab.node(index + 1), sound)?))
        })
        .collect::<Result<_>>()?;
    // They listen for seconds: all at once.
    thread::scope(|scope| {
        let looks: Vec<_> =
            prepared.iter().map(|(broken, agent)| (broken, scope.spawn(|| look(agent)))).collect();
        looks.into_iter().try_for_each(|(broken, look)| {
            let looked = look.join().expect("a look").context(broken.what)?;
            let [check, outcome, text] = broken.named;
            looked.names(check, outcome, text).context(broken.what)
        })
    })
}

#[test]
fn who_is_on_the_segment_already_is_named() -> Result<()> {
    let lab = Lab::builder().nodes(5).clients(1).vips(["10.0.0.50"]).build()?;
    // Another group has virtual router 70, a router of ours speaks version 2, a host has a VIP by hand.
    let other = sound(&lab, 1).vrid(70).vips(["10.0.0.70"]).start()?;
    let old = sound(&lab, 2).vrid(71).vips(["10.0.0.71"]);
    let old = old.set_instance("version", json!(2)).set_instance("advert_interval", json!("1s")).start()?;
    lab.client().ip("address add 10.0.0.72/32 dev eth0")?;
    other.wait_state("active", SOON)?;
    old.wait_state("active", SOON)?;
    let node = |number, vrid, vip: &str| sound(&lab, number).vrid(vrid).vips([vip]);
    let agents = [node(3, 70, "10.0.0.80"), node(4, 71, "10.0.0.71"), node(5, 72, "10.0.0.72")];
    let named = [
        [
            "vrid",
            "error",
            "10.0.0.1 (02:00:00:00:00:01) advertises virtual router 70 on eth0 with none of our VIPs",
        ],
        ["vrid", "error", "version_mismatch"],
        ["vip", "error", "02:00:00:00:00:c9 answers for 10.0.0.72"],
    ];
    thread::scope(|scope| {
        let looks: Vec<_> = agents.iter().map(|agent| scope.spawn(|| look(agent))).collect();
        looks.into_iter().zip(named).try_for_each(|(look, [check, outcome, text])| {
            look.join().expect("a look")?.names(check, outcome, text)
        })
    })?;
    drop((other, old));
    let _ = [1, 2].map(|number| std::fs::remove_dir_all(on_a_disk(lab.node(number))));
    Ok(())
}

#[test]
fn what_the_process_may_not_and_who_else_runs_is_named() -> Result<()> {
    let lab = Lab::builder().nodes(4).clients(1).vips(["10.0.0.50"]).build()?;
    let running = sound(&lab, 1).start()?;
    running.wait_state("active", SOON)?;
    let keepalived = lab.keepalived(2).vrid(99).vips([("10.0.0.99".parse()?, 24)]).start()?;
    // Somebody else's program, as long as that thread holds it.
    let (done, held) = mpsc::channel::<()>();
    let (ready, attached) = mpsc::channel();
    let holder = lab.node(3).thread("holder", move || {
        let mut other = bpf::other_program();
        let link = bpf::pass(&mut other).attach("eth0", aya::programs::XdpMode::Skb).map(drop);
        ready.send(link.map_err(|error| error.to_string())).expect("the test waits");
        let _ = held.recv();
    })?;
    attached.recv()?.map_err(anyhow::Error::msg)?;

    let poor = sound(&lab, 4);
    poor.write_config()?;
    let look_without = |capability: &str| -> Result<Looked> {
        let set = format!("--bounding-set=-{capability}");
        let command = lab.node(4).command("setpriv").arg(set).arg("--").arg(binary());
        let output = command.args(["preflight", "--json", "--config"]).arg(poor.config_path()).output()?;
        Ok(Looked { code: output.status.code(), report: serde_json::from_slice(&output.stdout)? })
    };
    thread::scope(|scope| {
        let on = |agent: AgentBuilder| scope.spawn(move || look(&agent));
        let [beside, with_keepalived, occupied] = [1, 2, 3].map(|number| on(sound(&lab, number)));
        let without = ["sys_nice", "ipc_lock", "net_raw"].map(|capability| {
            let look_without = &look_without;
            scope.spawn(move || look_without(capability))
        });

        let beside = beside.join().expect("a look")?;
        beside.names("agent", "warning", &format!("pid {}", running.process().pid()))?;
        ensure!(
            beside.complaints().len() == 1,
            "its own agent is all that is odd: {:#?}",
            beside.complaints()
        );
        with_keepalived.join().expect("a look")?.names("keepalived", "warning", "keepalived (pid ")?;
        let occupied = occupied.join().expect("a look")?;
        occupied.names("xdp_program", "error", "already runs XDP program `pass`")?;

        let [sys_nice, ipc_lock, net_raw] = without.map(|look| look.join().expect("a look"));
        sys_nice?.names("real_time", "warning", "SCHED_FIFO is refused")?;
        ipc_lock?.names("locked_memory", "warning", "memory is not locked")?;
        let net_raw = net_raw?;
        net_raw.names("capabilities", "error", "missing CAP_NET_RAW")?;
        net_raw.names("program", "warning", "cannot be looked at")
    })?;
    running.wait_state("active", SOON)?;
    drop(done);
    holder.join().expect("the holder");
    drop(keepalived);
    drop(running);
    let _ = std::fs::remove_dir_all(on_a_disk(lab.node(1)));
    Ok(())
}
