use super::*;

fn tree(text: &str) -> Result<Vec<Statement>, ImportError> {
    let line =
        |(line, text): (u32, &str)| Line { at: Place { file: "f".into(), line }, text: text.to_owned() };
    read(&(1..).zip(text.lines()).map(line).collect::<Vec<_>>())
}

/// Statements as `1 a b {2 c} `.
fn shown(statements: &[Statement]) -> String {
    let show = |statement: &Statement| {
        let block = statement.block.as_ref().map(|block| format!("{{{}}}", shown(block))).unwrap_or_default();
        format!("{} {}{block};", statement.at.line, statement.words.join(" "))
    };
    statements.iter().map(show).collect()
}

#[test]
fn braces_stand_anywhere() {
    let table = [
        ("a {\nb 1\nc\n}\nd", "1 a{2 b 1;3 c;};5 d;"),
        ("a\n{\nb\n}", "1 a{3 b;};"),
        ("a { b } c { d\ne } f", "1 a{1 b;};1 c{1 d;2 e;};2 f;"),
        ("a {b}{c}", "1 a{1 b;};1 {1 c;};"),
        ("a { b { c\n}\n}", "1 a{1 b{1 c;};};"),
        ("{ }", "1 {};"),
    ];
    for (text, expected) in table {
        assert_eq!(shown(&tree(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn braces_that_do_not_match_and_blocks_too_deep_are_refused() {
    for (text, expected) in [
        ("a {\nb {\n}", "f:1: the block `a` is not closed: a `}` is missing"),
        ("a\n}", "f:2: a `}` too many: no block is open here"),
    ] {
        assert_eq!(tree(text).unwrap_err().to_string(), expected);
    }
    assert!(tree(&"a {\n".repeat(100_000)).unwrap_err().to_string().contains("32 deep"));
}

#[test]
fn statements_are_quoted_short_and_without_secrets() {
    let echo = |text: &str| tree(text).unwrap()[0].echo();
    assert_eq!(echo("priority 5"), "priority 5");
    assert_eq!(echo("auth_pass secret"), "auth_pass ...");
    assert_eq!(echo("x PASS auth_pass secret"), "x ...");
    assert_eq!(echo("notify \"/bin/a --password=b\""), "notify ...");
    assert_eq!(echo(&"a".repeat(99)).len(), 64);
}
