//! What the end-to-end tests share: the binary, pairs of agents, waiting, commands.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use vip_lab::agent::{Agent, AgentBuilder, InstanceStatus};
use vip_lab::{Lab, LabBuilder, Mac, Node, WEB_PORT};

/// One VIP of each family: the instances of most tests.
pub const VIPS: [&str; 2] = ["10.0.0.50", "fd00::50"];
/// Longer than anything but a grace time takes, even on a machine with much else to do.
pub const SOON: Duration = Duration::from_secs(15);

/// 256 VIPs for one instance: as many of IPv6 as an advert has room for, rounded.
pub fn vips_256() -> impl Iterator<Item = String> {
    let ipv4 = (0..176).map(|n| format!("10.0.1.{n}"));
    ipv4.chain((0..80).map(|n| format!("fd00::1:{n:x}")))
}

/// The `vip-agent` of this build.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vip-agent"))
}

/// The `vip-kube` beside it, which cargo builds for the tests of its own package.
pub fn vip_kube() -> Result<()> {
    let program = binary().with_file_name("vip-kube");
    ensure!(program.is_file(), "there is no {}: run `cargo build --package vip-kube`", program.display());
    Ok(())
}

/// `many` with `cargo xtask test --full`, else `few`.
pub fn times(few: usize, many: usize) -> usize {
    if std::env::var_os("VIPLANE_FULL").is_some() { many } else { few }
}

/// A whole number of milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Two nodes with web servers behind [`VIPS`], and a client.
pub fn lab() -> LabBuilder {
    Lab::builder().nodes(2).clients(1).vips(VIPS).web()
}

/// An agent of the lab: 100 ms adverts, priority 200 on node 1, 190 on node 2 and so on.
pub fn agent(lab: &Lab, number: usize) -> AgentBuilder {
    let priority = 210 - 10 * u8::try_from(number).expect("a lab has few nodes");
    lab.agent(number, binary()).priority(priority).interval(ms(100))
}

/// Node 1 owns, node 2 watches.
pub fn pair(first: AgentBuilder, second: AgentBuilder) -> Result<[Agent; 2]> {
    let first = first.start()?;
    first.wait_state("active", SOON)?;
    let second = second.start()?;
    second.wait_state("backup", SOON)?;
    Ok([first, second])
}

/// What became of a command.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

/// Asks things of an agent beyond what the lab does.
pub trait Ask {
    /// Runs a command of the binary on the agent's node.
    fn say(&self, arguments: &[&str]) -> Result<Said>;
    /// The first instance.
    fn edge(&self) -> Result<InstanceStatus>;
    /// The first instance as JSON.
    fn edge_json(&self) -> Result<Value>;
    /// Waits until an instance is as `wanted`.
    fn wait_for(&self, what: &str, wanted: impl FnMut(&Value) -> bool) -> Result<Value>;
}

impl Ask for Agent {
    fn say(&self, arguments: &[&str]) -> Result<Said> {
        say(&self.builder(), arguments)
    }

    fn edge(&self) -> Result<InstanceStatus> {
        self.status()?.instances.into_iter().next().context("an agent without instances")
    }

    fn edge_json(&self) -> Result<Value> {
        Ok(self.status()?.raw["instances"][0].clone())
    }

    /// Waits until the whole status is as `wanted`, asking every 20 ms.
    fn wait_for(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.status();
            match &status {
                Ok(now) if wanted(&now.raw) => return Ok(now.raw.clone()),
                _ if Instant::now() > deadline || !self.process().is_running() => {
                    bail!("{}: not {what}: {status:#?}\n{}", self.node().name(), self.log());
                }
                _ => std::thread::sleep(ms(20)),
            }
        }
    }
}

/// Runs a command of the binary where an agent runs, or would run.
pub fn say(builder: &AgentBuilder, arguments: &[&str]) -> Result<Said> {
    let begun = Instant::now();
    let output = builder.command(arguments).output()?;
    Ok(Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
        took: begun.elapsed(),
    })
}

impl Said {
    /// Whatever it said.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Exit code 0.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.code == Some(0), "{self:?}");
        Ok(self)
    }
}

/// Whether an address is on lo of the agent's node.
pub fn is_on_lo(agent: &Agent, address: &str) -> Result<bool> {
    let listed = agent.node().ip("-o address show dev lo")?;
    Ok(listed.split_whitespace().any(|word| word.split('/').next() == Some(address)))
}

/// The link-layer address that a node has in its neighbour cache.
pub fn neighbor(node: &Node, address: &str) -> Result<Option<Mac>> {
    let listed = node.ip(&format!("neighbour show {address}"))?;
    let mut words = listed.split_whitespace().skip_while(|word| *word != "lladdr");
    words.nth(1).map(str::parse).transpose()
}

/// An HTTP connection that stays open.
#[derive(Debug)]
pub struct Conversation(TcpStream);

impl Conversation {
    /// Connects to the web server behind a VIP.
    pub fn open(client: &Node, vip: &str) -> Result<Self> {
        let target = SocketAddr::new(vip.parse::<IpAddr>()?, WEB_PORT);
        let stream = client.run(move || TcpStream::connect_timeout(&target, Duration::from_secs(5)));
        let stream = stream.with_context(|| format!("connect to {target}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(stream))
    }

    /// Connects from a port of one's own choice.
    pub fn open_from(client: &Node, port: u16, vip: &str) -> Result<Self> {
        let target = SocketAddr::new(vip.parse::<IpAddr>()?, WEB_PORT);
        let stream = client.run(move || -> Result<TcpStream> {
            let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(any, port).into())?;
            socket.connect_timeout(&target.into(), Duration::from_secs(5))?;
            Ok(socket.into())
        });
        let stream = stream.with_context(|| format!("connect from port {port} to {target}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(stream))
    }

    /// Asks who is there, and has the server end the connection: its side stays in TIME_WAIT.
    pub fn ask_and_end(mut self) -> Result<String> {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        self.0.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
        Ok(body.to_owned())
    }

    /// Asks who is there: the node's name.
    pub fn ask(&mut self) -> Result<String> {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && !body.is_empty()
            {
                return Ok(body.to_owned());
            }
            let mut chunk = [0; 1024];
            match self.0.read(&mut chunk)? {
                0 => bail!("the connection ended"),
                read => answer.extend_from_slice(&chunk[..read]),
            }
        }
    }
}
