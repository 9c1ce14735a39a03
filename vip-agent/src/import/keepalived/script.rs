//! The definitions of what can be tracked: `vrrp_script` and `vrrp_track_process`.

use std::time::Duration;

use super::notes::remark;
use super::tracking::{Check, Source};
use super::tree::Statement;
use super::values::number;
use crate::config::duration::Span;

/// Remarks of one definition.
struct Definition {
    remarks: Vec<String>,
    weight: i64,
    reverse: bool,
}

impl Definition {
    fn add(&mut self, statement: &Statement, why: &str) {
        self.remarks.push(remark(&statement.at, &statement.echo(), why));
    }

    /// `weight N [reverse]`.
    fn weight(&mut self, statement: &Statement) {
        match number(statement, &(-253..=253)) {
            Some(weight) => self.weight = weight,
            None => self.add(statement, "keepalived takes weights of -253 to 253: this one is left out"),
        }
        self.reverse = statement.arguments().get(1).is_some_and(|word| word == "reverse");
    }

    fn source(self, check: Option<Check>, lines: Vec<String>) -> Source {
        Source { check, lines, weight: self.weight, reverse: self.reverse, remarks: self.remarks }
    }
}

/// A `vrrp_script` block.
pub(super) fn script(block: &Statement) -> Source {
    let mut definition = Definition { remarks: Vec::new(), weight: 0, reverse: false };
    let (mut check, mut interval, mut timeout, mut fall, mut rise) = (None, 1, None, 1, 1);
    for statement in block.statements() {
        match statement.keyword() {
            "script" => check = command(statement, &mut definition),
            "interval" => match number(statement, &(1..=86_400)) {
                Some(seconds) => interval = seconds,
                None => definition.add(statement, "keepalived takes whole seconds from 1 on: 1 is used"),
            },
            "timeout" => match number(statement, &(1..=86_400)) {
                Some(seconds) => timeout = Some(seconds),
                None => definition
                    .add(statement, "keepalived takes whole seconds from 1 on: the interval is used"),
            },
            keyword @ ("fall" | "rise") => match number(statement, &(1..=1000)) {
                Some(count) if keyword == "fall" => fall = count,
                Some(count) => rise = count,
                None => definition.add(statement, "must be 1 to 1000: 1 is used"),
            },
            "weight" => definition.weight(statement),
            "init_fail" => definition.add(statement, "always so: `initial: down` until the first verdict"),
            "user" => {
                let why = "probes run as the agent's user: begin the command with `setpriv --reuid=USER --regid=GROUP \
                           --clear-groups`";
                definition.add(statement, why);
            }
            _ => definition.add(statement, "unknown keyword: it is left out"),
        }
    }
    if check.is_none() {
        definition.add(block, "has no `script` that could be run: it is not tracked");
    }
    let seconds = |seconds: i64| Span(Duration::from_secs(seconds.unsigned_abs()));
    let lines = vec![
        format!("interval: {}", seconds(interval)),
        format!("timeout: {}", seconds(timeout.unwrap_or(interval))),
        format!("fall: {fall}"),
        format!("rise: {rise}"),
        "initial: down".to_owned(),
    ];
    definition.source(check, lines)
}

/// The command of a `script` statement. Keepalived runs it without a shell, a shell's own syntax by one.
fn command(statement: &Statement, definition: &mut Definition) -> Option<Check> {
    let [line] = statement.arguments() else {
        let words = statement.arguments().to_vec();
        return (!words.is_empty()).then_some(Check::Exec(words));
    };
    if let Some(address) = dev_tcp(line) {
        definition.add(statement, "became a `tcp` probe: it connects and closes");
        return Some(Check::Tcp(address));
    }
    if line.contains(['|', '&', ';', '<', '>', '$', '`', '*', '?', '(']) {
        definition.add(statement, "has a shell's syntax and is run by /bin/sh");
        return Some(Check::Exec(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]));
    }
    let words = super::words::words(line, super::words::Escapes::Shell);
    words.ok().filter(|words| !words.is_empty()).map(Check::Exec)
}

/// The address of bash's `</dev/tcp/HOST/PORT`.
fn dev_tcp(script: &str) -> Option<String> {
    let rest = script.trim().strip_prefix('<')?.trim_start().strip_prefix("/dev/tcp/")?;
    let (host, port) = rest.split_once('/')?;
    let host: std::net::IpAddr = host.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    Some(std::net::SocketAddr::new(host, port).to_string())
}

/// A `vrrp_track_process` block: `pgrep` finds the process.
pub(super) fn process(block: &Statement) -> Source {
    let mut definition = Definition { remarks: Vec::new(), weight: 1, reverse: false };
    let (mut name, mut simple) = (None, true);
    for statement in block.statements() {
        match statement.keyword() {
            "process" => match statement.arguments() {
                [process] => name = Some(process.clone()),
                _ => {
                    definition.add(statement, "parameters are not compared by a probe of viplane");
                    simple = false;
                }
            },
            "weight" => definition.weight(statement),
            "quorum" if statement.argument() == Some("1") => {}
            "quorum" | "quorum_max" | "param_match" | "full_command" => {
                definition.add(
                    statement,
                    "processes are not counted, nor their parameters compared: write a probe with `exec`",
                );
                simple = false;
            }
            "fork_delay" | "terminate_delay" | "delay" => {
                definition.add(statement, "use the probe's `fall` and `rise`, so many times its interval");
            }
            _ => definition.add(statement, "unknown keyword: it is left out"),
        }
    }
    let check = name.filter(|_| simple).map(|name| {
        Check::Exec(["pgrep", "-x", "--", &regex_lite::escape(&name)].map(str::to_owned).to_vec())
    });
    match check {
        Some(_) => definition.add(
            block,
            "became a probe that runs `pgrep -x` once a second (matches the first 15 characters of a name)",
        ),
        None => definition.add(block, "could not become a probe: it is not tracked"),
    }
    let lines = ["interval: 1s", "timeout: 1s", "fall: 1", "rise: 1", "initial: down"];
    definition.source(check, lines.map(str::to_owned).to_vec())
}
