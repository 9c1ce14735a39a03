//! Many virtual routers on one node, viplane's beside keepalived's: what they cost, how evenly they advertise, and how long
//! it takes until all of them have moved. Times from the wire.
//!
//! Needs root; touches no network but its own nameless namespaces.

mod crowd;
mod idle;
mod measure;
mod record;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use vip_lab::Lab;
use vip_lab::agent::binary_beside;
use vip_lab::machine::Machine;

use crowd::Starter;
use record::{Cell, Contender, Outcome, Results};

/// Many virtual routers on one node, viplane's beside keepalived's.
#[derive(Debug, Parser)]
#[command(name = "vip-scale", max_term_width = 100)]
struct Options {
    /// Advertisement intervals, in steps of 10 ms
    #[arg(long, value_delimiter = ',', default_value = "10ms,100ms", value_parser = humantime::parse_duration)]
    intervals: Vec<Duration>,
    /// Virtual routers
    #[arg(long, default_value_t = 255, value_parser = clap::value_parser!(u8).range(1..))]
    instances: u8,
    /// IPv4 VIPs, dealt out to the virtual routers: 255 for each at most
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..=8192))]
    vips: u16,
    /// How long nothing is done to them, while CPU time is counted and nobody should move
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    watch: Duration,
    /// How long their adverts are captured after that
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    capture: Duration,
    /// Instead of all that: one virtual router at rest, with and without 10 probes, for --watch each
    #[arg(long)]
    idle: bool,
    /// Measure this one alone
    #[arg(long, value_enum)]
    only: Option<Contender>,
    /// A line for keepalived's global_defs, such as "vrrp_rt_priority 60"
    #[arg(long, value_name = "LINE")]
    keepalived_global: Vec<String>,
    /// The vip-agent to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Where scale.json goes
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench"))]
    output: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.vips <= u16::from(options.instances) * 255 && options.vips >= options.instances.into(),
        "{} virtual routers take {0} to {} VIPs, not {}",
        options.instances,
        u16::from(options.instances) * 255,
        options.vips
    );
    let agent = binary_beside(options.agent.as_deref(), "`cargo xtask bench scale`")?;
    fs::create_dir_all(&options.output)
        .with_context(|| format!("cannot create {}", options.output.display()))?;
    if options.idle {
        return rest(&options, &agent);
    }
    let mut results = Results { machine: Machine::describe(&agent), outcomes: Vec::new() };
    for &interval in &options.intervals {
        let cell = Cell::new(interval, options.instances, options.vips);
        for contender in Contender::BOTH {
            if options.only.is_none_or(|only| only == contender) {
                results.outcomes.push(outcome(&options, &agent, contender, cell)?);
            }
        }
    }
    results.machine.finish();
    report(&options, &results)
}

/// One virtual router that does nothing but exist.
fn rest(options: &Options, agent: &Path) -> Result<()> {
    let results = idle::measure(agent, options.only, options.watch)?;
    let path = idle::path(&options.output);
    fs::write(&path, serde_json::to_vec_pretty(&results)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", idle::markdown(&results));
    Ok(())
}

/// One contender with one configuration, in a network of its own. What it could not do is a finding.
fn outcome(options: &Options, agent: &Path, contender: Contender, cell: Cell) -> Result<Outcome> {
    eprintln!("{contender}, {cell}");
    let lab = Lab::builder().nodes(2).clients(0).vips(crowd::addresses(cell)).build()?;
    let starter = Starter { lab: &lab, agent, keepalived_lines: &options.keepalived_global, contender, cell };
    let mut outcome = Outcome::new(contender, cell);
    if let Err(error) = measure::all(&starter, options.watch, options.capture, &mut outcome) {
        let error = format!("{error:#}");
        eprintln!("{contender}, {cell}: {error}");
        outcome.error = Some(error);
    }
    Ok(outcome)
}

fn report(options: &Options, results: &Results) -> Result<()> {
    let path = options.output.join("scale.json");
    fs::write(&path, serde_json::to_vec_pretty(results)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", table::markdown(results));
    let ours = results.outcomes.iter().filter(|outcome| outcome.contender == Contender::Viplane);
    // That keepalived cannot keep up with a configuration is a finding, no failure of the benchmark.
    for outcome in ours {
        if let Some(error) = &outcome.error {
            bail!("viplane, {}, was not finished: {error}", outcome.cell);
        }
        let unasked = outcome.steady.as_ref().map_or(0, |steady| steady.unasked_moves);
        ensure!(unasked == 0, "viplane, {}: {unasked} moves that nobody asked for", outcome.cell);
    }
    Ok(())
}
