//! Health probes against real servers, and what their verdicts make of the VIPs.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/certificates.rs"]
mod certificates;

use std::time::Instant;

use agents::{Ask as _, SOON, VIPS, agent, ms};
use anyhow::{Context as _, Result, ensure};
use certificates::Authority;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::arping::Arping;
use vip_lab::web::Web;
use vip_lab::{Lab, Node, Process, WEB_PORT, wait};

/// As quick as it is asked for where seconds count.
fn quick(name: &str, kind: &str, particulars: Value) -> Value {
    let Value::Object(mut probe) = json!({"name": name, "interval": "100ms", "timeout": "500ms"}) else {
        unreachable!()
    };
    probe.insert(kind.to_owned(), particulars);
    Value::Object(probe)
}

/// Whether the node's own web server answers.
fn web() -> Value {
    quick("web", "http", json!({"url": format!("http://127.0.0.1:{WEB_PORT}/")}))
}

/// An agent that tracks these probes.
fn tracking(lab: &Lab, number: usize, probes: &[Value]) -> AgentBuilder {
    let names: Vec<&Value> = probes.iter().map(|probe| &probe["name"]).collect();
    agent(lab, number).set("probes", json!(probes)).set_instance("track", json!(names))
}

/// Agents on all nodes; the first owns, and each has found its probes up.
fn start<const N: usize>(builders: [AgentBuilder; N]) -> Result<[Agent; N]> {
    let agents: Vec<Agent> = builders.map(AgentBuilder::start).into_iter().collect::<Result<_>>()?;
    agents[0].wait_state("active", SOON)?;
    for backup in &agents[1..] {
        backup.wait_state("backup", SOON)?;
    }
    Ok(agents.try_into().expect("as many as there were"))
}

/// Waits until a probe is as wanted.
fn is(agent: &Agent, probe: &str, up: bool, why: &str) -> Result<()> {
    let wanted = |status: &Value| {
        let probes = status["instances"][0]["probes"].as_array().cloned().unwrap_or_default();
        probes.iter().any(|found| {
            let error = found["last_error"].as_str().unwrap_or_default();
            found["name"] == probe && found["up"] == up && error.contains(why)
        })
    };
    agent.wait_for(&format!("{probe}: up {up}, {why:?}"), wanted).map(drop)
}

// === what the verdicts move ===

#[test]
fn a_service_that_dies_on_the_owner_is_served_elsewhere_and_the_probe_is_named() -> Result<()> {
    let mut lab = Lab::builder().nodes(2).clients(1).vips(VIPS).web().build()?;
    let [first, second] = start([1, 2].map(|number| tracking(&lab, number, &[web()])))?;
    let load = lab.requests().every(ms(2)).delay(ms(1)).patience(ms(200)).start()?;
    let by = |load: &vip_lab::requests::Requests, node: &str| {
        load.report().answered_by().iter().any(|(name, count)| &**name == node && *count > 5)
    };
    wait::until(SOON, || by(&load, "node1"))?;
    let died = Instant::now();
    lab.stop_web(1);
    wait::until(SOON, || by(&load, "node2"))?;
    println!("from the service's death to requests served elsewhere: {:?}", died.elapsed());
    second.wait_state("active", SOON)?;
    first.wait_state("fault", SOON)?;

    let loser = first.edge_json()?;
    let release = &loser["last_release"];
    println!("the loser: {release}");
    ensure!(release["cause"] == "fault" && release["probe"] == "web", "{loser}");
    for phase in ["verdict_us", "detect_us", "decide_us", "flip_us", "announce_us"] {
        ensure!(release[phase].is_u64(), "no {phase}: {release}");
    }
    // Two answers, an interval apart, made the verdict.
    ensure!(release["verdict_us"].as_u64() >= Some(50_000), "{release}");
    let reason = loser["reason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("probe web is down: cannot connect to 127.0.0.1:80"), "{loser}");
    let log = first.log();
    ensure!(log.contains("active -> fault") && log.contains("probe=\"web\""), "{log}");
    let winner = second.edge_json()?;
    println!("the winner: {}", winner["last_takeover"]);
    ensure!(winner["last_takeover"]["cause"] == "priority_zero", "{winner}");

    let _web = Web::start(lab.node(1), WEB_PORT)?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    let back = first.edge_json()?;
    ensure!(back["last_takeover"]["cause"] == "preempt" && back["last_takeover"]["probe"] == "web", "{back}");
    Ok(())
}

#[test]
fn a_weighted_probe_moves_the_vips_to_who_is_better_and_back_without_loss() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips(VIPS).web().build()?;
    let ready = lab.node(1).file_path("ready");
    lab.node(1).write_file(&ready, "")?;
    let mut probe = quick("ready", "file", json!({"path": ready}));
    probe["weight"] = json!(-40);
    let [first, second] = start([tracking(&lab, 1, &[probe]), agent(&lab, 2)])?;
    let load = lab.requests().every(ms(2)).delay(ms(5)).start()?;
    wait::until(SOON, || load.in_flight() > 0)?;
    let path = ready.clone();
    lab.node(1).run(move || std::fs::remove_file(path))?;
    second.wait_state("active", SOON)?;
    let edge = first.edge_json()?;
    ensure!(edge["state"] == "backup" && edge["effective_priority"] == 160, "{edge}");
    let release = &edge["last_release"];
    ensure!(release["cause"] == "higher_priority" && release["probe"] == "ready", "{edge}");
    lab.node(1).write_file(&ready, "")?;
    first.wait_state("active", SOON)?;
    ensure!(first.edge_json()?["effective_priority"] == 200);
    second.wait_state("backup", SOON)?;
    let lost = load.stop().lost().count();
    ensure!(lost == 0, "{lost} requests were lost");
    Ok(())
}

// === all_failed ===

/// Three nodes that track their web servers, as they fail one after the other, the owner first.
fn all_fail(lab: &mut Lab, all_failed: &str) -> Result<[Agent; 3]> {
    let tracking = |number| tracking(lab, number, &[web()]).set_instance("all_failed", json!(all_failed));
    let agents = start([tracking(1), tracking(2), tracking(3)])?;
    for number in 1..=3 {
        agents[number - 1].wait_state("active", SOON)?;
        lab.stop_web(number);
        is(&agents[number - 1], "web", false, "cannot connect")?;
        if number < 3 {
            agents[number - 1].wait_state("fault", SOON)?;
        }
    }
    Ok(agents)
}

#[test]
fn closed_nobody_answers_when_all_fail_and_the_first_that_recovers_does() -> Result<()> {
    let mut lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let agents = all_fail(&mut lab, "close")?;
    agents[2].wait_state("fault", SOON)?;
    let asking = Arping::start(lab.client(), VIPS[0].parse()?, ms(5))?;
    wait::until(SOON, || asking.questions() > 50)?;
    let answers = asking.stop()?;
    ensure!(answers.all().is_empty(), "somebody answers: {answers:?}");
    let _web = Web::start(lab.node(2), WEB_PORT)?;
    agents[1].wait_state("active", SOON).map(drop)
}

#[test]
fn open_the_last_owner_goes_on_answering_and_yields_to_the_first_that_recovers() -> Result<()> {
    let mut lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let asking = Arping::start(lab.client(), VIPS[0].parse()?, ms(5))?;
    let agents = all_fail(&mut lab, "open")?;
    let keeps = |status: &Value| {
        let edge = &status["instances"][0];
        edge["state"] == "active" && edge["owned"] == true && edge["effective_priority"] == 2
    };
    let edge = agents[2].wait_for("the last resort", keeps)?["instances"][0].clone();
    let reason = edge["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("keeps the VIPs because nobody took them") && reason.contains("probe web"),
        "{edge}"
    );
    ensure!(
        edge["last_takeover"]["cause"] == "no_heir" && edge["last_release"]["cause"] == "fault",
        "{edge}"
    );
    let seen = asking.questions();
    wait::until(SOON, || asking.questions() > seen + 100)?;
    let answers = asking.answers();
    let owner = answers.all().last().context("nobody answers")?.mac;
    ensure!(owner == lab.node(3).mac(), "{owner} answers");
    // The lowest of all that are well is better than one that is not.
    let _web = Web::start(lab.node(2), WEB_PORT)?;
    agents[1].wait_state("active", SOON)?;
    agents[2].wait_state("fault", SOON)?;
    let answers = asking.stop()?;
    println!("the longest silence in all of it: {:?}", answers.longest_silence());
    ensure!(answers.double().is_empty(), "two answered: {:?}", answers.double());
    Ok(())
}

// === against real servers ===

/// nginx with TLS on a node, as its own process.
struct Nginx {
    node: Node,
    process: Process,
}

impl Nginx {
    /// Ports: 8080 plain, 8443 TLS, 8444 TLS with the certificate of another authority, 8445 TLS for known clients alone.
    fn start(node: &Node, authority: &Authority, stranger: &Authority) -> Result<Self> {
        let file = |name: &str, text: &str| -> Result<String> {
            let path = node.file_path(name);
            node.write_file(&path, text)?;
            Ok(path.display().to_string())
        };
        let (own, other) = (authority.server("127.0.0.1"), stranger.server("127.0.0.1"));
        let ca = file("ca.pem", &authority.pem)?;
        let own = (file("own.pem", &own.cert)?, file("own.key", &own.key)?);
        let other = (file("other.pem", &other.cert)?, file("other.key", &other.key)?);
        let logs = node.file_path("nginx-files").display().to_string();
        let path = logs.clone();
        node.run(move || std::fs::create_dir(path))?;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {logs}/{kind};"))
            .join(" ");
        let tls = |port: u16, (cert, key): &(String, String), more: &str| {
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; {more} \
                 location /healthz {{ return 200 'all well'; }} }}\n"
            )
        };
        let config = format!(
            "daemon off; user root; pid {logs}/pid; error_log stderr; events {{}}\nhttp {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:8080; location = /healthz {{ return 200 'all well'; }} \
             location = /moved {{ return 302 /healthz; }} location = /ill {{ return 503; }} \
             location = /token {{ if ($http_authorization != 'Bearer hunter2') {{ return 401; }} return 204; }} }}\n\
             {}{}{}}}\n",
            tls(8443, &own, ""),
            tls(8444, &other, ""),
            tls(8445, &own, &format!("ssl_client_certificate {ca}; ssl_verify_client on;")),
        );
        let config = file("nginx.conf", &config)?;
        let process = node.command("nginx").args(["-p", &logs, "-c", &config]).spawn("nginx")?;
        Ok(Self { node: node.clone(), process })
    }

    fn path(&self, name: &str) -> String {
        self.node.file_path(name).display().to_string()
    }
}

#[test]
fn each_kind_is_up_and_down_as_its_server_is() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).build()?;
    let node = lab.node(1);
    let (authority, stranger) = (Authority::new(), Authority::new());
    let nginx = Nginx::start(node, &authority, &stranger)?;
    let client = authority.client();
    for (name, text) in
        [("client.pem", &*client.cert), ("client.key", &client.key), ("token", "hunter2\n"), ("ready", "")]
    {
        node.write_file(node.file_path(name), text)?;
    }
    let (ca, ready, hung) = (nginx.path("ca.pem"), nginx.path("ready"), nginx.path("hung"));
    let http = |name: &str, url: &str, more: Value| {
        let mut particulars = json!({"url": url});
        for (key, value) in more.as_object().into_iter().flatten() {
            particulars[key] = value.clone();
        }
        quick(name, "http", particulars)
    };
    let tls =
        |name: &str, port: u16, more: Value| http(name, &format!("https://127.0.0.1:{port}/healthz"), more);
    let mut probes = vec![
        http("plain", "http://127.0.0.1:8080/healthz", json!({"body": "all well"})),
        http("moved", "http://127.0.0.1:8080/moved", json!({})),
        http("ill", "http://127.0.0.1:8080/ill", json!({})),
        http(
            "token",
            "http://127.0.0.1:8080/token",
            json!({"status": ["200-299"], "token_file": nginx.path("token")}),
        ),
        tls("tls", 8443, json!({"ca_file": ca})),
        tls("wrong-authority", 8444, json!({"ca_file": ca})),
        tls("insecure", 8444, json!({"insecure": true})),
        tls("anonymous", 8445, json!({"ca_file": ca})),
        tls(
            "known",
            8445,
            json!({"ca_file": ca, "cert_file": nginx.path("client.pem"), "key_file": nginx.path("client.key")}),
        ),
        quick("tcp", "tcp", json!({"address": "127.0.0.1:8443"})),
        quick("exec", "exec", json!({"command": ["test", "-e", ready]})),
        quick("hung", "exec", json!({"command": ["sh", "-c", format!("echo $$ > {hung}; exec sleep 1000")]})),
        quick("file", "file", json!({"path": ready})),
        quick("link", "interface", json!({"name": "eth0"})),
    ];
    // None of them is a fault here: all are looked at.
    probes.iter_mut().for_each(|probe| probe["weight"] = json!(-1));
    let agent = tracking(&lab, 1, &probes).start()?;
    let up = ["plain", "token", "tls", "insecure", "known", "tcp", "exec", "file", "link"];
    for probe in up {
        is(&agent, probe, true, "")?;
    }
    for (probe, why) in [
        ("moved", "status 302 Found (redirects are not followed)"),
        ("ill", "status 503 Service Unavailable"),
        ("wrong-authority", "TLS: invalid peer certificate"),
        ("anonymous", "status 400 Bad Request"),
        ("hung", "no answer within 500ms: sh still ran, and was killed"),
    ] {
        is(&agent, probe, false, why)?;
    }
    println!("{} KiB resident with {} probes", agent.process().resident_kib()?, probes.len());
    ensure!(agent.edge_json()?["effective_priority"] == 195, "{}", agent.edge_json()?);

    let shown = [agent.say(&["config"])?.out, agent.log(), agent.status()?.raw.to_string()].join("\n");
    ensure!(!shown.contains("hunter2") && !shown.contains("PRIVATE KEY"), "{shown}");

    nginx.process.signal(Signal::SIGTERM)?;
    let path = ready.clone();
    node.run(move || std::fs::remove_file(path))?;
    for probe in ["plain", "token", "tls", "insecure", "known", "tcp"] {
        is(&agent, probe, false, "cannot connect to 127.0.0.1:")?;
    }
    is(&agent, "exec", false, "exit status 1")?;
    is(&agent, "file", false, "No such file")?;
    node.write_file(&ready, "")?;
    for probe in ["exec", "file", "link"] {
        is(&agent, probe, true, "")?;
    }
    // The hung command ends with the agent.
    agent.signal(Signal::SIGTERM)?;
    agent.wait(SOON)?;
    let pid = node.read_file(&hung)?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    ensure!(!stat.contains("sleep"), "{stat}");
    Ok(())
}

#[test]
fn a_reload_changes_probes_and_leaves_the_others_alone() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).web().build()?;
    let agent = tracking(&lab, 1, &[web()]).start()?;
    agent.wait_state("active", SOON)?;
    let before = agent.edge()?.transitions;
    let mut down = quick("down", "tcp", json!({"address": "127.0.0.1:1"}));
    down["weight"] = json!(-50);
    agent.reload(&tracking(&lab, 1, &[web(), down.clone()]))?;
    is(&agent, "down", false, "Connection refused")?;
    agent.wait_for("lower", |status| status["instances"][0]["effective_priority"] == 150)?;
    is(&agent, "web", true, "")?;
    agent.reload(&tracking(&lab, 1, &[web()]))?;
    agent.wait_for("itself", |status| status["instances"][0]["effective_priority"] == 200)?;
    ensure!(agent.edge()?.transitions == before, "the instance moved");
    // A probe that fails becomes a fault, and its going ends it.
    down["weight"] = json!(0);
    agent.reload(&tracking(&lab, 1, &[web(), down]))?;
    agent.wait_state("fault", SOON)?;
    agent.reload(&tracking(&lab, 1, &[web()]))?;
    agent.wait_state("active", SOON).map(drop)
}
