//! How fast a VIP moves, viplane's beside keepalived's: the same events in the same topology, in turns, with times from the
//! wire.
//!
//! Needs root; touches no network but its own nameless namespaces.

mod measure;
mod plot;
mod record;
mod round;
mod router;
mod summary;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Serialize;
use vip_lab::Lab;
use vip_lab::agent::binary_beside;
use vip_lab::machine::Machine;

use record::{Cell, Contender, Event, Move, interval_text};
use router::Starter;
use summary::{Budget, Group};

/// How fast a VIP moves, viplane's beside keepalived's.
#[derive(Debug, Parser)]
#[command(name = "vip-failover", max_term_width = 100)]
struct Options {
    /// Rounds per interval and number of VIPs; in each, both do every event once [default: 15 at 10 ms, 4 at 100 ms, 1 at 1 s]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Which events [default: all but service-dies]
    #[arg(long, value_delimiter = ',', value_enum)]
    events: Vec<Event>,
    /// Advertisement intervals, in steps of 10 ms
    #[arg(long, value_delimiter = ',', default_value = "10ms,100ms,1s", value_parser = humantime::parse_duration)]
    intervals: Vec<Duration>,
    /// Numbers of VIPs; of four and more a quarter is IPv6 (1 s: only the first of these, unless --runs is given)
    #[arg(long, value_delimiter = ',', default_value = "1,256", value_parser = clap::value_parser!(u16).range(1..=340))]
    vips: Vec<u16>,
    /// One round at 10 ms with 1 VIP, for a look
    #[arg(long, conflicts_with_all = ["runs", "intervals", "vips"])]
    quick: bool,
    /// Measure this one alone
    #[arg(long, value_enum)]
    only: Option<Contender>,
    /// Ours with fast detection, 4 x 1 ms: the death of a host counts from the last frame that it sent
    #[arg(long)]
    detect: bool,
    /// A line for keepalived's global_defs, such as "vrrp_rt_priority 60"
    #[arg(long, value_name = "LINE")]
    keepalived_global: Vec<String>,
    /// Fail if a limit is missed
    #[arg(long)]
    enforce: bool,
    /// The vip-agent to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Where failover.json and failover.svg go
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench"))]
    output: PathBuf,
}

/// The JSON.
#[derive(Serialize)]
struct Results {
    machine: Machine,
    limits: Vec<Budget>,
    /// Takeovers that nobody asked for, by contender: the owner was alive and well.
    unasked_takeovers: Vec<(Contender, usize)>,
    failures: Vec<Failure>,
    summary: Vec<Group>,
    moves: Vec<Move>,
}

/// A round that was not finished.
#[derive(Serialize)]
struct Failure {
    contender: Contender,
    interval_ms: u128,
    vips: u16,
    run: usize,
    error: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let agent = binary_beside(options.agent.as_deref(), "`cargo xtask bench failover`")?;
    fs::create_dir_all(&options.output)
        .with_context(|| format!("cannot create {}", options.output.display()))?;
    let mut results = Results {
        machine: Machine::describe(&agent),
        limits: Vec::new(),
        unasked_takeovers: Contender::BOTH.map(|contender| (contender, 0)).into(),
        failures: Vec::new(),
        summary: Vec::new(),
        moves: Vec::new(),
    };
    for (cell, runs) in options.plan() {
        measure_cell(&options, &agent, cell, runs, &mut results)?;
    }
    results.machine.finish();
    results.limits = summary::budgets(&results.moves);
    results.summary = summary::groups(&results.moves);
    report(&options, &results)
}

impl Options {
    /// What to measure, and how often.
    fn plan(&self) -> Vec<(Cell, u32)> {
        const SECOND: Duration = Duration::from_secs(1);
        if self.quick {
            return vec![(Cell { interval: Duration::from_millis(10), vips: 1 }, 1)];
        }
        let mut plan = Vec::new();
        for &interval in &self.intervals {
            let by_default = match interval {
                short if short < Duration::from_millis(50) => 15,
                short if short < Duration::from_millis(500) => 4,
                _ => 1,
            };
            // A round at 1 s takes half a minute per contender.
            let counts = if interval >= SECOND && self.runs.is_none() { &self.vips[..1] } else { &self.vips };
            for &vips in counts {
                plan.push((Cell { interval, vips }, self.runs.unwrap_or(by_default)));
            }
        }
        plan
    }

    fn wanted_events(&self) -> Vec<Event> {
        if self.events.is_empty() {
            Event::ALL.into_iter().filter(|event| event.is_usual()).collect()
        } else {
            self.events.clone()
        }
    }
}

/// All rounds with one configuration, in one network.
fn measure_cell(options: &Options, agent: &Path, cell: Cell, runs: u32, results: &mut Results) -> Result<()> {
    let lab = Lab::builder().vips(addresses(cell.vips)).web().build()?;
    let wire = lab.wire()?;
    for run in 1..=usize::try_from(runs)? {
        let begin = Instant::now();
        for (index, contender) in Contender::BOTH.into_iter().enumerate() {
            if options.only.is_some_and(|only| only != contender) {
                continue;
            }
            let lines = &options.keepalived_global;
            let detect = options.detect;
            let events = options.wanted_events();
            let probed = events.contains(&Event::ServiceDies);
            let starter =
                Starter { lab: &lab, agent, keepalived_lines: lines, contender, detect, probed, cell };
            let round = round::run(&starter, &wire, run, &events)?;
            results.unasked_takeovers[index].1 += round.unasked;
            results.moves.extend(round.moves);
            if let Some(error) = round.failure {
                let error = format!("{error:#}");
                eprintln!("{cell}, {contender}, round {run}: {error}");
                let (interval_ms, vips) = (cell.interval.as_millis(), cell.vips);
                results.failures.push(Failure { contender, interval_ms, vips, run, error });
            }
        }
        eprintln!("{cell}: round {run} of {runs}, {:.1} s", begin.elapsed().as_secs_f64());
    }
    ensure!(wire.lost() == 0, "the capture lost {} frames: the figures are worth nothing", wire.lost());
    Ok(())
}

/// 10.0.1.0 and following, and for a quarter of four and more fd00::1:0 and following.
fn addresses(count: u16) -> Vec<String> {
    let ipv6 = count / 4;
    let ipv4 = (0..count - ipv6).map(|number| format!("10.0.{}.{}", 1 + number / 256, number % 256));
    ipv4.chain((0..ipv6).map(|number| format!("fd00::1:{number:x}"))).collect()
}

fn report(options: &Options, results: &Results) -> Result<()> {
    let write = |name: &str, content: &[u8]| {
        let path = options.output.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write("failover.json", &serde_json::to_vec_pretty(results)?)?;
    write("failover.svg", plot::svg(&results.machine, &results.moves).as_bytes())?;
    println!("{}", table::markdown(&results.machine, &results.moves, &results.limits));
    for (contender, count) in &results.unasked_takeovers {
        println!("Takeovers that nobody asked for, {contender}: {count}");
    }
    for Failure { contender, interval_ms, vips, run, .. } in &results.failures {
        println!("Not finished: {contender}, {}, {vips} VIPs, round {run}", interval_text(*interval_ms));
    }
    // That keepalived cannot keep up with a configuration is a finding, no failure of the benchmark.
    let ours = results.failures.iter().filter(|failure| failure.contender == Contender::Viplane).count();
    if ours > 0 {
        bail!("{ours} rounds of viplane were not finished; why is in failover.json");
    }
    if options.enforce && !results.limits.iter().all(Budget::is_met) {
        bail!("a limit is missed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Vec<(String, u32)> {
        let options = Options::parse_from([&["vip-failover"], arguments].concat());
        options.plan().into_iter().map(|(cell, runs)| (cell.to_string(), runs)).collect()
    }

    #[test]
    fn slow_cells_run_less_often_by_default() {
        let plan = plan(&[]);
        let plan: Vec<_> = plan.iter().map(|(cell, runs)| (&**cell, *runs)).collect();
        assert_eq!(
            plan,
            [
                ("10 ms, 1 VIP", 15),
                ("10 ms, 256 VIPs", 15),
                ("100 ms, 1 VIP", 4),
                ("100 ms, 256 VIPs", 4),
                ("1 s, 1 VIP", 1)
            ]
        );
    }

    #[test]
    fn what_is_asked_for_is_planned() {
        let plan = plan(&["--runs", "3", "--intervals", "1s", "--vips", "1,8"]);
        assert_eq!(plan, [("1 s, 1 VIP".to_owned(), 3), ("1 s, 8 VIPs".to_owned(), 3)]);
    }

    #[test]
    fn a_quarter_of_many_vips_is_ipv6() {
        assert_eq!(addresses(1), ["10.0.1.0"]);
        assert_eq!(addresses(4), ["10.0.1.0", "10.0.1.1", "10.0.1.2", "fd00::1:0"]);
        let many = addresses(256);
        assert_eq!(many.len(), 256);
        assert_eq!(many.iter().filter(|vip| vip.contains(':')).count(), 64);
        assert_eq!(addresses(340)[254..256], ["10.0.1.254", "fd00::1:0"]);
    }
}
