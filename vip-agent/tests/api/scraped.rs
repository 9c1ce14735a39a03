//! A real Prometheus, and its own judge of what can be scraped.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use vip_lab::Node;

use crate::agents::{SOON, ms};
use crate::client::{alone, connect, get, read};

const PROMETHEUS: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

/// The rows of docs/metrics.md: name, type, unit, meaning.
fn documented() -> Vec<[&'static str; 4]> {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `viplane_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        [cells[1].trim_matches('`'), cells[2], cells[3], cells[5]]
    })
    .collect()
}

/// Asks Prometheus' own API.
fn ask(node: &Node, path: &str) -> Result<Value> {
    let mut stream = connect(node, SocketAddr::from(PROMETHEUS))?;
    write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
    let answer = read(&mut stream)?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(serde_json::from_str::<Value>(&answer.body)?["data"].take())
}

/// Asks until there is something.
fn wait_result(node: &Node, path: &str) -> Result<Value> {
    let deadline = Instant::now() + 2 * SOON;
    loop {
        let data = ask(node, path);
        match &data {
            Ok(data) if data["result"].as_array().is_some_and(|result| !result.is_empty()) => {}
            _ if Instant::now() < deadline => {
                std::thread::sleep(ms(100));
                continue;
            }
            _ => bail!("Prometheus has nothing for {path}: {data:?}"),
        }
        return data;
    }
}

#[test]
fn promtool_has_nothing_to_complain_of() -> Result<()> {
    let (_lab, agent) = alone()?;
    let metrics = get(agent.node(), "/metrics")?;
    let promtool = agent.node().command("promtool").args(["check", "metrics"]);
    promtool.feed(&metrics.body).context("promtool (`cargo xtask setup` installs it)")
}

#[test]
fn a_prometheus_scrapes_every_metric_with_its_meaning_and_unit() -> Result<()> {
    let (_lab, agent) = alone()?;
    let node = agent.node();
    let config = node.file_path("prometheus.yml");
    let scrape = "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: viplane, static_configs: [{targets: [\"127.0.0.1:9870\"]}]}]\n";
    node.write_file(&config, scrape)?;
    let prometheus = node
        .command("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", node.file_path("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .spawn("prometheus")?;
    let active = wait_result(node, "query?query=viplane_instance_state%7Bstate%3D%22active%22%7D");
    let active = active.with_context(|| prometheus.log())?;
    ensure!(active["result"][0]["value"][1] == "1", "{active}");
    let up = wait_result(node, "query?query=up")?;
    ensure!(up["result"][0]["value"][1] == "1", "{up}");

    // By OpenMetrics, which Prometheus asks for.
    let metadata = ask(node, "targets/metadata?match_target=%7Bjob%3D%22viplane%22%7D")?;
    let metadata = metadata.as_array().context("no metadata")?;
    for [name, kind, unit, help] in documented() {
        let names = [name, name.trim_end_matches("_total"), name.trim_end_matches("_info")];
        let found = metadata.iter().find(|found| names.iter().any(|name| found["metric"] == *name));
        let found = found.with_context(|| format!("Prometheus does not know {name}: {metadata:?}"))?;
        ensure!(found["type"] == kind && found["unit"] == unit && found["help"] == help, "{name}: {found}");
    }
    Ok(())
}
