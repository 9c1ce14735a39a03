//! Errors as people read them: what failed and why, each said once.

/// An error with what lies behind it. What a message holds already is not said again: many of ours end with the system's
/// answer, which is their source as well.
pub fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let error = anyhow::anyhow!("no such file").context("cannot open a: no such file").context("start");
        assert_eq!(in_full(&error), "start: cannot open a: no such file");
    }
}
