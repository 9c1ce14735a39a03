//! The whole benchmark once, quickly: it measures both contenders and writes what it promises. The agent beside it must be
//! built: `cargo xtask test` does that.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

#[test]
fn a_quick_run_measures_both_and_writes_json_and_picture() -> Result<()> {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failover");
    let run = Command::new(env!("CARGO_BIN_EXE_vip-failover"))
        .arg("--quick")
        .arg("--output")
        .arg(&output)
        .output()?;
    let (table, errors) = (String::from_utf8(run.stdout)?, String::from_utf8(run.stderr)?);
    assert!(run.status.success(), "{errors}");

    let results: Value = serde_json::from_slice(&std::fs::read(output.join("failover.json"))?)?;
    let moves = results["moves"].as_array().context("the JSON lists moves")?;
    let done = |contender: &str| -> Vec<&str> {
        let own = moves.iter().filter(|moved| moved["contender"] == contender);
        own.filter_map(|moved| moved["event"].as_str()).collect()
    };
    let theirs = ["crash", "preempt", "agent_dies", "preempt", "sigterm", "preempt", "host_dies", "preempt"];
    let ours = [
        "crash",
        "preempt",
        "agent_dies",
        "preempt",
        "sigterm",
        "preempt",
        "drain",
        "preempt",
        "host_dies",
        "preempt",
    ];
    assert_eq!((done("viplane"), done("keepalived")), (ours.to_vec(), theirs.to_vec()));
    for moved in moves {
        let is_ours = moved["contender"] == "viplane";
        assert_eq!(moved["phases"].is_object(), is_ours, "{moved}");
        assert!(moved["client"]["requests"].as_u64() > Some(0), "{moved}");
        assert_eq!(moved["wire"]["death_to_word_us"].is_number(), moved["event"] == "agent_dies", "{moved}");
        assert_eq!(moved["wire"]["word_to_advert_us"].is_null(), moved["event"] == "preempt", "{moved}");
    }
    for key in ["kernel", "cpu", "viplane", "keepalived", "date", "load_before", "load_after"] {
        assert_ne!(results["machine"][key].as_str().unwrap_or_default(), "", "{key}");
    }
    assert!(table.contains("| crash | 10 ms | 1 |"), "{table}");
    assert!(std::fs::read_to_string(output.join("failover.svg"))?.contains("class=\"p keepalived\""));
    Ok(())
}
