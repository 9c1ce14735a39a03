//! `http` and `tcp` against servers that were written for it.

use std::io::Write as _;
use std::net::Ipv6Addr;

use anyhow::Result;
use serde_json::{Value, json};
use vip_lab::{Lab, Node};

use super::agents::ms;
use super::servers::{Server, repeat, reset};
use super::{Case, hold};

/// Servers, and the probes that ask them.
struct Table<'a> {
    node: &'a Node,
    servers: Vec<Server>,
    cases: Vec<Case>,
}

type Expected = Result<(), &'static str>;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Table<'_> {
    fn add(&mut self, name: &'static str, server: Server, mut more: Value, expected: Expected) {
        more["url"] = Value::String(server.url());
        self.cases.push(Case::new(name, "http", more, expected));
        self.servers.push(server);
    }

    /// A server that says this, whatever it is asked.
    fn saying(&mut self, name: &'static str, answer: impl Into<Vec<u8>>, expected: Expected) -> Result<()> {
        self.add(name, Server::saying(self.node, answer)?, json!({}), expected);
        Ok(())
    }

    /// A server that says this; the body must hold `needle`.
    fn matching(&mut self, name: &'static str, answer: impl Into<Vec<u8>>, expected: Expected) -> Result<()> {
        self.add(name, Server::saying(self.node, answer)?, json!({"body": "needle"}), expected);
        Ok(())
    }

    /// A server that does this once it was asked.
    fn doing(
        &mut self,
        name: &'static str,
        serve: impl Fn(&mut std::net::TcpStream) + Send + Sync + 'static,
        expected: Expected,
    ) -> Result<()> {
        let server = Server::answering(self.node, [127, 0, 0, 1].into(), move |stream, _| serve(stream))?;
        self.add(name, server, json!({}), expected);
        Ok(())
    }

    fn tcp(&mut self, name: &'static str, address: String, expected: Expected) {
        self.cases.push(Case::new(name, "tcp", json!({"address": Value::String(address)}), expected));
    }

    fn hung(&mut self) -> Result<()> {
        self.doing("silent", |_| std::thread::sleep(ms(5000)), Err("waiting for the answer"))?;
        let backlog = Server::hung(self.node, 1000, 0)?;
        self.tcp("tcp-backlog", backlog.address.to_string(), Ok(()));
        self.add("backlog", backlog, json!({}), Err("waiting for the answer"));
        let full = Server::hung(self.node, 0, 1)?;
        self.tcp("tcp-full", full.address.to_string(), Err("no answer within 1s: connecting to"));
        self.add("full", full, json!({}), Err("no answer within 1s: connecting to"));
        self.doing("head-drips", |stream| repeat(stream, b"H", ms(50)), Err("waiting|not HTTP"))?;
        let late_head = |stream: &mut _| {
            let _ = std::net::TcpStream::write_all(stream, b"HTTP/1.1 200 OK\r\nX: ");
            repeat(stream, b"x", ms(20));
        };
        self.doing("header-drips", late_head, Err("waiting for the answer"))?;
        let endless_head = |stream: &mut _| {
            let _ = std::net::TcpStream::write_all(stream, b"HTTP/1.1 200 OK\r\nX: ");
            repeat(stream, &[b'x'; 4096], ms(0));
        };
        self.doing("head-endless", endless_head, Err("the answer's head is larger than 32 KiB"))?;
        let continues = |stream: &mut _| repeat(stream, b"HTTP/1.1 100 Continue\r\n\r\n", ms(1));
        self.doing("continues", continues, Err("waiting for the answer"))
    }

    fn bodies(&mut self) -> Result<()> {
        let body = |stream: &mut std::net::TcpStream, head: &str, text: &[u8], pause| {
            let _ = stream.write_all(head.as_bytes());
            repeat(stream, text, ms(pause));
        };
        let told = "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n";
        self.doing("body-100-mb", move |s| body(s, told, &[b'x'; 4096], 0), Err("larger than 256 KiB"))?;
        let untold = "HTTP/1.1 200 OK\r\n\r\n";
        self.doing("body-endless", move |s| body(s, untold, &[b'x'; 4096], 0), Err("larger than 256 KiB"))?;
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.doing(
            "chunks-endless",
            move |s| body(s, chunked, b"1\r\nx\r\n", 0),
            Err("the body comes in small pieces|reading the body"),
        )?;
        self.doing(
            "body-drips",
            move |s| body(s, told, b"x", 20),
            Err("reading the body|larger than 256 KiB"),
        )?;
        let slow = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        self.doing("body-slow", move |s| body(s, slow, b"x", 20), Err("reading the body"))?;
        self.saying("chunks-garbage", format!("{chunked}zzz\r\nok\r\n0\r\n\r\n"), Err("in the body"))?;
        self.saying("chunk-huge", format!("{chunked}ffffffffffffffffff\r\nok"), Err("in the body"))?;
        self.saying("chunk-cut", format!("{chunked}5\r\nok"), Err("in the body"))?;
        self.saying(
            "cut",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            Err("in the body: the server closed"),
        )?;
        let padded = |before: usize, after: &str| {
            let body = format!("{}{after}", "x".repeat(before));
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        self.matching("match-at-the-end", padded(200 << 10, "needle"), Ok(()))?;
        self.matching("match-over-chunks", format!("{chunked}3\r\nnee\r\n3\r\ndle\r\n0\r\n\r\n"), Ok(()))?;
        self.matching("match-beyond", padded(256 << 10, "needle"), Err("larger than 256 KiB"))?;
        self.matching("match-none", padded(10, ""), Err("the body (10 bytes) is not what it should be"))?;
        let gzip = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\u{b}";
        self.matching("match-gzip", gzip, Err("Content-Encoding gzip"))
    }

    fn ends(&mut self) -> Result<()> {
        let rst = Server::accepting(self.node, |stream, _| reset(stream))?;
        self.add("reset-at-once", rst, json!({}), Err("reset|Broken pipe|closed|Connection reset"));
        let later = Server::answering(self.node, [127, 0, 0, 1].into(), |stream, _| reset(stream))?;
        self.tcp("tcp-reset", later.address.to_string(), Ok(()));
        self.add("reset", later, json!({}), Err("the server reset the connection"));
        let in_body = |stream: &mut std::net::TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok");
            std::thread::sleep(ms(20));
            reset(stream);
        };
        self.doing("reset-in-body", in_body, Err("in the body: the server reset the connection"))?;
        self.doing("nothing", |_| (), Err("closed the connection without an answer"))?;
        // They answer before they are asked, and never read the question: the kernel resets the connection behind the answer.
        let canned = |answer: &'static str| {
            Server::accepting(self.node, move |stream, _| {
                let _ = stream.write_all(answer.as_bytes());
                std::thread::sleep(ms(100));
            })
        };
        let (rude, overloaded) = (canned(OK)?, canned("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")?);
        self.add("unasked", rude, json!({}), Ok(()));
        self.add("unasked-503", overloaded, json!({}), Err("status 503"));
        Ok(())
    }

    fn dialects(&mut self) -> Result<()> {
        self.saying("http-1.0", "HTTP/1.0 200 OK\r\n\r\nok", Ok(()))?;
        self.saying("no-length", "HTTP/1.1 200 OK\r\n\r\nok", Ok(()))?;
        self.saying("no-reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Ok(()))?;
        self.saying("early-hints", format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"), Ok(()))?;
        self.saying("continue", format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"), Ok(()))?;
        self.saying(
            "switching",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            Err("status 101"),
        )?;
        self.saying("http-0.9", "ok", Err("closed|not HTTP/1"))?;
        self.saying("http-2", b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec(), Err("not HTTP/1"))?;
        self.saying("ssh", "SSH-2.0-OpenSSH_9.2\r\n\r\n", Err("not HTTP/1"))?;
        self.saying(
            "moved",
            "HTTP/1.1 301 Moved\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
            Err("redirects are not followed"),
        )?;
        self.saying("no-content", "HTTP/1.1 204 No Content\r\n\r\n", Err("status 204"))?;
        self.add(
            "keeps-alive",
            Server::answering(self.node, [127, 0, 0, 1].into(), |stream, _| {
                let _ = stream.write_all(OK.as_bytes());
                std::thread::sleep(ms(5000));
            })?,
            json!({}),
            Ok(()),
        );
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        self.add("head-method", Server::saying(self.node, head)?, json!({"method": "HEAD"}), Ok(()));
        Ok(())
    }

    /// Those that answer 200 if the request's `Host` is this, else 421.
    fn hosts(&mut self) -> Result<()> {
        let asked_for = |node: &Node, ip, host: Option<&str>| {
            let wanted = host.map(str::to_owned);
            Server::answering(node, ip, move |stream, head| {
                let at = stream.local_addr().map(|at| at.to_string()).unwrap_or_default();
                let wanted = format!("\r\nhost: {}\r\n", wanted.as_deref().unwrap_or(&at));
                let right = head.to_lowercase().matches("\r\nhost: ").count() == 1;
                let answer = if right && head.to_lowercase().contains(&wanted) { "200 OK" } else { "421 No" };
                let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            })
        };
        self.add("host-v4", asked_for(self.node, [127, 0, 0, 1].into(), None)?, json!({}), Ok(()));
        self.add("host-v6", asked_for(self.node, Ipv6Addr::LOCALHOST.into(), None)?, json!({}), Ok(()));
        let named = asked_for(self.node, [127, 0, 0, 1].into(), Some("a.example:81"))?;
        self.tcp("tcp-v4", named.address.to_string(), Ok(()));
        self.add("host-named", named, json!({"host": "a.example:81"}), Ok(()));
        let other = asked_for(self.node, [127, 0, 0, 1].into(), Some("a.example"))?;
        self.add("host-other", other, json!({"host": "b.example"}), Err("status 421"));
        let v6 = Server::hung(self.node, 1000, 0)?;
        self.tcp("tcp-v6-refused", format!("[::1]:{}", v6.address.port()), Err("Connection refused"));
        self.servers.push(v6);
        // A query without a path.
        let query = Server::answering(self.node, [127, 0, 0, 1].into(), |stream, head| {
            let answer = if head.starts_with("GET /?a=b HTTP/1.1\r\n") { "200 OK" } else { "404 No" };
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        })?;
        let url = format!("http://{}?a=b", query.address);
        self.cases.push(Case::new("query", "http", json!({"url": url}), Ok(())));
        self.servers.push(query);
        Ok(())
    }

    fn nowhere(&mut self) {
        let at = |ip: &str| json!({"url": format!("http://{ip}:80/")});
        for (name, ip, why) in [
            ("refused", "127.0.0.1", "cannot connect to 127.0.0.1:80: Connection refused"),
            ("no-neighbour", "10.0.0.77", "connecting to 10.0.0.77:80|No route to host"),
            ("no-route", "192.0.2.1", "Network is unreachable"),
            ("unreachable", "198.51.100.1", "No route to host"),
            ("prohibited", "198.51.100.2", "Permission denied"),
            ("blackhole", "198.51.100.3", "Invalid argument"),
        ] {
            self.cases.push(Case::new(name, "http", at(ip), Err(why)));
        }
    }
}

#[test]
fn http_and_tcp_probes_are_up_and_down_as_their_servers_are() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).build()?;
    let node = lab.node(1);
    node.ip("route add unreachable 198.51.100.1")?;
    node.ip("route add prohibit 198.51.100.2")?;
    node.ip("route add blackhole 198.51.100.3")?;
    let mut table = Table { node, servers: Vec::new(), cases: Vec::new() };
    table.hung()?;
    table.bodies()?;
    table.ends()?;
    table.dialects()?;
    table.hosts()?;
    table.nowhere();
    let agent = hold(&lab, &table.cases)?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.process().pid()))?.count();
    println!(
        "{} probes: {} KiB resident, {open} open files",
        table.cases.len(),
        agent.process().resident_kib()?
    );
    Ok(())
}
