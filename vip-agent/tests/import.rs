//! `vip-agent import keepalived`: the command, whole files, and keepalived's own samples.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vip_agent::import::keepalived::{Host, import};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name)
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vip-agent")).args(arguments).output().expect("the agent's binary")
}

fn host(config_id: &str) -> Host {
    Host { config_id: config_id.to_owned(), addresses: Vec::new() }
}

#[test]
fn a_whole_file_becomes_what_stands_beside_it() {
    let path = fixture("pair.conf");
    let output = run(&["import", "keepalived", path.to_str().unwrap(), "--config-id", "left"]);
    assert_eq!(output.status.code(), Some(0));
    let yaml = String::from_utf8(output.stdout).unwrap().replace(path.to_str().unwrap(), "pair.conf");
    let yaml = yaml.replacen(concat!("vip-agent ", env!("CARGO_PKG_VERSION")), "vip-agent VERSION", 1);
    if std::env::var_os("VIPLANE_BLESS").is_some() {
        std::fs::write(fixture("pair.yaml"), &yaml).unwrap();
    }
    assert_eq!(
        yaml,
        std::fs::read_to_string(fixture("pair.yaml")).unwrap(),
        "VIPLANE_BLESS=1 writes it anew"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn what_cannot_be_imported_is_said_on_stderr_alone() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.conf");
    std::fs::write(&broken, "vrrp_instance A {\n  authentication {\n    auth_pass hunter22\n").unwrap();
    let broken = broken.to_str().unwrap();
    for (arguments, code, expected) in [
        (vec!["import", "keepalived", "/nowhere"], 1, "/nowhere: cannot be read: No such file".to_owned()),
        (
            vec!["import", "keepalived", broken],
            1,
            format!("{broken}:2: the block `authentication` is not closed: a `}}` is missing\n"),
        ),
        (vec!["import", "keepalived"], 2, "<FILE>".to_owned()),
        (vec!["import", "haproxy", "x"], 2, "haproxy".to_owned()),
        (vec!["import"], 2, "keepalived".to_owned()),
    ] {
        let output = run(&arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*out), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(&expected) && !err.contains("hunter"), "{arguments:?}: {err}");
    }
}

#[test]
fn includes_are_read_from_the_disk_as_keepalived_would() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let main = write("keepalived.conf", "include conf.d/{b,a}*.conf\ninclude conf.d/none-*\n");
    let instance = |name: &str, id: u8| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n version 3\n virtual_router_id {id}\n include vips-{name}\n}}\n"
        )
    };
    write("conf.d/a1.conf", &instance("A", 1));
    write("conf.d/b1.conf", &instance("B", 2));
    write("conf.d/vips-A", "virtual_ipaddress {\n 192.0.2.1\n}\n");
    write("conf.d/vips-B", "virtual_ipaddress {\n 192.0.2.2\n}\n");
    let script = write("conf.d/a2.conf", "nonsense\n");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let yaml = import(&main, &host("x")).unwrap().yaml;
    let places: Vec<_> =
        ["- name: B", "192.0.2.2", "- name: A", "192.0.2.1"].map(|part| yaml.find(part)).to_vec();
    assert!(places.is_sorted() && places[0].is_some(), "{yaml}");
    assert!(yaml.contains("# keepalived.conf:2: include conf.d/none-*: no such file"), "{yaml}");
    assert!(!yaml.contains("nonsense"), "{yaml}");
}

/// Of the package, where it is installed.
#[test]
fn keepaliveds_own_samples_are_imported() {
    let Ok(samples) = std::fs::read_dir("/usr/share/doc/keepalived/samples") else {
        println!("keepalived's samples are not installed");
        return;
    };
    let is_sample = |path: &PathBuf| path.display().to_string().contains("keepalived.conf.");
    let samples: Vec<_> = samples.map(|entry| entry.unwrap().path()).filter(is_sample).collect();
    assert!(samples.len() > 10, "{samples:?}");
    for sample in samples {
        let imported = import(&sample, &host("high")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(imported.problems(), Vec::<String>::new(), "{}:\n{}", sample.display(), imported.yaml);
        let text = std::fs::read_to_string(&sample).unwrap();
        let instances = text.lines().filter(|line| line.starts_with("vrrp_instance")).count();
        let served = format!("{instances} of {instances} instances");
        assert!(imported.yaml.contains(&served), "{}:\n{}", sample.display(), imported.yaml);
    }
}

#[test]
fn what_ran_in_the_cluster_is_imported_to_a_file_that_passes_check() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let values =
        file("values.yaml", "keepalived: { vipAddressCidr: 172.16.135.2/21, authPassword: hunter22 }\n");
    let map = file("map.yaml", "kind: ConfigMap\ndata: { 10.4.0.50: default/web, 10.4.0.51: '' }\n");
    for (kind, from, expected) in [("chart-values", &values, "cluster-vip"), ("configmap", &map, "10.4.0.51")]
    {
        let output = run(&["import", kind, from]);
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{kind}");
        let yaml = String::from_utf8(output.stdout).unwrap();
        assert!(yaml.contains(expected), "{kind}: {yaml}");
        let checked = run(&["check", &file("imported.yaml", &yaml)]);
        assert_eq!(checked.status.code(), Some(0), "{kind}: {}", String::from_utf8_lossy(&checked.stderr));
        let refused = run(&["import", kind, &file("other.yaml", "a: 1\n")]);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), &*refused.stdout), (Some(1), &b""[..]), "{kind}: {error}");
        assert!(error.contains("other.yaml:1: has no "), "{kind}: {error}");
    }
}
