//! What keepalived 2.2.7 and we make of odd adverts: the very same frames, each side in a network of its own.

#[path = "support/agents.rs"]
mod agents;
#[path = "verdicts/cases.rs"]
mod cases;
#[path = "verdicts/forgery.rs"]
mod forgery;
#[path = "verdicts/judge.rs"]
mod judge;
#[path = "verdicts/page.rs"]
mod page;
#[path = "verdicts/setting.rs"]
mod setting;

use anyhow::{Context, Result};
use judge::{Subject, judge};
use page::Row;

#[test]
fn odd_adverts_are_judged_as_the_page_says_by_keepalived_and_by_us() -> Result<()> {
    let cases = cases::cases();
    let [keepalived, ours, strict] = std::thread::scope(|scope| {
        [Subject::Keepalived, Subject::Ours, Subject::OursStrict]
            .map(|subject| {
                let cases = &cases;
                scope.spawn(move || judge(subject, cases).with_context(|| format!("{subject:?}")))
            })
            .map(|trial| trial.join().expect("a trial that panics"))
    });
    let (keepalived, ours, strict) = (keepalived?, ours?, strict?);
    let verdicts = cases.iter().zip(&keepalived).zip(&ours).zip(&strict);
    let rows: Vec<Row<'_>> =
        verdicts.map(|(((case, keepalived), ours), strict)| Row { case, keepalived, ours, strict }).collect();
    let tables = page::tables(&rows);
    println!("{tables}");
    page::compare(&tables)?;
    page::justified(&rows)
}
