use super::super::tests::Memory;
use super::*;

/// The lines of a file, with its name cut off.
fn lines(text: &str) -> Vec<String> {
    let files = Memory::of(&[("/k/a", text.as_bytes())]);
    let read = read(&files, Path::new("/k/a"), "main").unwrap();
    read.lines.into_iter().map(|line| format!("{} {}", line.at.line, line.text)).collect()
}

#[test]
fn comments_end_lines_but_not_quoted_strings() {
    assert_eq!(
        lines("! a\n# b\n  a b # c\nd!e\n\"f!g #h\" # i\nj\\#k\\!l\nm \"n\\\"!\" # o\n\t\r\n"),
        ["3 a b", "4 d", "5 \"f!g #h\"", "6 j#k!l", "7 m \"n\\\"!\""]
    );
}

#[test]
fn parameters_are_replaced_when_they_are_used() {
    let text = "$BASE=10.2.${SUB}\n$SUB=0\n${BASE}.100/32\n$SUB=10\n${BASE}.100/32\n$EMPTY=\nx$EMPTY y\nx${EMPTY}y\n";
    assert_eq!(lines(text), ["3 10.2.0.100/32", "5 10.2.10.100/32", "7 x y", "8 xy"]);
}

#[test]
fn what_is_no_parameter_stays() {
    assert_eq!(
        lines("$A=1\n$Ab ${B} $A.5 ${A $ $1 a$\n$A$A,$A\n"),
        ["2 $Ab ${B} $A.5 ${A $ $1 a$", "3 $A1,1"]
    );
}

#[test]
fn definitions_of_several_lines_nest() {
    let text = "$RS= \\\n real ${N} { \\\n  weight 1 \\\n } \\\n\n$VS= \\\nvs { \\\n$N=1 \\\n$RS \\\n$N=2 \\\n$RS \\\n}\n$VS\n";
    assert_eq!(
        lines(text),
        ["13 vs {", "13 real 1 {", "13 weight 1", "13 }", "13 real 2 {", "13 weight 1", "13 }", "13 }"]
    );
}

#[test]
fn conditions_choose_lines() {
    assert_eq!(
        lines(
            "@main a\n@backup b\n@^main c\n@^backup d\n@main $P=1\n@backup $P=2\np $P\n$IF=@main\n$IF e\n@main\n"
        ),
        ["1 a", "4 d", "7 p 1", "9 e"]
    );
}

#[test]
fn predefined_parameters_are_known() {
    assert_eq!(
        lines("${_PWD}/x ${_INSTANCE} ${_HASH}1 ${_BANG} ${_RANDOM}"),
        ["1 /k/x main #1 ! ${_RANDOM}"]
    );
}

#[test]
fn sequences_repeat_the_rest_of_their_line() {
    assert_eq!(
        lines("~SEQ(A, 1, 2) ~SEQx(B, 9, 10) ${A}.${B}\n~LST({X,Y}, {a,b}, {c,d}) $X $Y\n"),
        ["1 1.9", "1 1.a", "1 2.9", "1 2.a", "2 a b", "2 c d"]
    );
}
