//! Judges the kernel's settings of an interface that carries VIPs. Pure.

use std::net::Ipv4Addr;

use super::report::{Check, Finding};

/// The settings of one interface, and what instances want of it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) interface: String,
    /// Whether there are IPv4 VIPs that stand on lo, and so are addresses of this host.
    pub(super) on_lo: bool,
    /// Whether adverts or VIPs of IPv6 go by it.
    pub(super) ipv6: bool,
    /// Each value as it is in force.
    pub(super) arp_ignore: Result<i32, String>,
    pub(super) arp_announce: Result<i32, String>,
    pub(super) rp_filter: Result<i32, String>,
    pub(super) disable_ipv6: Result<i32, String>,
    /// Whether the agent may set them.
    pub(super) settable: Result<(), String>,
    /// By which interface this host replies to a neighbour of each IPv4 VIP; `None`: it has no route.
    pub(super) replies: Vec<(Ipv4Addr, Option<String>)>,
    /// By which interface it replies to the rest of the world, if at all.
    pub(super) default_route: Option<String>,
}

/// arp_ignore: answers for no address at all.
const MUTE: i32 = 8;
/// arp_announce: an address of the interface itself.
const OWN_ADDRESS: i32 = 2;
/// rp_filter (RFC 3704): a source must be routed by the interface that it came in by; any route is enough.
const STRICT: i32 = 1;

pub(super) fn judge(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.ipv6 {
        findings.push(read(Check::Ipv6, settings, &settings.disable_ipv6, ipv6));
    }
    if !settings.replies.is_empty() {
        findings.push(read(Check::RpFilter, settings, &settings.rp_filter, rp_filter));
        findings.push(read(Check::ArpIgnore, settings, &settings.arp_ignore, arp_ignore));
        findings.push(read(Check::ArpAnnounce, settings, &settings.arp_announce, arp_announce));
    }
    findings
}

fn read(
    check: Check,
    settings: &Settings,
    value: &Result<i32, String>,
    judge: fn(&Settings, i32) -> Finding,
) -> Finding {
    match value {
        Ok(value) => judge(settings, *value),
        Err(why) => Finding::unknown(check, &settings.interface, why),
    }
}

/// As `sysctl -w` takes it: dots of the interface's name become slashes.
fn key(settings: &Settings, family: &str, name: &str) -> String {
    format!("net.{family}.conf.{}.{name}", settings.interface.replace('.', "/"))
}

fn ipv6(settings: &Settings, disabled: i32) -> Finding {
    let interface = &settings.interface;
    if disabled == 0 {
        return Finding::ok(Check::Ipv6, interface, "0: the interface does IPv6");
    }
    Finding::error(
        Check::Ipv6,
        interface,
        format!("{disabled}: the interface does without IPv6, and there are IPv6 VIPs"),
        format!("`sysctl -w {}=0`", key(settings, "ipv6", "disable_ipv6")),
    )
}

fn rp_filter(settings: &Settings, value: i32) -> Finding {
    let interface = &settings.interface;
    let remedy = || format!("`sysctl -w {}=2`", key(settings, "ipv4", "rp_filter"));
    if value == 0 {
        return Finding::ok(Check::RpFilter, interface, "0: any source is believed");
    }
    if let Some((vip, _)) = settings.replies.iter().find(|(_, by)| by.is_none()) {
        return Finding::error(
            Check::RpFilter,
            interface,
            format!(
                "{value}, and this host has no route to the neighbours of {vip}: their frames are dropped"
            ),
            format!("give {interface} an address in the subnet of {vip}, or this host a route to it"),
        );
    }
    if value != STRICT {
        return Finding::ok(
            Check::RpFilter,
            interface,
            format!("{value}: sources with any route are believed"),
        );
    }
    let elsewhere = |by: &Option<String>| by.as_ref().filter(|by| *by != interface).cloned();
    if let Some((vip, by)) = settings.replies.iter().find_map(|(vip, by)| Some((vip, elsewhere(by)?))) {
        return Finding::error(
            Check::RpFilter,
            interface,
            format!(
                "1 (strict): neighbours of {vip} come in by {interface}, but this host replies to them by {by}: their frames \
                 are dropped"
            ),
            remedy(),
        );
    }
    match elsewhere(&settings.default_route) {
        None => Finding::ok(Check::RpFilter, interface, "1 (strict): replies leave by the same interface"),
        Some(by) => Finding::warning(
            Check::RpFilter,
            interface,
            format!(
                "1 (strict), and the default route leaves by {by}: frames of clients beyond {interface}'s subnets are dropped"
            ),
            remedy(),
        ),
    }
}

fn arp_ignore(settings: &Settings, value: i32) -> Finding {
    let interface = &settings.interface;
    let sysctl = key(settings, "ipv4", "arp_ignore");
    match (value, &settings.settable) {
        (0, Err(why)) if settings.on_lo => Finding::warning(
            Check::ArpIgnore,
            interface,
            format!(
                "0, and it cannot be set ({why}): without the XDP program this kernel would answer ARP for its VIPs"
            ),
            format!("mount /proc/sys writable, or `sysctl -w {sysctl}=3` on the host"),
        ),
        (0, _) if settings.on_lo => {
            Finding::ok(Check::ArpIgnore, interface, "0: the agent sets 3 while it runs")
        }
        (MUTE, _) => Finding::warning(
            Check::ArpIgnore,
            interface,
            "8: this kernel answers ARP for no address, so that nobody finds this node but by its VIPs",
            format!("`sysctl -w {sysctl}=3`; the value of `all` counts, too, if it is higher"),
        ),
        (value, _) => Finding::ok(Check::ArpIgnore, interface, format!("{value}: left as it is")),
    }
}

fn arp_announce(settings: &Settings, value: i32) -> Finding {
    let interface = &settings.interface;
    match (value, &settings.settable) {
        (OWN_ADDRESS.., _) => Finding::ok(Check::ArpAnnounce, interface, format!("{value}: left as it is")),
        (_, Err(why)) if settings.on_lo => Finding::warning(
            Check::ArpAnnounce,
            interface,
            format!(
                "{value}, and it cannot be set ({why}): after a handover this kernel may draw clients back by its ARP requests"
            ),
            format!(
                "mount /proc/sys writable, or `sysctl -w {}=2` on the host",
                key(settings, "ipv4", "arp_announce")
            ),
        ),
        _ if settings.on_lo => {
            Finding::ok(Check::ArpAnnounce, interface, format!("{value}: the agent sets 2 while it runs"))
        }
        _ => Finding::ok(Check::ArpAnnounce, interface, format!("{value}: no VIP stands on lo")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

    fn by(interface: &str) -> Option<String> {
        Some(interface.to_owned())
    }

    /// As Debian sets them up.
    fn good() -> Settings {
        Settings {
            interface: "eth1.7".to_owned(),
            on_lo: true,
            ipv6: true,
            arp_ignore: Ok(0),
            arp_announce: Ok(0),
            rp_filter: Ok(2),
            disable_ipv6: Ok(0),
            settable: Ok(()),
            replies: vec![(VIP, by("eth1.7"))],
            default_route: by("eth1.7"),
        }
    }

    fn complaints(settings: &Settings) -> Vec<(Check, &'static str)> {
        let findings = judge(settings);
        let words = findings.iter().map(|finding| (finding.check, finding.verdict.word()));
        words.filter(|(_, word)| *word != "ok").collect()
    }

    #[test]
    fn usual_settings_are_fine() {
        assert_eq!(complaints(&good()), []);
        assert_eq!(judge(&good()).len(), 4);
    }

    #[test]
    fn a_strict_filter_drops_those_whom_replies_reach_another_way() {
        let strict = Settings { rp_filter: Ok(1), ..good() };
        assert_eq!(complaints(&strict), []);
        let elsewhere = Settings { replies: vec![(VIP, by("eth1.7")), (VIP, by("eth0"))], ..strict.clone() };
        assert_eq!(complaints(&elsewhere), [(Check::RpFilter, "error")]);
        assert!(judge(&elsewhere)[1].verdict.remedy().unwrap().contains("net.ipv4.conf.eth1/7.rp_filter=2"));
        let gateway = Settings { default_route: by("eth0"), ..strict.clone() };
        assert_eq!(complaints(&gateway), [(Check::RpFilter, "warning")]);
        assert_eq!(complaints(&Settings { default_route: None, ..strict }), []);
    }

    #[test]
    fn a_loose_filter_wants_any_route_and_no_filter_none() {
        let nowhere = Settings { replies: vec![(VIP, None)], ..good() };
        assert_eq!(complaints(&nowhere), [(Check::RpFilter, "error")]);
        assert_eq!(complaints(&Settings { rp_filter: Ok(0), ..nowhere }), []);
        assert_eq!(complaints(&Settings { replies: vec![(VIP, by("eth0"))], ..good() }), []);
    }

    #[test]
    fn settings_that_the_agent_cannot_change_matter_only_if_it_would() {
        let fixed = Settings { settable: Err("Read-only file system".to_owned()), ..good() };
        assert_eq!(complaints(&fixed), [(Check::ArpIgnore, "warning"), (Check::ArpAnnounce, "warning")]);
        assert_eq!(complaints(&Settings { on_lo: false, ..fixed.clone() }), []);
        assert_eq!(complaints(&Settings { arp_ignore: Ok(1), arp_announce: Ok(2), ..fixed }), []);
    }

    #[test]
    fn a_kernel_that_answers_for_nothing_is_told_of() {
        assert_eq!(complaints(&Settings { arp_ignore: Ok(8), ..good() }), [(Check::ArpIgnore, "warning")]);
    }

    #[test]
    fn ipv6_vips_need_ipv6() {
        let without = Settings { disable_ipv6: Ok(1), ..good() };
        assert_eq!(complaints(&without), [(Check::Ipv6, "error")]);
        assert_eq!(complaints(&Settings { ipv6: false, ..without }), []);
    }

    #[test]
    fn what_cannot_be_read_is_not_called_good() {
        assert_eq!(
            complaints(&Settings { rp_filter: Err("no such file".to_owned()), ..good() }),
            [(Check::RpFilter, "warning")]
        );
    }

    #[test]
    fn without_ipv4_vips_arp_is_nobodys_concern() {
        let only_ipv6 = Settings { replies: Vec::new(), arp_ignore: Ok(8), ..good() };
        assert_eq!(judge(&only_ipv6).len(), 1);
    }
}
