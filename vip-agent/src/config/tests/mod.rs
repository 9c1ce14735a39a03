//! The configuration as a whole.

#[test]
fn probe() {
    for text in std::fs::read_to_string("/tmp/w/scratch-config/cases").unwrap().split("=====\n") {
        println!("--- {text}");
        match super::parse(text, "f.yaml", "node") {
            Ok((config, warnings)) => println!(">>> ok\n{warnings}\n{}", super::effective(&config)),
            Err(problems) => println!(">>> {problems}"),
        }
    }
}
