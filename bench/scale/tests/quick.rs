//! The whole benchmark once, small: it measures both contenders and writes what it promises. The agent beside it must be
//! built: `cargo xtask test` does that.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

#[test]
fn a_short_rest_of_both_with_and_without_probes_writes_json() -> Result<()> {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("idle");
    let mut run = Command::new(env!("CARGO_BIN_EXE_vip-scale"));
    let run =
        run.args(["--idle", "--watch", "500ms", "--only", "viplane", "--output"]).arg(&output).output()?;
    let (table, errors) = (String::from_utf8(run.stdout)?, String::from_utf8(run.stderr)?);
    assert!(run.status.success(), "{errors}");
    let results: Value = serde_json::from_slice(&std::fs::read(output.join("idle.json"))?)?;
    let rows = results["rows"].as_array().context("the JSON lists rows")?;
    let probes: Vec<Option<u64>> = rows.iter().map(|row| row["probes"].as_u64()).collect();
    assert_eq!(probes, [Some(0), Some(10)]);
    // Of half a second the kernel may count no tick of 10 ms at all.
    assert!(rows.iter().all(|row| row["owner"]["own_percent"].as_f64() >= Some(0.0)), "{results}");
    assert!(rows.iter().all(|row| row["owner"]["resident_kib"].as_u64() > Some(1000)), "{results}");
    assert!(table.contains("| viplane | 10 |"), "{table}");
    Ok(())
}

#[test]
fn a_small_run_measures_both_and_writes_json() -> Result<()> {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale");
    let run = Command::new(env!("CARGO_BIN_EXE_vip-scale"))
        .args([
            "--instances",
            "8",
            "--vips",
            "20",
            "--intervals",
            "100ms",
            "--watch",
            "1s",
            "--capture",
            "1s",
        ])
        .arg("--output")
        .arg(&output)
        .output()?;
    let (table, errors) = (String::from_utf8(run.stdout)?, String::from_utf8(run.stderr)?);
    assert!(run.status.success(), "{errors}");

    let results: Value = serde_json::from_slice(&std::fs::read(output.join("scale.json"))?)?;
    let outcomes = results["outcomes"].as_array().context("the JSON lists outcomes")?;
    let contenders: Vec<&str> = outcomes.iter().filter_map(|outcome| outcome["contender"].as_str()).collect();
    assert_eq!(contenders, ["viplane", "keepalived"]);
    for outcome in outcomes {
        assert!(outcome["error"].is_null(), "{outcome}");
        let moves = outcome["moves"].as_array().context("moves")?;
        let events: Vec<&str> = moves.iter().filter_map(|moved| moved["event"].as_str()).collect();
        assert_eq!(events, ["host_dies", "crash", "sigterm"]);
        for moved in moves {
            assert!(moved["all_announced_ms"].as_f64() >= moved["first_announcement_ms"].as_f64(), "{moved}");
        }
        assert!(outcome["steady"]["adverts_per_second"].as_f64() > Some(40.0), "{outcome}");
        assert!(outcome["steady"]["owner_cpu_percent"].as_f64() > Some(0.0), "{outcome}");
        assert_eq!(outcome["steady"]["unasked_moves"], 0);
    }
    assert!(table.contains("| viplane | 100 ms | 8 | 20 | SIGTERM |"), "{table}");
    Ok(())
}
