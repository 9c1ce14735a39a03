//! `docs/conformance.md` names tests that exist, and leaves no requirement without a test or a reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    fs::read_to_string(path).expect("docs/conformance.md")
}

/// `file.rs::function` in backticks.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|(file, _)| Path::new(file).extension().is_some_and(|extension| extension == "rs"))
}

/// Cells of the tables' rows, without headers.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| !["Section", "Layer", "Advert"].contains(&cells[0]))
}

fn is_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let at = lines.iter().position(|line| line.starts_with(&format!("fn {function}(")));
    // Attributes and comments may stand between `#[test]` and its function.
    at.is_some_and(|at| {
        let above = lines[..at].iter().rev();
        above
            .take_while(|line| line.starts_with('#') || line.starts_with("//"))
            .any(|line| *line == "#[test]")
    })
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut sources = BTreeMap::new();
    let page = page();
    let mut missing = Vec::new();
    for (file, function) in named(&page) {
        let source = sources.entry(file).or_insert_with(|| {
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default()
        });
        if !is_test(source, function) {
            missing.push(format!("{file}::{function}"));
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    assert!(named(&page).count() > 100, "the page is not read as it is written");
}

#[test]
fn every_requirement_has_a_test_or_a_reason() {
    let page = page();
    for cells in rows(&page) {
        assert_eq!(cells.len(), 4, "{cells:?}");
        let last = cells[3];
        let reason = last.contains("Left out") || last.contains("Host: ");
        assert!(named(last).next().is_some() || reason, "{cells:?}");
    }
    assert!(rows(&page).count() > 80, "the page is not read as it is written");
}

#[test]
fn a_function_that_is_no_test_is_not_taken_for_one() {
    let source = "#[test]\n/// Why.\nfn proves() {}\nfn helps() {}\n    #[test]\n    fn inner(x: u8) {}\n";
    assert!(is_test(source, "proves") && is_test(source, "inner"));
    assert!(!is_test(source, "helps") && !is_test(source, "prove"));
}
