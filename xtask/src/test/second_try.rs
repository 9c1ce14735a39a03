//! A second try for single tests that failed, by themselves: several routers at a time on shared CPUs are now and then held up
//! for longer than their protocol's timers allow. What fails twice fails; what passes then is told of as flaky.

use std::io::{self, Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

use super::heading;

/// More failures than these are not a machine's hiccup.
const MOST: usize = 4;

/// libtest's option by which filters are whole names.
pub(super) const EXACT: &str = "--exact";

/// Runs tests, with the command that `cargo_test` makes for libtest's options. Returns those that passed at the second try.
pub(super) fn run(cargo_test: impl Fn(&[&str]) -> Command, threads: &str) -> Result<Vec<String>> {
    let (first, printed) = show(&mut cargo_test(&[threads]))?;
    if first.success() {
        return Ok(Vec::new());
    }
    let failed = failures(&printed);
    if failed.is_empty() || failed.len() > MOST {
        bail!("cargo test failed ({first})");
    }
    heading(&format!("once more, by themselves: {}", failed.join(", ")));
    let mut options = vec!["--test-threads=1", EXACT];
    options.extend(failed.iter().map(String::as_str));
    let (second, _) = show(&mut cargo_test(&options))?;
    if !second.success() {
        bail!("cargo test failed twice ({second})");
    }
    Ok(failed)
}

/// Runs a command whose standard output is shown as it comes, and returned as well.
fn show(command: &mut Command) -> Result<(ExitStatus, String)> {
    let cannot_start = || "cannot start cargo test";
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(cannot_start)?;
    let mut output = child.stdout.take().with_context(cannot_start)?;
    let mut printed = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let length = output.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        printed.extend_from_slice(&chunk[..length]);
        let mut shown = io::stdout();
        shown.write_all(&chunk[..length])?;
        shown.flush()?;
    }
    Ok((child.wait()?, String::from_utf8_lossy(&printed).into_owned()))
}

/// The names of the tests whose failure libtest tells of; none if a program ended before it could tell.
fn failures(printed: &str) -> Vec<String> {
    let begun = printed.lines().filter(|line| {
        line.strip_prefix("running ").is_some_and(|rest| rest.ends_with(" test") || rest.ends_with(" tests"))
    });
    let ended = printed.lines().filter(|line| line.starts_with("test result: "));
    if begun.count() != ended.count() {
        return Vec::new();
    }
    let mut names: Vec<String> = (printed.lines())
        .filter_map(|line| line.strip_prefix("---- ")?.strip_suffix(" stdout ----"))
        .map(ToOwned::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::failures;

    #[test]
    fn failed_tests_are_found_in_what_libtest_prints() {
        let printed = "\
running 3 tests
test one ... ok
test inner::two ... FAILED
test three ... FAILED

failures:

---- inner::two stdout ----
thread 'inner::two' panicked at src/lib.rs:1:1:
---- three stdout ----
Error: late


failures:
    inner::two
    three

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(failures(printed), ["inner::two", "three"]);
        let and_one_crashes = format!("{printed}\nrunning 1 test\ntest one ... ");
        assert_eq!(failures(&and_one_crashes), [""; 0]);
    }
}
