//! A client that says exactly what a test wants it to.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vip_lab::agent::Agent;
use vip_lab::{Lab, Node};

use crate::agents::{SOON, VIPS, agent};

/// Where an agent listens unless it is told otherwise.
pub(crate) const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9870);

/// A node alone, and its agent, which owns.
pub(crate) fn alone() -> Result<(Lab, Agent)> {
    let lab = Lab::builder().nodes(1).clients(1).vips(VIPS).build()?;
    let agent = agent(&lab, 1).start()?;
    agent.wait_state("active", SOON)?;
    Ok((lab, agent))
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines below the status, in lower case.
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Connects to the API of a node.
pub(crate) fn connect(node: &Node, to: SocketAddr) -> Result<TcpStream> {
    let stream = node.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)));
    let stream = stream.with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

/// Sends these bytes and reads all that comes back.
pub(crate) fn exchange(node: &Node, request: &str) -> Result<Answer> {
    let mut stream = connect(node, API)?;
    stream.write_all(request.as_bytes())?;
    read(&mut stream)
}

/// Asks for a path, with more header lines if need be (each with its line end).
pub(crate) fn get_with(node: &Node, path: &str, headers: &str) -> Result<Answer> {
    exchange(node, &format!("GET {path} HTTP/1.1\r\nHost: node\r\n{headers}\r\n"))
}

/// Asks for a path.
pub(crate) fn get(node: &Node, path: &str) -> Result<Answer> {
    get_with(node, path, "")
}

/// Asks until the answer has this status.
pub(crate) fn wait_status(node: &Node, path: &str, status: u16) -> Result<Answer> {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = get(node, path);
        match &answer {
            Ok(answer) if answer.status == status => {}
            _ if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            _ => anyhow::bail!("{path} is not {status}: {answer:?}"),
        }
        return answer;
    }
}

/// Reads an answer to the end of the connection.
pub(crate) fn read(stream: &mut impl Read) -> Result<Answer> {
    let mut text = Vec::new();
    if let Err(error) = stream.read_to_end(&mut text) {
        // A server that refuses what it has not read to the end resets the connection behind its answer.
        ensure!(error.kind() == io::ErrorKind::ConnectionReset, "{error}");
    }
    let text = String::from_utf8(text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.with_context(|| format!("no status: {first:?}"))?,
        headers: headers.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// An event stream.
pub(crate) struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Opens one, and waits for its greeting; more header lines if need be.
    pub(crate) fn open(node: &Node, headers: &str) -> Result<Self> {
        let mut stream = connect(node, API)?;
        let request =
            format!("GET /events HTTP/1.1\r\nHost: node\r\nAccept: text/event-stream\r\n{headers}\r\n");
        stream.write_all(request.as_bytes())?;
        let mut this = Self(BufReader::new(stream));
        let first = this.line()?.context("no answer")?;
        ensure!(first.contains(" 200 "), "{first}");
        this.wait_line(": viplane events")?;
        Ok(this)
    }

    /// The next line; none at the end of the stream.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let read = match self.0.read_line(&mut line) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        Ok((read > 0).then(|| line.trim_end().to_owned()))
    }

    /// Reads up to a line that holds `text`.
    pub(crate) fn wait_line(&mut self, text: &str) -> Result<String> {
        let mut seen = Vec::new();
        while let Some(line) = self.line()? {
            if line.contains(text) {
                return Ok(line);
            }
            seen.push(line);
        }
        anyhow::bail!("the stream ended without {text:?}: {seen:#?}")
    }

    /// The next event of this name: its id and data.
    pub(crate) fn event(&mut self, name: &str) -> Result<(String, serde_json::Value)> {
        loop {
            let id = self.wait_line("id: ")?;
            let event = self.line()?.context("an id alone")?;
            let data = self.line()?.context("no data")?;
            if event == format!("event: {name}") {
                let data = data.strip_prefix("data: ").with_context(|| format!("no data: {data}"))?;
                return Ok((id.trim_start_matches("id: ").to_owned(), serde_json::from_str(data)?));
            }
        }
    }
}

/// The value of one sample of a text of metrics.
pub(crate) fn value(metrics: &str, sample: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.with_context(|| format!("no {sample} in {metrics}"))?;
    Ok(value.trim().parse()?)
}
