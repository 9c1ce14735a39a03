//! The command line, and the plan of a run that it makes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};

/// IPv6 VIPs of one instance: more than 90 would not fit an advert into an Ethernet frame.
const MOST_IPV6: u16 = 64;
/// IPv4 VIPs of one instance: adverts count them in eight bits.
const MOST_IPV4: u16 = 255;
/// Priorities of those who have parts: so far apart that skews tell them apart at 10 ms adverts too.
const PARTS: [u8; 3] = [200, 150, 100];
/// Priority of the first who stands by; each next has one less.
const STANDS_BY: u8 = 50;

/// Nodes share a VIP; one is killed, one drained, one has its cable cut, all come back. A client asks every millisecond.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", version)]
pub(crate) struct Options {
    /// Nodes; the first three have parts in the story, the others stand by
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=16), value_name = "3-16")]
    nodes: u8,
    /// Advert interval: 10ms to 40.95s in steps of 10ms
    #[arg(long, default_value = "100ms", value_parser = advert, value_name = "DURATION")]
    advert: Duration,
    /// VIPs in all: the first is IPv4, half of them (64 at most) are IPv6
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=(MOST_IPV4 + MOST_IPV6) as i64), value_name = "1-319")]
    vips: u16,
    /// The third node runs keepalived instead of vip-agent
    #[arg(long)]
    keepalived: bool,
    /// How often to play the story
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "1-100")]
    rounds: u16,
    /// Quiet time after each move: 500ms to 1m
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration, value_name = "DURATION", conflicts_with = "quick")]
    pause: Duration,
    /// As --pause 1s: some ten seconds in all
    #[arg(long)]
    quick: bool,
    /// Time between requests: 1ms to 100ms, whole milliseconds
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration, value_name = "DURATION")]
    every: Duration,
    /// A request without an answer for so long is lost: 100ms to 10s
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration, value_name = "DURATION")]
    patience: Duration,
    /// Plain lines, also on a terminal
    #[arg(long)]
    plain: bool,
    /// Folder for timeline.svg, demo.json and logs/
    #[arg(long, default_value = "target/demo", value_name = "FOLDER")]
    out: PathBuf,
    /// The vip-agent to run [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// What will be played: valid and complete.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: u8,
    pub(crate) advert: Duration,
    pub(crate) vips: Vec<IpAddr>,
    /// Number of the node that runs keepalived.
    pub(crate) keepalived: Option<usize>,
    pub(crate) rounds: u16,
    pub(crate) pause: Duration,
    pub(crate) every: Duration,
    pub(crate) patience: Duration,
    pub(crate) plain: bool,
    pub(crate) out: PathBuf,
    pub(crate) agent: PathBuf,
}

// === impl Options ===

impl Options {
    /// # Errors
    /// An option is out of its range, or a program is missing: with the option, the range and the remedy.
    pub(crate) fn plan(self) -> Result<Plan, clap::Error> {
        let pause = if self.quick { Duration::from_secs(1) } else { self.pause };
        within("--pause", pause, Duration::from_millis(500), Duration::from_secs(60))?;
        within("--every", self.every, Duration::from_millis(1), Duration::from_millis(100))?;
        if !self.every.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(wrong(format!(
                "--every takes whole milliseconds, not {}",
                humantime::format_duration(self.every)
            )));
        }
        within("--patience", self.patience, Duration::from_millis(100), Duration::from_secs(10))?;
        Ok(Plan {
            nodes: self.nodes,
            advert: self.advert,
            vips: vips(self.vips),
            keepalived: self.keepalived.then(keepalived_node).transpose()?,
            rounds: self.rounds,
            pause,
            every: self.every,
            patience: self.patience,
            plain: self.plain,
            out: self.out,
            agent: agent(self.agent)?,
        })
    }
}

// === impl Plan ===

impl Plan {
    /// Priority of node `number`, from 1.
    pub(crate) fn priority(&self, number: usize) -> u8 {
        let index = number.saturating_sub(1);
        let stands_by = || u8::try_from(index.saturating_sub(PARTS.len())).unwrap_or(u8::MAX);
        PARTS.get(index).copied().unwrap_or_else(|| STANDS_BY.saturating_sub(stands_by()).max(1))
    }

    /// RFC 9568, 6.1: silence after which node `number` takes over.
    pub(crate) fn active_down(&self, number: usize) -> Duration {
        self.advert * 3 + self.advert * (256 - u32::from(self.priority(number))) / 256
    }

    /// One VIP of each family that there is: the ones that are watched.
    pub(crate) fn watched(&self) -> Vec<IpAddr> {
        [true, false]
            .iter()
            .filter_map(|&v4| self.vips.iter().find(|vip| vip.is_ipv4() == v4))
            .copied()
            .collect()
    }

    /// How long it will take, roughly.
    pub(crate) fn expected_duration(&self) -> Duration {
        let moves = self.active_down(2) * 3 + self.pause * 5 + Duration::from_secs(1);
        Duration::from_secs(2) + self.active_down(1) + moves * u32::from(self.rounds)
    }
}

fn wrong(message: String) -> clap::Error {
    Options::command().error(ErrorKind::ValueValidation, message)
}

fn within(option: &str, value: Duration, least: Duration, most: Duration) -> Result<(), clap::Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let [value, least, most] = [value, least, most].map(humantime::format_duration);
    Err(wrong(format!("{option} must be {least} to {most}, not {value}")))
}

fn advert(text: &str) -> Result<Duration, String> {
    const RANGE: &str = "VRRPv3 has advert intervals of 10ms to 40.95s, in steps of 10ms";
    let interval = humantime::parse_duration(text).map_err(|error| format!("{error}; {RANGE}"))?;
    let centiseconds = interval.as_nanos() / 10_000_000;
    if interval.as_nanos() % 10_000_000 == 0 && (1..=4095).contains(&centiseconds) {
        return Ok(interval);
    }
    Err(RANGE.into())
}

/// 10.0.0.50 and fd00::50, then 10.0.1.1 and fd00::1:1 and so on; IPv4 takes what IPv6 may not.
fn vips(count: u16) -> Vec<IpAddr> {
    let ipv6 = (count / 2).min(MOST_IPV6);
    let more4 = (1..count - ipv6).map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0100 + u32::from(n))));
    let more6 = (1..ipv6).map(|n| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, n)));
    let first6 = (ipv6 > 0).then(|| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50)));
    std::iter::once(IpAddr::from([10, 0, 0, 50])).chain(first6).chain(more4).chain(more6).collect()
}

/// The third: the heir of a drain, and the one whose cable is cut.
fn keepalived_node() -> Result<usize, clap::Error> {
    const THIRD: usize = 3;
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("keepalived").is_file()) {
        return Ok(THIRD);
    }
    Err(wrong("--keepalived needs keepalived: apt-get install keepalived (and systemctl disable it)".into()))
}

fn agent(given: Option<PathBuf>) -> Result<PathBuf, clap::Error> {
    let beside = || std::env::current_exe().ok().map(|own| own.with_file_name("vip-agent"));
    match given.or_else(beside) {
        Some(agent) if agent.is_file() => Ok(agent),
        Some(agent) => Err(wrong(format!(
            "there is no vip-agent at {}: build it (`cargo xtask demo` does), or name one by --agent",
            agent.display()
        ))),
        None => Err(wrong("name the vip-agent to run by --agent".into())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan with three nodes and adverts every `advert_ms`.
    pub(crate) fn plan(advert_ms: u64) -> Plan {
        Plan {
            nodes: 3,
            advert: Duration::from_millis(advert_ms),
            vips: vips(2),
            keepalived: None,
            rounds: 1,
            pause: Duration::from_secs(3),
            every: Duration::from_millis(1),
            patience: Duration::from_millis(500),
            plain: true,
            out: "target/demo".into(),
            agent: "vip-agent".into(),
        }
    }

    fn refusal(arguments: &[&str]) -> String {
        let agent: &[&str] = if arguments.contains(&"--agent") { &[] } else { &["--agent", "/bin/true"] };
        let all = ["demo"].iter().chain(agent).chain(arguments);
        let refused = Options::try_parse_from(all).and_then(Options::plan);
        refused.expect_err("these options are not valid").to_string()
    }

    #[test]
    fn the_timers_are_those_of_rfc_9568() {
        assert_eq!(plan(100).active_down(1), Duration::from_micros(321_875));
        assert_eq!(plan(10).active_down(3), Duration::from_nanos(36_093_750));
    }

    #[test]
    fn the_order_of_the_nodes_is_that_of_their_priorities() {
        let priorities: Vec<u8> = (1..=16).map(|number| plan(100).priority(number)).collect();
        assert!(priorities.is_sorted_by(|higher, lower| higher > lower), "{priorities:?}");
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range() {
        assert!(refusal(&["--nodes", "2"]).contains("3..=16"));
        assert!(refusal(&["--advert", "15ms"]).contains("steps of 10ms"));
        assert!(refusal(&["--advert", "41s"]).contains("40.95s"));
        assert!(refusal(&["--advert", "often"]).contains("10ms to 40.95s"));
        assert!(refusal(&["--vips", "0"]).contains("1..=319"));
        assert!(refusal(&["--pause", "1ms"]).contains("--pause must be 500ms to 1m, not 1ms"));
        assert!(refusal(&["--every", "1500us"]).contains("whole milliseconds"));
        assert!(refusal(&["--patience", "1h"]).contains("100ms to 10s"));
        assert!(refusal(&["--quick", "--pause", "2s"]).contains("cannot be used with"));
        assert!(refusal(&["--agent", "/nowhere/vip-agent"]).contains("/nowhere/vip-agent"));
    }

    #[test]
    fn vips_are_of_both_families_as_far_as_an_advert_holds_them() {
        assert_eq!(vips(1), ["10.0.0.50".parse::<IpAddr>().unwrap()]);
        let count = |all: u16| vips(all).iter().filter(|vip| vip.is_ipv4()).count();
        assert_eq!((count(2), count(3), count(256), count(319)), (1, 2, 192, 255));
        let mut unique = vips(319);
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 319);
    }
}
