//! Probes that ask: their kinds, their keys, and what they never show.

use std::time::Duration;

use super::super::{Check, Preset, Question, effective, parse};
use super::{config, edge, errors, warnings};
use crate::health::Weight;

/// `edge` that tracks `web`, a probe with this kind and these further lines, all in line 1.
fn probed(lines: &str) -> String {
    format!("probes: [{{name: web, {lines}}}]\n{}", edge("track: [web]"))
}

/// An `http` probe with these further keys.
fn http(keys: &str) -> String {
    probed(&format!("http: {{url: \"https://127.0.0.1/healthz\"{keys}}}"))
}

fn question(text: &str) -> Question {
    match config(text).probes.remove(0).check {
        Check::Polled(question, _) => question,
        Check::Interface(_) => panic!("not asked: {text}"),
    }
}

#[test]
fn commands_that_need_what_the_agent_gives_up_are_warned_of() {
    let probed = |command: &str, security: &str| {
        let probe = format!("probes: [{{name: p, exec: {{command: [{command}]}}}}]");
        warnings(&format!("{security}\n{probe}\n{}", edge("track: [p]")))
    };
    for command in ["/usr/bin/sudo, -u, postgres, pg_isready", "nsenter, \"--net=/run/netns/a\", curl"] {
        let said = probed(command, "");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("probes[0].name: ") && said[0].contains("needs what the agent gives up"),
            "{said:?}"
        );
        assert_eq!(probed(command, "security: {capabilities: keep}"), [""; 0]);
    }
    for command in ["/usr/local/bin/sudoku", "setpriv, --reuid=nobody, check", "killall, \"-0\", haproxy"] {
        assert_eq!(probed(command, ""), [""; 0]);
    }
}

#[test]
fn every_kind_reads_back_as_it_is_written() {
    for kind in [
        "http: {url: \"http://127.0.0.1:10254/healthz\"}",
        "http: {url: \"https://[::1]:8443/a?b\", method: POST, host: \"a.example:80\", headers: {X-A: b}, status: [200, \"300-302\"], body: ok, ca_file: /a, cert_file: /b, key_file: /c, token_file: /d}",
        "http: {url: \"https://a.example\", body: {regex: \"^o.k$\"}}",
        "tcp: {address: \"127.0.0.1:443\"}",
        "tcp: {address: \"[::1]:443\"}",
        "exec: {command: [/bin/check, \"-a\", \"b c\"]}",
        "file: {path: /run/ready}",
        "preset: kubelet",
        "preset: kube_api",
        "preset: ingress_nginx",
    ] {
        let written = config(&probed(&format!("{kind}, interval: 100ms, jitter: 5ms, fall: 3, initial: up")));
        let (read, warnings) = parse(&effective(&written), "effective", "node").unwrap();
        assert_eq!(read, written, "{kind}");
        assert!(warnings.is_empty(), "{kind}: {warnings}");
    }
}

#[test]
fn what_is_not_said_is_the_contracts_default() {
    let written = config(&http(""));
    let Check::Polled(Question::Http(http), polling) = &written.probes[0].check else { panic!() };
    assert_eq!((polling.interval, polling.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((polling.thresholds.fall.get(), polling.thresholds.rise.get()), (2, 2));
    assert!(!polling.thresholds.initially_up && polling.jitter.is_zero());
    assert_eq!(http.method.as_str(), "GET");
    assert!(http.status.contains(200) && !http.status.contains(204) && !http.insecure);
    assert_eq!(written.probes[0].weight, Weight::Fault);
}

#[test]
fn presets_have_the_charts_pace_and_an_api_server_that_is_gone_lowers_the_priority_only() {
    let preset = |name: &str| {
        let probe = config(&probed(&format!("preset: {name}"))).probes.remove(0);
        let Check::Polled(Question::Preset(preset), polling) = probe.check else { panic!("{name}") };
        (preset, polling.interval.as_secs(), polling.thresholds.fall.get(), probe.weight)
    };
    assert_eq!(preset("kubelet"), (Preset::Kubelet, 5, 5, Weight::Fault));
    assert_eq!(preset("kube_api"), (Preset::KubeApi, 5, 5, Weight::Lower(40)));
    assert_eq!(preset("ingress_nginx"), (Preset::IngressNginx, 2, 2, Weight::Fault));
    let own = config(&probed("preset: kube_api, interval: 1s, fall: 1, weight: 0"));
    assert_eq!(own.probes[0].weight, Weight::Fault);
    assert_eq!(
        errors(&probed("preset: kubectl")),
        [
            "1:30: probes[0].preset: must be `kubelet` or `kube_api` or `ingress_nginx`, not the text \"kubectl\""
        ]
    );
}

#[test]
fn status_is_codes_and_ranges() {
    let Question::Http(http) = question(&http(", status: [204, \"300-302\", \"404\"]")) else { panic!() };
    let right: Vec<u16> = (100..=999).filter(|code| http.status.contains(*code)).collect();
    assert_eq!(right, [204, 300, 301, 302, 404]);
}

#[test]
fn what_is_wrong_with_a_request_is_said_at_its_place() {
    let status = "must be a status code, 100-999, or a range of them as in \"200-299\", not";
    for (keys, expected) in [
        (", status: []", "status: needs at least one status code".to_owned()),
        (", status: [99]", format!("status[0]: {status} the number 99")),
        (", status: [\"299-200\"]", format!("status[0]: {status} the text \"299-200\"")),
        (", status: [ok]", format!("status[0]: {status} the text \"ok\"")),
        (", method: get", "method: must be a method such as GET, HEAD or POST, not \"get\"".to_owned()),
        (
            ", method: CONNECT",
            "method: must be a method such as GET, HEAD or POST, not \"CONNECT\"".to_owned(),
        ),
        (", method: HEAD, body: a", "body: cannot match: the answer to HEAD has no body".to_owned()),
        (", body: \"\"", "body: must be of 1-4096 bytes".to_owned()),
        (", cert_file: /a", "cert_file: needs `key_file` beside it".to_owned()),
        (", key_file: /a", "key_file: needs `cert_file` beside it".to_owned()),
        (", token_file: a", "token_file: must be an absolute path, not \"a\"".to_owned()),
        (
            ", headers: {Host: a}",
            "headers.Host: host is not to be set here: the request decides it (see `host`)".to_owned(),
        ),
        (", headers: {\"a b\": c}", "headers.\"a b\": \"a b\" is no name of a header".to_owned()),
        (", hosts: a", "hosts: unknown key; did you mean `host`?".to_owned()),
    ] {
        let found = errors(&http(keys));
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].ends_with(&format!("probes[0].http.{expected}")), "{keys}: {found:?}");
    }
}

#[test]
fn a_url_is_http_or_https_with_a_host_and_no_password() {
    for (url, expected) in [
        ("127.0.0.1:80", "must begin with http:// or https://"),
        ("ftp://a/", "must begin with http:// or https://"),
        ("http://", "\"http://\" is no URL: write it as in \"http://127.0.0.1:10254/healthz\""),
        (
            "http://a:99999/",
            "\"http://a:99999/\" is no URL: write it as in \"http://127.0.0.1:10254/healthz\"",
        ),
        ("http://a b/", "\"http://a b/\" is no URL: write it as in \"http://127.0.0.1:10254/healthz\""),
        ("http://me:secret@a/", "must not hold a user or password: use `headers` or `token_file`"),
        (
            "http://a.{address}/",
            "`{address}` stands for a backend's address: it is the whole host, or a part of the path",
        ),
    ] {
        let found = errors(&probed(&format!("http: {{url: \"{url}\"}}")));
        assert_eq!(found.len(), 1, "{url}: {found:?}");
        assert!(found[0].ends_with(&format!("probes[0].http.url: {expected}")), "{url}: {found:?}");
    }
}

#[test]
fn the_other_kinds_say_what_they_need() {
    for (kind, expected) in [
        (
            "tcp: {address: \"localhost:80\"}",
            "tcp.address: must be IP:PORT as in \"127.0.0.1:443\" or \"[::1]:443\", not \"localhost:80\"",
        ),
        ("exec: {command: []}", "exec.command: needs a program: a path, or a name to be looked up in PATH"),
        ("exec: {command: check}", "exec.command: must be a list, not the text \"check\""),
        ("exec: {command: [a, 1]}", "exec.command[1]: must be a text, not the number 1: put it in quotes"),
        ("file: {path: ready}", "file.path: must be an absolute path, not \"ready\""),
        ("file: {}", "file.path: is missing"),
        ("http: {}", "http.url: is missing"),
    ] {
        let found = errors(&probed(kind));
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert!(found[0].ends_with(&format!("probes[0].{expected}")), "{kind}: {found:?}");
    }
}

#[test]
fn no_secret_is_shown_and_a_masked_one_is_refused() {
    let config =
        config(&http(", headers: {Authorization: \"Bearer hunter2\", X-Api-Key: hunter2, X-Plain: seen}"));
    for shown in [effective(&config), format!("{config:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("seen"), "{shown}");
    }
    let masked = parse(&effective(&config), "effective", "node").unwrap_err().to_string();
    assert_eq!(masked.matches("is masked: write the value itself").count(), 2, "{masked}");
    // Nor where it is wrong.
    for headers in
        ["{Authorization: \"hunter\\u0001\"}", "{Authorization: [hunter]}", "{Authorization: 1234}"]
    {
        let found = errors(&http(&format!(", headers: {headers}"))).join("\n");
        assert!(!found.contains("hunter") && !found.contains("1234"), "{found}");
    }
}

#[test]
fn what_protects_nothing_is_pointed_out() {
    let plain = |keys: &str| warnings(&probed(&format!("http: {{url: \"http://a/\"{keys}}}")));
    assert!(plain(", token_file: /a")[0].ends_with("with http:// the token is sent in the clear"));
    assert!(plain(", ca_file: /a")[0].ends_with("ca_file: warning: has no effect with http://"));
    let insecure = warnings(&http(", insecure: true, ca_file: /a, token_file: /b"));
    assert_eq!(insecure.len(), 3, "{insecure:?}");
    assert!(insecure[2].ends_with("with `insecure` the token is sent to whoever answers"));
}

#[test]
fn all_failed_asks_for_probes_and_for_no_sync_group() {
    assert_eq!(
        warnings(&edge("all_failed: open")),
        ["6:17: instances[0].all_failed: warning: has no effect: the instance tracks no probe"]
    );
    assert!(
        warnings(&probed("preset: kubelet").replace("track:", "all_failed: open\n    track:")).is_empty()
    );
    let grouped = edge("all_failed: open\nsync_group: both");
    assert_eq!(
        errors(&grouped),
        [
            "6:17: instances[0].all_failed: must be `close` in a sync group: its members give their VIPs up together"
        ]
    );
}
