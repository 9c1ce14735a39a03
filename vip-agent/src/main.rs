//! `vip-agent`: the commands. The work is in the library.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use vip_agent::agent;
use vip_agent::cleanup::{self, Places};
use vip_agent::cli::{Cli, Command, Import};
use vip_agent::config::{self, Config, LogFormat};
use vip_agent::control::{self, Request};
use vip_agent::errors;
use vip_agent::import::{chart_values, configmap, keepalived};
use vip_agent::preflight;
use vip_agent::status::{FlowList, Status};
use vip_agent::upgrade;
use vip_agent::watcher;

/// The control socket of an agent with the default runtime_dir.
const CONTROL: &str = "/run/viplane/agent.sock";

fn main() -> ExitCode {
    if watcher::is_called() {
        return watcher::main();
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", errors::in_full(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let ask = |request| control::ask(&control_path(cli.control.as_deref()), &request);
    let done: anyhow::Result<()> = match cli.command {
        Command::Run { file, no_last_good, take_over } => {
            run_agent(file.config.as_deref(), cli.control, !no_last_good, take_over)
        }
        Command::Upgrade(file) => {
            let outcome = upgrade::upgrade(&control_path(cli.control.as_deref()), |command| {
                command.arg("run").arg("--take-over");
                if let Some(file) = &file.config {
                    command.arg("--config").arg(file);
                }
                if let Some(path) = &cli.control {
                    command.arg("--control").arg(path);
                }
            })?;
            say(format_args!("{outcome}\n"))
        }
        Command::Check { file } => {
            let loaded = config::load(&file, &config::default_node())?;
            loaded.warnings.lines().for_each(|line| eprintln!("warning: {line}"));
            Ok(())
        }
        Command::Config(file) => match file.config {
            Some(file) => say(config::effective(&config::load(&file, &config::default_node())?.config)),
            None => say_text(&ask(Request::Config)?),
        },
        Command::Status { json, watch } => loop {
            let value = ask(Request::Status)?;
            show(&value, json, watch)?;
            if !watch {
                break Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        },
        Command::Drain(which) => {
            ask(Request::Drain { instance: which.instance }).map(drop).map_err(Into::into)
        }
        Command::Undrain(which) => {
            ask(Request::Undrain { instance: which.instance }).map(drop).map_err(Into::into)
        }
        Command::Reload => say_text(&ask(Request::Reload)?),
        Command::Flows { vip, backend, json } => {
            let value = ask(Request::Flows { vip, backend })?;
            if json {
                say(format_args!("{}\n", serde_json::to_string_pretty(&value)?))
            } else {
                let flows: FlowList =
                    serde_json::from_value(value).context("flows of another version's agent")?;
                say(flows.table())
            }
        }
        Command::Import(import) => {
            let imported = match import {
                Import::Keepalived { file, config_id } => {
                    keepalived::import(&file, &keepalived::Host::this(config_id))?
                }
                Import::Configmap { file } => configmap::import(&file)?,
                Import::ChartValues { file } => chart_values::import(&file)?,
            };
            imported.problems().iter().for_each(|problem| eprintln!("warning: {problem}"));
            say(imported.yaml)
        }
        Command::Controller => Err(anyhow::anyhow!(
            "`vip-agent controller` is not in this version: the agents elect one of themselves to allocate (docs/kubernetes.md)"
        )),
        Command::Cleanup(file) => {
            let places = cleanup_places(file.config.as_deref())?;
            let removed = runtime()?.block_on(cleanup::cleanup(&places))?;
            removed.iter().try_for_each(|line| say(format_args!("{line}\n")))
        }
        Command::Preflight { file, json } => return look_first(file.config.as_deref(), json),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn look_first(file: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let report = runtime()?.block_on(preflight::run(file));
    let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report.table() };
    match write_out(text) {
        // The exit code is an answer, too, whoever has stopped reading.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(report.exit_code().into()),
    }
}

fn run_agent(
    file: Option<&Path>,
    control: Option<PathBuf>,
    last_good: bool,
    take_over: bool,
) -> anyhow::Result<()> {
    let config_file = config::find(file)?;
    let node = config::default_node();
    let (loaded, stale) = match last_good {
        true => config::load_or_last_good(&config_file, &node)?,
        false => (config::load(&config_file, &node)?, None),
    };
    log_to_stderr(&loaded.config);
    runtime()?.block_on(async {
        let options = agent::StartOptions { loaded, stale, config_file, control, last_good, take_over };
        let (agent, inputs) = agent::start(options).await?;
        agent.run(inputs).await
    })
}

/// One thread: everything that is in a hurry has one of its own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

fn log_to_stderr(config: &Config) {
    let level = config.log.level.as_str().parse().unwrap_or(LevelFilter::INFO);
    // By targets alone: filters by fields would bring an engine for regular expressions, half a MiB of it resident.
    let asked = std::env::var("VIPLANE_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    match config.log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_filter(filter)).init(),
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter)).init();
        }
    }
}

fn control_path(named: Option<&Path>) -> PathBuf {
    named.map_or_else(
        || {
            let configured = config::find(None).ok().and_then(|file| config::load(&file, "").ok());
            configured.map_or_else(|| CONTROL.into(), |loaded| loaded.config.control_socket())
        },
        Path::to_owned,
    )
}

/// What `cleanup` is to look through: the configuration named, the usual one, or the usual directories. A configuration
/// that is broken by now is no reason to leave things behind; one that was named must be right.
fn cleanup_places(named: Option<&Path>) -> anyhow::Result<Places> {
    let loaded = config::find(named).and_then(|file| config::load(&file, &config::default_node()));
    match loaded {
        Ok(loaded) => Ok(loaded.config.into()),
        Err(error) if named.is_some() => Err(error.into()),
        Err(_) => Ok(Places::default()),
    }
}

fn show(value: &serde_json::Value, json: bool, watch: bool) -> anyhow::Result<()> {
    if watch && std::io::stdout().is_terminal() {
        // Clear, and home.
        say("\x1b[2J\x1b[H")?;
    }
    if json {
        say(format_args!("{}\n", serde_json::to_string_pretty(value)?))
    } else {
        let status: Status =
            serde_json::from_value(value.clone()).context("status of another version's agent")?;
        say(status.table())
    }
}

fn say_text(value: &serde_json::Value) -> anyhow::Result<()> {
    say(format_args!("{}\n", value.as_str().unwrap_or_default().trim_end()))
}

/// To standard output. Whoever reads there may have seen enough (`| head`): no failure, and nothing more to do.
fn say(text: impl Display) -> anyhow::Result<()> {
    match write_out(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot write to standard output"),
    }
}

fn write_out(text: impl Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush())
}
