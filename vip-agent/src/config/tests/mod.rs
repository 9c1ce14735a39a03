//! The configuration as a whole.

mod accepted;
mod api;
mod auth_trailer;
mod detect;
mod flow_sync;
mod interfaces;
mod kubernetes;
mod probes;
mod properties;
mod refused;
mod reload;
mod services;
mod tracking;
mod version_2;

use super::{Config, parse};

/// The configuration that the text is; its warnings are not looked at.
fn config(text: &str) -> Config {
    match parse(text, "file.yaml", "this-node") {
        Ok((config, _)) => config,
        Err(problems) => panic!("refused:\n{problems}\n{text}"),
    }
}

/// What is wrong with the text: lines without the file's name.
fn errors(text: &str) -> Vec<String> {
    match parse(text, "file.yaml", "this-node") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => without_file(problems.lines()),
    }
}

/// What the user is told about a text that is valid.
fn warnings(text: &str) -> Vec<String> {
    match parse(text, "file.yaml", "this-node") {
        Ok((_, warnings)) => without_file(warnings.lines()),
        Err(problems) => panic!("refused:\n{problems}\n{text}"),
    }
}

fn without_file(lines: impl Iterator<Item = String>) -> Vec<String> {
    lines.map(|line| line.strip_prefix("file.yaml:").expect("lines begin with the file").to_owned()).collect()
}

/// A valid file of one instance that says nothing but what it must; `more` stands in lines 6 and on.
fn edge(more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "instances:\n  - name: edge\n    virtual_router_id: 51\n    interface: eth0\n    \
         vips: [\"10.0.0.50/24\", \"fd00::50\"]\n{more}"
    )
}

/// `edge`, with other VIPs.
fn edge_with_vips(vips: &str, more: &str) -> String {
    edge(more).replace("\"10.0.0.50/24\", \"fd00::50\"", vips)
}

/// A second instance behind `edge`: lines 6 to 9.
fn edge_and(name: &str, virtual_router_id: u8, interface: &str, vips: &str) -> String {
    edge("")
        + &format!(
            "  - name: {name}\n    virtual_router_id: {virtual_router_id}\n    interface: {interface}\n    vips: {vips}\n"
        )
}
