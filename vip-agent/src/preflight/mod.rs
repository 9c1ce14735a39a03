//! `vip-agent preflight`: looks, before the agent starts or beside it, at all that it needs of host and network, and says
//! what is not right and what to do about it.
//!
//! Facts are gathered (`gather`) and then judged by pure functions (the other modules). Nothing of the system is changed:
//! what must be tried is tried on something of our own (a thread, a network namespace, a file), which goes again. On the
//! wire it joins the advert groups for the time of listening and asks for the VIPs as the agent does at its start, by
//! questions that no other station learns from.

mod gather;
mod host;
mod instances;
mod links;
mod places;
mod report;
mod segment;
mod settings;

use std::path::{Path, PathBuf};

use crate::config::{self, Config, Loaded};

pub use self::report::{Check, Finding, Report, Verdict};

/// Looks at everything. `named`: the configuration, if not the usual one; without any, only the host is looked at. Takes three
/// advert intervals, at least 3 s and at most 12.
///
/// # Errors
/// None: what cannot be looked at is a finding, too.
pub async fn run(named: Option<&Path>) -> Report {
    let mut findings = Vec::new();
    let config = configuration(named, &mut findings);
    let paths = Paths::of(config.as_ref());
    let rivals = gather::places::rivals(&paths.runtime_dir);
    findings.extend(places::rivals(&rivals));
    findings.push(places::runtime_dir(&gather::places::directory(&paths.runtime_dir)));
    findings.push(places::state_dir(&gather::places::directory(&paths.state_dir)));
    findings.push(places::pin_dir(
        paths.pin_dir.as_deref(),
        gather::places::pin_dir(paths.pin_dir.as_deref()),
        rivals.agent.is_some(),
    ));
    findings.extend(host::judge(&gather::host::host()));
    if config.as_ref().is_some_and(|config| config.kubernetes.is_some()) {
        let (program, startable) = gather::host::vip_kube();
        findings.push(host::kubernetes(&program, startable));
    }
    if let Some(config) = &config {
        match gather::network::Network::read().await {
            Ok(network) => findings.extend(gather::network::findings(config, &network).await),
            Err(error) => findings.push(Finding::unknown(Check::Interface, "host", error)),
        }
    }
    Report { findings }
}

/// The directories that the agent would use.
#[derive(Debug)]
struct Paths {
    runtime_dir: PathBuf,
    state_dir: PathBuf,
    pin_dir: Option<PathBuf>,
}

impl Paths {
    fn of(config: Option<&Config>) -> Self {
        config.map_or_else(
            || Self {
                runtime_dir: config::DEFAULT_RUNTIME_DIR.into(),
                state_dir: config::DEFAULT_STATE_DIR.into(),
                pin_dir: Some(config::DEFAULT_PIN_DIR.into()),
            },
            |config| Self {
                runtime_dir: config.runtime_dir.clone(),
                state_dir: config.state_dir.clone(),
                pin_dir: config.pin_dir.clone(),
            },
        )
    }
}

/// The configuration, if there is one that is right; what is to be said of it goes to `findings`.
fn configuration(named: Option<&Path>, findings: &mut Vec<Finding>) -> Option<Config> {
    let check = Check::Configuration;
    let file = match config::find(named) {
        Ok(file) => file,
        Err(error) => {
            let remedy = "name one by --config; only the host is looked at without";
            findings.push(Finding::warning(check, "host", error.to_string(), remedy));
            return None;
        }
    };
    let subject = file.display().to_string();
    match config::load(&file, &config::default_node()) {
        Err(error) => {
            let remedy =
                "correct it (`vip-agent check` says the same); only the host is looked at until then";
            findings.push(Finding::error(check, subject, error.to_string(), remedy));
            None
        }
        Ok(Loaded { config, warnings, .. }) => {
            let warned = warnings.lines().map(|line| {
                Finding::warning(check, &subject, line, "change the configuration, unless it is meant so")
            });
            findings.extend(warned);
            if warnings.is_empty() {
                let vips: usize = config.instances.iter().map(|instance| instance.vips.len()).sum();
                let found = format!("instances: {}, VIPs: {vips}", config.instances.len());
                findings.push(Finding::ok(check, subject, found));
            }
            Some(config)
        }
    }
}
