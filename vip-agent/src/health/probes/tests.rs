//! Each kind against servers that behave and servers that do not, and what becomes of a command's processes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::config::{BodyMatch, CommandLine, Http, Name, Preset, StatusSet};
use crate::health::{Thresholds, Weight};

/// Longer than any answer here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Asks once.
fn answer(question: &Question, timeout: Duration) -> Result<(), String> {
    let limit = || Limit { until: Instant::now() + timeout, timeout };
    run(async { Asker::new("probe", question).ask(limit()).await })
}

/// Why the answer is not what it should be.
fn complaint(question: &Question, timeout: Duration) -> String {
    answer(question, timeout).expect_err("it should not be up")
}

/// A server that does this with each connection, after it has read the request's head.
fn server(serve: impl Fn(&mut TcpStream, &str) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                head.push(byte[0]);
            }
            serve(&mut stream, &String::from_utf8_lossy(&head));
        }
    });
    address
}

/// A server that says this, whatever it is asked.
fn saying(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    server(move |stream, _| drop(stream.write_all(&answer)))
}

fn http(server: SocketAddr, change: impl FnOnce(&mut Http)) -> Question {
    let mut http = Http::get(format!("http://{server}/healthz").parse().unwrap());
    change(&mut http);
    Question::Http(Box::new(http))
}

fn status(line: &str) -> SocketAddr {
    saying(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nok"))
}

#[test]
fn the_status_decides_and_redirects_are_not_followed() {
    assert_eq!(answer(&http(status("200 OK"), |_| ()), PATIENCE), Ok(()));
    assert_eq!(complaint(&http(status("503 No"), |_| ()), PATIENCE), "status 503 Service Unavailable");
    assert_eq!(
        complaint(&http(status("302 Found"), |_| ()), PATIENCE),
        "status 302 Found (redirects are not followed)"
    );
    let up_to_399 = |http: &mut Http| http.status = StatusSet::new(vec![200..=399]).unwrap();
    assert_eq!(answer(&http(status("302 Found"), up_to_399), PATIENCE), Ok(()));
}

#[test]
fn the_request_is_as_configured() {
    let (tell, told) = mpsc::channel();
    let address = server(move |stream, head| {
        tell.send(head.to_owned()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&token, "hunter2\n").unwrap();
    let question = http(address, |http| {
        http.method = "POST".parse().unwrap();
        http.host = Some("a.example".parse().unwrap());
        http.headers.push("X-Who", "viplane").unwrap();
        http.token_file = Some(token.path().to_owned());
    });
    assert_eq!(answer(&question, PATIENCE), Ok(()));
    let head = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("post /healthz http/1.1"));
    for line in [
        "host: a.example",
        "x-who: viplane",
        "authorization: bearer hunter2",
        "connection: close",
        "content-length: 0",
    ] {
        assert!(lines.clone().any(|found| found == line), "no {line:?} in {head}");
    }
}

#[test]
fn the_body_must_have_what_is_asked_for() {
    let address =
        saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n5\r\n well\r\n0\r\n\r\n");
    let text = |text: &str| BodyMatch::Text(text.to_owned());
    let pattern = |text| BodyMatch::Pattern(regex_lite::Regex::new(text).unwrap());
    for (body, found) in [
        (text("all well"), true),
        (text("ill"), false),
        (pattern("^all w.ll$"), true),
        (pattern("^well"), false),
    ] {
        let outcome = answer(&http(address, |http| http.body = Some(body.clone())), PATIENCE);
        assert_eq!(outcome.is_ok(), found, "{body:?}: {outcome:?}");
    }
    let outcome = complaint(&http(address, |http| http.body = Some(text("ill"))), PATIENCE);
    assert_eq!(outcome, "status 200 OK, but the body (8 bytes) is not what it should be");
}

#[test]
fn a_large_body_is_no_answer_whether_its_length_is_told_or_not() {
    let told = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30);
    assert_eq!(complaint(&http(saying(told), |_| ()), PATIENCE), "the body is larger than 256 KiB");
    let endless = server(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(complaint(&http(endless, |_| ()), PATIENCE), "the body is larger than 256 KiB");
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(complaint(&http(saying(head), |_| ()), PATIENCE), "the answer's head is larger than 32 KiB");
}

#[test]
fn what_breaks_off_is_no_answer() {
    let short = saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok");
    assert_eq!(
        complaint(&http(short, |_| ()), PATIENCE),
        "in the body: the server closed the connection too early"
    );
    let silent = saying("");
    assert_eq!(
        complaint(&http(silent, |_| ()), PATIENCE),
        "the server closed the connection without an answer"
    );
    let reset =
        server(|stream, _| socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap());
    assert_eq!(complaint(&http(reset, |_| ()), PATIENCE), "the server reset the connection");
    let ssh = saying("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    assert_eq!(complaint(&http(ssh, |_| ()), PATIENCE), "the answer is not HTTP/1");
}

#[test]
fn slow_answers_say_what_was_being_done_when_the_time_was_over() {
    let short = Duration::from_millis(100);
    let hung = server(|_, _| std::thread::sleep(PATIENCE));
    assert_eq!(complaint(&http(hung, |_| ()), short), "no answer within 100ms: waiting for the answer");
    let dripping = server(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(complaint(&http(dripping, |_| ()), short), "no answer within 100ms: reading the body");
}

#[test]
fn an_answer_before_the_question_is_one_and_many_small_pieces_are_not_read_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // As `nc -l` does it.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    let question = Http::get(format!("http://{address}?a=b").parse().unwrap());
    let asker = Asker::new("probe", &Question::Http(Box::new(question)));
    run(async {
        for _ in 0..20 {
            let limit = Limit { until: Instant::now() + PATIENCE, timeout: PATIENCE };
            assert_eq!(asker.ask(limit).await, Ok(()));
        }
    });
    let crumbs = server(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(&b"1\r\nx\r\n".repeat(100)).is_ok() {}
    });
    let told = complaint(&http(crumbs, |_| ()), PATIENCE);
    assert!(told.starts_with("the body comes in small pieces, 163"), "{told}");
}

#[test]
fn nobody_there_is_said_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("cannot connect to {address}: Connection refused (os error 111)");
    assert_eq!(complaint(&http(address, |_| ()), PATIENCE), refused);
    assert_eq!(complaint(&Question::Tcp(address), PATIENCE), refused);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(answer(&Question::Tcp(listener.local_addr().unwrap()), PATIENCE), Ok(()));
}

#[test]
fn names_are_resolved_and_a_missing_token_is_named_without_its_text() {
    let port = status("200 OK").port();
    let by_name = format!("http://localhost:{port}/").parse().unwrap();
    assert_eq!(answer(&Question::Http(Box::new(Http::get(by_name))), PATIENCE), Ok(()));
    let nowhere = "http://no-such-name.invalid/".parse().unwrap();
    let told = complaint(&Question::Http(Box::new(Http::get(nowhere))), PATIENCE);
    assert!(told.starts_with("cannot resolve no-such-name.invalid: "), "{told}");
    let missing = |http: &mut Http| http.token_file = Some("/no/token".into());
    assert_eq!(
        complaint(&http(status("200 OK"), missing), PATIENCE),
        "token_file /no/token: No such file or directory (os error 2)"
    );
}

fn shell(script: &str) -> Question {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    Question::Exec(CommandLine { program: "sh".to_owned(), arguments })
}

#[test]
fn a_command_is_up_by_exit_status_0_whatever_it_says() {
    assert_eq!(answer(&shell("echo bad >&2; yes | head -c 1000000"), PATIENCE), Ok(()));
    assert_eq!(complaint(&shell("echo secret; exit 3"), PATIENCE), "exit status 3");
    assert_eq!(complaint(&shell("kill -TERM $$"), PATIENCE), "killed by signal 15");
    let none = CommandLine { program: "/no/such".to_owned(), arguments: Vec::new() };
    assert_eq!(
        complaint(&Question::Exec(none), PATIENCE),
        "cannot run /no/such: No such file or directory (os error 2)"
    );
}

/// Waits until a process that wrote its number into a file is there no more.
fn is_gone(pid: &Path) -> bool {
    let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let begun = std::time::Instant::now();
    loop {
        // A zombie may wait for whoever adopted it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z')) {
            return true;
        }
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_hung_command_is_killed_with_all_that_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let told = complaint(&shell(&script), Duration::from_millis(500));
    assert_eq!(told, "no answer within 500ms: sh still ran, and was killed");
    assert!(is_gone(&pid), "what it began still runs");
}

#[test]
fn what_a_command_leaves_behind_is_killed_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    // It holds the pipe of the output open.
    assert_eq!(answer(&shell(&format!("sleep 1000 & echo $! > {}", pid.display())), PATIENCE), Ok(()));
    assert!(is_gone(&pid), "what it left still runs");
}

fn polling(interval: u64, timeout: u64) -> Polling {
    Polling {
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(timeout),
        jitter: Duration::from_millis(1),
        thresholds: Thresholds { fall: NonZeroU16::MIN, rise: NonZeroU16::MIN, initially_up: false },
    }
}

fn probe(name: &str, question: Question, polling: Polling) -> Probe {
    let name = Name::of("a probe's name", name).unwrap();
    Probe { name, check: Check::Polled(question, polling), weight: Weight::Fault }
}

#[test]
fn commands_end_with_the_probers() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    run(async {
        let mut probers = Probers::default();
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", pid.display());
        probers.set(&[probe("hung", shell(&script), polling(10, 3_600_000))]);
        while !pid.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(is_gone(&pid), "the command still runs");
}

#[test]
fn a_file_is_up_while_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ready");
    let question = || Question::File(path.clone());
    assert!(complaint(&question(), PATIENCE).ends_with("ready: No such file or directory (os error 2)"));
    std::fs::write(&path, "").unwrap();
    assert_eq!(answer(&question(), PATIENCE), Ok(()));
}

#[test]
fn a_hung_probe_delays_neither_its_next_round_nor_others() {
    let hung = server(|_, _| std::thread::sleep(PATIENCE));
    let well = status("200 OK");
    run(async {
        let mut probers = Probers::default();
        probers.set(&[
            probe("hung", http(hung, |_| ()), polling(20, 200)),
            probe("well", http(well, |_| ()), polling(20, 200)),
        ]);
        let mut rounds: BTreeMap<Arc<str>, Vec<Round>> = BTreeMap::new();
        while rounds.len() < 2 || rounds.values().any(|rounds| rounds.len() < 6) {
            let (name, round) = tokio::time::timeout(PATIENCE, probers.round()).await.expect("rounds come");
            rounds.entry(name).or_default().push(round);
        }
        assert!(rounds["well"].iter().all(|round| round.outcome == Outcome::Up), "{rounds:?}");
        assert!(rounds["hung"].iter().all(|round| round.outcome != Outcome::Up), "{rounds:?}");
        // Its second question was put before the first was given up.
        assert!(rounds["hung"][1].began < rounds["hung"][0].ended, "{rounds:?}");
        assert!(rounds["well"].len() > rounds["hung"].len(), "{rounds:?}");
    });
}

#[test]
fn questions_are_put_on_schedule_but_never_two_at_once() {
    let (begun, ms) = (Instant::now(), Duration::from_millis);
    let next = |late: u64| next_due(begun, begun + ms(late), ms(100)).duration_since(begun);
    assert_eq!([0, 10, 50].map(next), [ms(100); 3]);
    assert_eq!(next(90), ms(140));
    // After a time in which nothing ran.
    assert_eq!(next(1000), ms(1050));
}

#[test]
fn a_probe_that_changes_is_asked_anew_and_one_that_goes_says_nothing_more() {
    let (well, ill) = (status("200 OK"), status("500 No"));
    run(async {
        let mut probers = Probers::default();
        let stays = probe("stays", http(well, |_| ()), polling(10, 1000));
        probers.set(&[stays.clone(), probe("changes", http(well, |_| ()), polling(10, 1000))]);
        let number = probers.running["stays"].number;
        while &*probers.round().await.0 != "changes" {}
        probers.set(&[stays.clone(), probe("changes", http(ill, |_| ()), polling(10, 1000))]);
        assert_eq!(probers.running["stays"].number, number, "it was started anew");
        loop {
            let (name, round) = probers.round().await;
            if &*name == "changes" {
                // Not even one that was on its way.
                assert_eq!(round.outcome, Outcome::Down("status 500 Internal Server Error".to_owned()));
                break;
            }
        }
        probers.set(&[stays]);
        for _ in 0..5 {
            assert_eq!(&*probers.round().await.0, "stays");
        }
    });
}

#[test]
fn presets_ask_what_the_chart_asks_and_verify_tls() {
    let in_pod = |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
        _ => None,
    };
    let url = |preset| preset::request(preset, in_pod).unwrap();
    assert_eq!(url(Preset::Kubelet).url.as_str(), "http://127.0.0.1:10248/healthz");
    assert_eq!(url(Preset::IngressNginx).url.as_str(), "http://127.0.0.1:10254/healthz");
    let api = url(Preset::KubeApi);
    assert_eq!(api.url.as_str(), "https://[fd00::1]:443/healthz");
    assert!(!api.insecure && api.ca_file.is_some() && api.token_file.is_some());
    let outside = preset::request(Preset::KubeApi, |_| None).unwrap_err();
    assert!(outside.starts_with("KUBERNETES_SERVICE_HOST is not set"), "{outside}");
}
