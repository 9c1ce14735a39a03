//! What preflight has to say: one finding for each thing that it looked at, as lines for people and as JSON.

use std::fmt::{self, Write as _};

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

macro_rules! checks {
    ($($variant:ident = $name:literal: $looked_at:literal,)+) => {
        /// What preflight looks at. Names are stable: they are part of the JSON output (docs/preflight.md).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Check {
            $(#[doc = $looked_at] $variant,)+
        }

        impl Check {
            /// All of them, in the order in which they are made.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What is looked at, in words.
            pub const fn looked_at(self) -> &'static str {
                match self {
                    $(Self::$variant => $looked_at,)+
                }
            }
        }
    };
}

checks! {
    Configuration = "configuration": "the configuration file",
    Agent = "agent": "other agents in this network namespace and in runtime_dir",
    Keepalived = "keepalived": "keepalived in this network namespace",
    RuntimeDir = "runtime_dir": "whether runtime_dir can be written",
    StateDir = "state_dir": "whether state_dir can be written, and outlives a reboot",
    PinDir = "pin_dir": "whether pin_dir is on a BPF file system, can be written, and holds nothing else",
    Kernel = "kernel": "the kernel's release",
    Capabilities = "capabilities": "the capabilities of this process",
    KernelFeature = "kernel_feature": "a feature of the kernel, asked for one by one",
    Program = "program": "the agent's own XDP program, loaded and attached in a network namespace made for that",
    Jit = "jit": "whether the kernel compiles BPF programs",
    Processes = "processes": "whether the agent can start its watcher by /proc/self/exe",
    Kubernetes = "kubernetes": "whether the agent can start vip-kube, where the configuration has `kubernetes`",
    RealTime = "real_time": "real-time priority, taken by a thread made for that",
    LockedMemory = "locked_memory": "whether memory can be locked",
    Clock = "clock": "the clock source and the resolution of timers",
    Clash = "clash": "whether two instances are the same virtual router",
    Interface = "interface": "the interfaces of an instance, with all that it needs of them",
    VipHere = "vip_here": "VIPs that are addresses of this node's own interfaces",
    XdpProgram = "xdp_program": "XDP programs that run on the interface already",
    XdpMode = "xdp_mode": "how the program will run on the interface, and why",
    Queues = "queues": "the NIC's queues, as far as driver mode needs more of them",
    Lro = "lro": "large receive offload and hardware GRO, which keep drivers from running XDP programs",
    Mtu = "mtu": "whether frames of the interface's MTU fit what its driver gives to XDP programs",
    VlanOffload = "vlan_offload": "whether VLAN tags are taken off before XDP sees them",
    Ipv6 = "ipv6": "net.ipv6.conf.IF.disable_ipv6, where there are IPv6 VIPs",
    RpFilter = "rp_filter": "net.ipv4.conf.IF.rp_filter, with the routes that replies take",
    ArpIgnore = "arp_ignore": "net.ipv4.conf.IF.arp_ignore, and whether it can be set",
    ArpAnnounce = "arp_announce": "net.ipv4.conf.IF.arp_announce, and whether it can be set",
    Sockets = "sockets": "the sockets of an instance, opened as the agent opens them",
    Firewall = "firewall": "this host's firewall, by an advert that ends before the interface",
    Multicast = "multicast": "the multicast groups, joined, and what arrives by them",
    Vrid = "vrid": "adverts on the segment, for three intervals: who uses the virtual_router_id",
    Vip = "vip": "stations that answer for the VIPs, asked three times",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How bad it is. What is not right has a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The agent serves, but not as well as it could; or somebody has to look at it.
    Warning {
        /// What to do.
        remedy: String,
    },
    /// The agent would not start, an instance would not serve, or would disturb others.
    Error {
        /// What to do.
        remedy: String,
    },
}

impl Verdict {
    /// The word in the output.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning { .. } => "warning",
            Self::Error { .. } => "error",
        }
    }

    /// What to do, where something is to be done.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Warning { remedy } | Self::Error { remedy } => Some(remedy),
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// Of what: "host", an interface, "instance NAME", a directory.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What it means.
    pub verdict: Verdict,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: Check, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), found: found.into(), verdict: Verdict::Ok }
    }

    /// Worth a look.
    pub fn warning(
        check: Check,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let verdict = Verdict::Warning { remedy: remedy.into() };
        Self { check, subject: subject.into(), found: found.into(), verdict }
    }

    /// Wrong.
    pub fn error(
        check: Check,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let verdict = Verdict::Error { remedy: remedy.into() };
        Self { check, subject: subject.into(), found: found.into(), verdict }
    }

    /// What could not be looked at: the agent may fare no better.
    pub fn unknown(check: Check, subject: impl Into<String>, why: impl fmt::Display) -> Self {
        let remedy = "run preflight as the agent will run: same user, namespaces and capabilities";
        Self::warning(check, subject, format!("cannot be looked at: {why}"), remedy)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut finding = serializer.serialize_struct("Finding", 6)?;
        finding.serialize_field("check", self.check.name())?;
        finding.serialize_field("subject", &self.subject)?;
        finding.serialize_field("outcome", self.verdict.word())?;
        finding.serialize_field("looked_at", self.check.looked_at())?;
        finding.serialize_field("found", &self.found)?;
        finding.serialize_field("remedy", &self.verdict.remedy())?;
        finding.end()
    }
}

/// All findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many there are of a kind, by its word.
    fn count(&self, word: &str) -> usize {
        self.findings.iter().filter(|finding| finding.verdict.word() == word).count()
    }

    /// The worst of all, by its word.
    pub fn outcome(&self) -> &'static str {
        match (self.count("error"), self.count("warning")) {
            (0, 0) => "ok",
            (0, _) => "warning",
            _ => "error",
        }
    }

    /// What the command ends with: 0 ok, 1 warnings, 2 errors.
    pub fn exit_code(&self) -> u8 {
        match self.outcome() {
            "ok" => 0,
            "warning" => 1,
            _ => 2,
        }
    }

    /// Lines for people, remedies below what they are for.
    pub fn table(&self) -> String {
        let width = |text: fn(&Finding) -> &str| self.findings.iter().map(|found| text(found).len()).max();
        let checks = width(|finding| finding.check.name()).unwrap_or(0);
        let subjects = width(|finding| &finding.subject).unwrap_or(0);
        let mut table = String::new();
        for Finding { check, subject, found, verdict } in &self.findings {
            let indent = 8 + 1 + checks + 1 + subjects + 1;
            let found = found.replace('\n', &format!("\n{:indent$}", ""));
            let word = verdict.word();
            let _ = writeln!(table, "{word:8} {check:checks$} {subject:subjects$} {found}");
            if let Some(remedy) = verdict.remedy() {
                let _ = writeln!(table, "{:indent$}-> {remedy}", "");
            }
        }
        let [errors, warnings, ok] = ["error", "warning", "ok"].map(|word| self.count(word));
        let _ = writeln!(table, "errors: {errors}, warnings: {warnings}, ok: {ok}");
        table
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 5)?;
        report.serialize_field("outcome", self.outcome())?;
        report.serialize_field("errors", &self.count("error"))?;
        report.serialize_field("warnings", &self.count("warning"))?;
        report.serialize_field("ok", &self.count("ok"))?;
        report.serialize_field("findings", &self.findings)?;
        report.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn report(findings: impl IntoIterator<Item = Finding>) -> Report {
        Report { findings: findings.into_iter().collect() }
    }

    fn fine() -> Finding {
        Finding::ok(Check::Kernel, "host", "6.1")
    }

    fn doubtful() -> Finding {
        Finding::warning(Check::Clock, "host", "hpet", "take tsc")
    }

    fn wrong() -> Finding {
        Finding::error(Check::Interface, "instance edge", "eth0 is down", "ip link set eth0 up")
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        assert_eq!(report([]).exit_code(), 0);
        assert_eq!(report([fine()]).exit_code(), 0);
        assert_eq!(report([doubtful(), fine()]).exit_code(), 1);
        assert_eq!(report([wrong(), doubtful(), fine()]).exit_code(), 2);
    }

    #[test]
    fn each_line_says_outcome_check_subject_and_what_was_found_with_the_remedy_below() {
        let table = report([fine(), wrong()]).table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "ok       kernel    host          6.1");
        assert_eq!(lines[1], "error    interface instance edge eth0 is down");
        assert_eq!(lines[2].trim_start(), "-> ip link set eth0 up");
        assert_eq!(lines[3], "errors: 1, warnings: 0, ok: 1");
    }

    #[test]
    fn json_has_all_that_the_lines_have() {
        let json = serde_json::to_value(report([doubtful()])).unwrap();
        assert_eq!(json["outcome"], "warning");
        assert_eq!((&json["errors"], &json["warnings"], &json["ok"]), (&0.into(), &1.into(), &0.into()));
        let finding = serde_json::json!({
            "check": "clock", "subject": "host", "outcome": "warning",
            "looked_at": "the clock source and the resolution of timers", "found": "hpet", "remedy": "take tsc",
        });
        assert_eq!(json["findings"][0], finding);
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = Check::ALL.iter().map(|check| check.name()).collect();
        assert_eq!(names.len(), Check::ALL.len());
    }

    #[test]
    fn the_page_lists_each_check_as_it_is() {
        let page = include_str!("../../../docs/preflight.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let listed: Vec<(&str, &str)> = rows
            .filter_map(|row| {
                let mut cells = row.split(" | ");
                Some((cells.next()?.trim_end_matches('`'), cells.next()?))
            })
            .collect();
        let made: Vec<(&str, &str)> =
            Check::ALL.iter().map(|check| (check.name(), check.looked_at())).collect();
        assert_eq!(listed, made);
    }
}
