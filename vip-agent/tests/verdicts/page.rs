//! `docs/verdicts.md`: its table, written and compared.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::cases::Case;
use crate::judge::{Conduct, Verdict, Verdicts};
use crate::setting::Setting;

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// What the three did in one case.
pub(crate) struct Row<'a> {
    pub(crate) case: &'a Case,
    pub(crate) keepalived: &'a Verdicts,
    pub(crate) ours: &'a Verdicts,
    pub(crate) strict: &'a Verdicts,
}

impl Row<'_> {
    /// Whether ours parts from keepalived.
    pub(crate) fn differs(&self) -> bool {
        let conducts = |verdicts: &Verdicts| [verdicts.as_backup.conduct, verdicts.as_active.conduct];
        conducts(self.keepalived) != conducts(self.ours)
    }

    /// Why ours does what it does; empty where that needs no words.
    fn why(&self) -> &str {
        let [theirs, ours] = [self.keepalived, self.ours].map(|verdicts| verdicts.as_active.conduct);
        match self.case.why {
            "" if self.differs() && (theirs, ours) == (Conduct::FallsSilent, Conduct::Ignores) => {
                "[no timer is touched](#falls-silent)"
            }
            why => why,
        }
    }
}

/// The tables, one for each setting.
pub(crate) fn tables(rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for setting in Setting::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n### {}\n", setting.title());
        text.push_str(
            "| Advert | keepalived as Backup | as Active | ours as Backup | as Active | `strict` | Why |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|\n");
        for row in rows.iter().filter(|row| row.case.setting == setting) {
            let Verdicts { as_backup, as_active } = row.keepalived;
            let [our_backup, our_active] = cells(row.ours);
            let strict =
                if row.strict == row.ours { "the same".to_owned() } else { cells(row.strict).join("; ") };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {our_backup} | {our_active} | {strict} | {} |",
                row.case.advert,
                as_backup.conduct,
                as_active.conduct,
                row.why()
            );
        }
    }
    text.push('\n');
    text
}

/// As Backup with the reason, as Active without it if it is the same.
fn cells(verdicts: &Verdicts) -> [String; 2] {
    let Verdicts { as_backup, as_active } = verdicts;
    [
        with_reasons(as_backup),
        if as_active.discarded_as == as_backup.discarded_as {
            as_active.conduct.to_string()
        } else {
            with_reasons(as_active)
        },
    ]
}

fn with_reasons(verdict: &Verdict) -> String {
    let reasons: Vec<String> = verdict.discarded_as.iter().map(|reason| format!("`{reason}`")).collect();
    match (verdict.conduct, reasons.as_slice()) {
        (conduct, []) => conduct.to_string(),
        (conduct @ (Conduct::TakesOver | Conduct::Ignores), _) => {
            format!("{conduct}: {}", reasons.join(", "))
        }
        // It discarded some and heard others.
        (conduct, _) => format!("{conduct} ({})", reasons.join(", ")),
    }
}

/// Compares with the page, or writes it with `VIPLANE_BLESS=1`.
pub(crate) fn compare(tables: &str) -> Result<()> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verdicts.md"));
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let parted = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let (before, (written, after)) = parted.context("docs/verdicts.md has lost its marks")?;
    if std::env::var_os("VIPLANE_BLESS").is_some() {
        let page = format!("{before}{BEGIN}{tables}{END}{after}");
        return fs::write(&path, page).with_context(|| format!("write {}", path.display()));
    }
    if written != tables {
        let known: Vec<&str> = written.lines().collect();
        let found: Vec<&str> = tables.lines().collect();
        let news = found.iter().filter(|line| !known.contains(line)).map(|line| format!("+ {line}"));
        let gone = known.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
        let lines: Vec<String> = gone.chain(news).collect();
        bail!(
            "docs/verdicts.md says otherwise; `VIPLANE_BLESS=1` writes what was found:\n{}",
            lines.join("\n")
        );
    }
    Ok(())
}

/// That each row in which ours is another says why.
pub(crate) fn justified(rows: &[Row<'_>]) -> Result<()> {
    let silent: Vec<&str> =
        rows.iter().filter(|row| row.differs() && row.why().is_empty()).map(|row| row.case.advert).collect();
    ensure!(silent.is_empty(), "no reason is given for {silent:#?}");
    Ok(())
}
