//! Judges an interface as the XDP program will find it: who is there, which mode, queues, offloads, MTU. Pure.

use super::report::{Check, Finding};
use crate::dataplane::XdpMode;
use crate::net::ethtool::Channels;
use crate::net::offload::XdpFeatures;
use crate::types::XdpModeChoice;

/// An interface that the program is to be attached to.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    /// The driver's name for its kind ("veth", "bond"...); `None` on hardware.
    pub(super) kind: Option<String>,
    pub(super) driver: Option<String>,
    /// In bytes.
    pub(super) mtu: u32,
    /// `xdp_mode` of the configuration.
    pub(super) choice: XdpModeChoice,
    /// The mode in which a program of ours runs there already, if one does; or who else is there.
    pub(super) running: Result<Option<XdpMode>, String>,
    /// What the driver says that it can do; `None`: the kernel does not tell.
    pub(super) xdp: Option<XdpFeatures>,
    pub(super) channels: Option<Channels>,
    /// Of this machine.
    pub(super) cpus: u32,
    /// Large receive offload is on.
    pub(super) lro: bool,
    /// Hardware GRO is on.
    pub(super) gro_hw: bool,
    /// VLAN interfaces on top of it that instances use, and interfaces (itself, or a bond's members) that take their tags off,
    /// with whether each is a virtual one.
    pub(super) vlans: Vec<String>,
    pub(super) strippers: Vec<(String, bool)>,
}

/// The longest MTU whose frames fit one page with what drivers put around them: 4096 bytes less 256 of headroom, 320 of
/// skb_shared_info and 22 of Ethernet with two tags. Drivers differ by a few bytes.
const PAGE_MTU: u32 = 3498;

/// How the program will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Driver,
    Generic,
    /// `xdp_mode: driver`, and the driver cannot.
    Refused,
    /// Only the attempt will tell.
    Unknown,
}

pub(super) fn judge(link: &Link) -> Vec<Finding> {
    let mut findings = vec![program(link), mode(link)];
    findings.extend([queues(link), lro(link), mtu(link)]);
    findings.extend(vlan_offload(link));
    findings
}

impl Link {
    fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    fn expected(&self) -> Expected {
        match (self.choice, self.xdp) {
            (XdpModeChoice::Skb, _) => Expected::Generic,
            (XdpModeChoice::Auto, _) if self.is_veth() => Expected::Generic,
            // Where `auto` has settled for a mode, the agent keeps it.
            (XdpModeChoice::Auto, _) if self.running == Ok(Some(XdpMode::Skb)) => Expected::Generic,
            (_, None) => Expected::Unknown,
            (_, Some(XdpFeatures { basic: true, .. })) => Expected::Driver,
            (XdpModeChoice::Driver, Some(_)) => Expected::Refused,
            (XdpModeChoice::Auto, Some(_)) => Expected::Generic,
        }
    }

    /// Whether it may come to driver mode, so that what drivers are particular about matters.
    fn may_be_driver(&self) -> bool {
        matches!(self.expected(), Expected::Driver | Expected::Unknown)
    }

    fn driver(&self) -> &str {
        self.driver.as_deref().or(self.kind.as_deref()).unwrap_or("its driver")
    }

    /// A doubt about driver mode: with `xdp_mode: driver` the instance would be in fault, with `auto` it is only slower.
    fn doubt(&self, check: Check, found: String, remedy: String) -> Finding {
        match self.choice {
            XdpModeChoice::Driver => Finding::error(check, &self.name, found, remedy),
            _ => {
                Finding::warning(check, &self.name, format!("{found}; generic mode is what remains"), remedy)
            }
        }
    }
}

fn program(link: &Link) -> Finding {
    match &link.running {
        Ok(None) => Finding::ok(Check::XdpProgram, &link.name, "none runs there"),
        Ok(Some(mode)) => Finding::ok(
            Check::XdpProgram,
            &link.name,
            format!("viplane's own runs there in {mode} mode; the agent takes it over without a gap"),
        ),
        Err(who) => Finding::error(
            Check::XdpProgram,
            &link.name,
            who,
            "an interface has one XDP program: take that one off, or use another interface",
        ),
    }
}

fn mode(link: &Link) -> Finding {
    let Link { name, choice, .. } = link;
    let ok = |found: String| Finding::ok(Check::XdpMode, name, found);
    let driver = link.driver();
    match link.expected() {
        Expected::Driver if link.is_veth() => Finding::warning(
            Check::XdpMode,
            name,
            "driver mode, as `xdp_mode: driver` says: between veths answers arrive only if the other end has an XDP program, too",
            "set `xdp_mode: auto`",
        ),
        Expected::Driver => ok(format!("driver mode: {driver} runs XDP programs")),
        Expected::Generic if *choice == XdpModeChoice::Skb => {
            ok("generic mode, as `xdp_mode: skb` says".to_owned())
        }
        Expected::Generic if link.kind.is_some() => ok(format!("generic mode, which is right for {driver}")),
        Expected::Generic => Finding::warning(
            Check::XdpMode,
            name,
            format!("generic mode: {driver} runs no XDP programs as it is set up now; answers cost more CPU"),
            "use a NIC or driver with XDP, or set `xdp_mode: skb` if that is how it should be",
        ),
        Expected::Refused => Finding::error(
            Check::XdpMode,
            name,
            format!(
                "{driver} runs no XDP programs as it is set up now, and `xdp_mode: driver` wants nothing else"
            ),
            "set `xdp_mode: auto`, or use a NIC or driver with XDP",
        ),
        Expected::Unknown => ok(format!(
            "not known before the agent tries: this kernel (before 6.3) does not tell whether {driver} runs XDP programs"
        )),
    }
}

/// Some drivers need further queues for what programs send.
fn queues(link: &Link) -> Finding {
    let Link { name, cpus, .. } = link;
    let Some(Channels { used, most }) = link.channels else {
        return Finding::ok(Check::Queues, name, format!("{} does not say", link.driver()));
    };
    let found = format!("{used} queue pairs of at most {most}, {cpus} CPUs");
    if !link.may_be_driver() {
        return Finding::ok(Check::Queues, name, format!("{found}; generic mode needs no more"));
    }
    match link.driver.as_deref() {
        // virtnet_xdp_set: one queue for each CPU besides those in use; else a locked one for all.
        Some("virtio_net") if used + cpus > most => Finding::warning(
            Check::Queues,
            name,
            format!(
                "{found}: virtio_net has none left for each CPU's answers, which wait for each other then"
            ),
            format!(
                "give the virtual NIC {} queue pairs (`queues=` of QEMU, libvirt's `<driver queues=.../>`)",
                used + cpus
            ),
        ),
        // ena_xdp_legal_queue_count, gve_verify_xdp_configuration: half of them are for answers.
        Some(driver @ ("ena" | "gve")) if 2 * used > most => link.doubt(
            Check::Queues,
            format!("{found}: {driver} runs XDP programs with half of its queues only"),
            format!("`ethtool -L {name} combined {}`", (most / 2).max(1)),
        ),
        _ => Finding::ok(Check::Queues, name, found),
    }
}

fn lro(link: &Link) -> Finding {
    let Link { name, lro, gro_hw, .. } = link;
    let on = match (lro, gro_hw) {
        (false, false) => return Finding::ok(Check::Lro, name, "both off"),
        (true, false) => "LRO is on",
        (false, true) => "rx-gro-hw is on",
        (true, true) => "LRO and rx-gro-hw are on",
    };
    if !link.may_be_driver() {
        // dev_disable_lro and dev_disable_gro_hw in generic_xdp_install.
        return Finding::ok(Check::Lro, name, format!("{on}; generic mode switches it off while it lasts"));
    }
    link.doubt(
        Check::Lro,
        format!("{on}: most drivers refuse XDP programs then"),
        format!("`ethtool -K {name} lro off rx-gro-hw off`"),
    )
}

fn mtu(link: &Link) -> Finding {
    let Link { name, mtu, .. } = link;
    if *mtu <= PAGE_MTU {
        return Finding::ok(Check::Mtu, name, format!("{mtu}: frames fit a page"));
    }
    match (link.may_be_driver(), link.xdp) {
        (false, _) => Finding::ok(Check::Mtu, name, format!("{mtu}: generic mode takes any")),
        (true, Some(XdpFeatures { fragments: true, .. })) => Finding::ok(
            Check::Mtu,
            name,
            format!("{mtu}: {} gives longer frames in fragments", link.driver()),
        ),
        (true, _) => link.doubt(
            Check::Mtu,
            format!(
                "{mtu}: frames do not fit a page, and {} does not say that it gives them in fragments",
                link.driver()
            ),
            format!("`ip link set {name} mtu {PAGE_MTU}` or less, or a newer driver"),
        ),
    }
}

fn vlan_offload(link: &Link) -> Option<Finding> {
    let vlans = link.vlans.join(", ");
    if vlans.is_empty() {
        return None;
    }
    let Some((stripper, is_virtual)) = link.strippers.first() else {
        return Some(Finding::ok(
            Check::VlanOffload,
            &link.name,
            format!("off: XDP sees the tags of {vlans}"),
        ));
    };
    let remedy = format!("`ethtool -K {stripper} rxvlan off`");
    Some(if *is_virtual {
        let found = format!(
            "{stripper} says that it takes tags off; whether those of {vlans} arrive depends on the sender"
        );
        Finding::warning(Check::VlanOffload, &link.name, found, remedy)
    } else {
        let found = format!("{stripper} takes tags off before XDP sees the frames of {vlans}");
        Finding::error(Check::VlanOffload, &link.name, found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Option<XdpFeatures> = Some(XdpFeatures { basic: true, fragments: true });
    const UNABLE: Option<XdpFeatures> = Some(XdpFeatures { basic: false, fragments: false });

    /// A server's NIC.
    fn nic() -> Link {
        Link {
            name: "eth0".to_owned(),
            kind: None,
            driver: Some("mlx5_core".to_owned()),
            mtu: 1500,
            choice: XdpModeChoice::Auto,
            running: Ok(None),
            xdp: ABLE,
            channels: Some(Channels { used: 8, most: 63 }),
            cpus: 8,
            lro: false,
            gro_hw: false,
            vlans: Vec::new(),
            strippers: Vec::new(),
        }
    }

    fn veth() -> Link {
        Link { kind: Some("veth".to_owned()), driver: Some("veth".to_owned()), ..nic() }
    }

    /// The words of those findings that are not ok, with their checks.
    fn complaints(link: &Link) -> Vec<(Check, &'static str)> {
        let findings = judge(link);
        let words = findings.iter().map(|finding| (finding.check, finding.verdict.word()));
        words.filter(|(_, word)| *word != "ok").collect()
    }

    #[test]
    fn a_nic_with_xdp_and_a_veth_are_fine() {
        assert_eq!(complaints(&nic()), []);
        assert_eq!(complaints(&veth()), []);
        assert_eq!(mode(&nic()).found, "driver mode: mlx5_core runs XDP programs");
        assert_eq!(mode(&veth()).found, "generic mode, which is right for veth");
    }

    #[test]
    fn a_nic_without_xdp_is_slow_unless_that_is_wanted_and_useless_if_driver_mode_is() {
        let nic = Link { xdp: UNABLE, ..nic() };
        assert_eq!(complaints(&nic), [(Check::XdpMode, "warning")]);
        assert_eq!(complaints(&Link { choice: XdpModeChoice::Skb, ..nic.clone() }), []);
        assert_eq!(complaints(&Link { choice: XdpModeChoice::Driver, ..nic }), [(Check::XdpMode, "error")]);
    }

    #[test]
    fn an_older_kernel_leaves_the_mode_open_and_what_drivers_mind_counts() {
        let nic = Link { xdp: None, lro: true, ..nic() };
        assert_eq!(complaints(&nic), [(Check::Lro, "warning")]);
        assert!(mode(&nic).found.starts_with("not known"));
    }

    #[test]
    fn driver_mode_on_a_veth_is_a_trap() {
        assert_eq!(
            complaints(&Link { choice: XdpModeChoice::Driver, ..veth() }),
            [(Check::XdpMode, "warning")]
        );
    }

    #[test]
    fn somebody_elses_program_is_an_error_and_our_own_is_none() {
        let occupied = Link { running: Err("eth0 already runs XDP program `cil_xdp`".to_owned()), ..nic() };
        assert_eq!(complaints(&occupied), [(Check::XdpProgram, "error")]);
        assert_eq!(complaints(&Link { running: Ok(Some(XdpMode::Driver)), ..nic() }), []);
    }

    #[test]
    fn a_mode_that_auto_has_settled_for_stays() {
        let link = Link { running: Ok(Some(XdpMode::Skb)), lro: true, ..nic() };
        assert_eq!(link.expected(), Expected::Generic);
    }

    #[test]
    fn offloads_that_put_frames_together_matter_in_driver_mode_alone() {
        for (lro, gro_hw) in [(true, false), (false, true), (true, true)] {
            let nic = Link { lro, gro_hw, ..nic() };
            assert_eq!(complaints(&nic), [(Check::Lro, "warning")]);
            assert_eq!(complaints(&Link { choice: XdpModeChoice::Driver, ..nic }), [(Check::Lro, "error")]);
            assert_eq!(complaints(&Link { lro, gro_hw, ..veth() }), []);
        }
    }

    #[test]
    fn jumbo_frames_need_fragments_in_driver_mode() {
        let jumbo = Link { mtu: 9000, ..nic() };
        assert_eq!(complaints(&jumbo), []);
        let old = Link { xdp: Some(XdpFeatures { basic: true, fragments: false }), ..jumbo };
        assert_eq!(complaints(&old), [(Check::Mtu, "warning")]);
        assert_eq!(
            complaints(&Link { choice: XdpModeChoice::Driver, ..old.clone() }),
            [(Check::Mtu, "error")]
        );
        assert_eq!(complaints(&Link { choice: XdpModeChoice::Skb, ..old.clone() }), []);
        assert_eq!(complaints(&Link { mtu: PAGE_MTU, ..old }), []);
    }

    #[test]
    fn a_virtual_nic_needs_a_queue_more_for_each_cpu() {
        let channels = |used, most| Some(Channels { used, most });
        let virtio = |channels| Link { driver: Some("virtio_net".to_owned()), cpus: 4, channels, ..nic() };
        assert_eq!(complaints(&virtio(channels(4, 8))), []);
        assert_eq!(complaints(&virtio(channels(4, 4))), [(Check::Queues, "warning")]);
        let ena = |channels| Link { driver: Some("ena".to_owned()), channels, ..nic() };
        assert_eq!(complaints(&ena(channels(4, 8))), []);
        assert_eq!(complaints(&ena(channels(8, 8))), [(Check::Queues, "warning")]);
        assert!(queues(&ena(channels(8, 8))).verdict.word() == "warning");
    }

    #[test]
    fn tags_that_are_taken_off_matter_where_an_instance_is_on_a_vlan() {
        let strippers = vec![("eth0".to_owned(), false)];
        assert_eq!(complaints(&Link { strippers: strippers.clone(), ..nic() }), []);
        let tagged = Link { vlans: vec!["eth0.7".to_owned()], strippers, ..nic() };
        assert_eq!(complaints(&tagged), [(Check::VlanOffload, "error")]);
        let between_veths = Link { strippers: vec![("veth0".to_owned(), true)], ..tagged };
        assert_eq!(complaints(&between_veths), [(Check::VlanOffload, "warning")]);
    }
}
