//! `mode: proxy` between real hosts: nginx believes the PROXY header, a Backup is ready before it owns, and what moves is served.

#[path = "support/agents.rs"]
mod agents;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Duration;

use agents::{Ask as _, agent, pair};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vip_agent::proxy::{HeaderVersion, Limits, PortMap, Proxy, ProxyBackend, ProxyService};
use vip_lab::{Lab, Node, Process, wait};

const SOON: Duration = Duration::from_secs(15);
const VIP: &str = "10.0.0.50";
const VIP6: &str = "fd00::50";

/// nginx on a node, which tells every client who it is said to be and who answers.
fn nginx(node: &Node) -> Result<Process> {
    let files = node.file_path("nginx-files").display().to_string();
    node.command("mkdir").arg(&files).read()?;
    node.command("truncate").args(["-s", "900K", &format!("{files}/slow")]).read()?;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {files}/{kind};"))
        .join(" ");
    let config = format!(
        "daemon off; user root; pid {files}/pid; error_log stderr; events {{}}\nhttp {{ access_log off; {temporary}\n\
         server {{ listen 8080 proxy_protocol; listen [::]:8080 proxy_protocol;\n\
         location /slow {{ limit_rate 300k; root {files}; }}\n\
         location / {{ return 200 '$proxy_protocol_addr $proxy_protocol_server_addr {}'; }} }} }}\n",
        node.name()
    );
    let path = node.file_path("nginx.conf");
    node.write_file(&path, config)?;
    let path = path.display().to_string();
    let nginx = node.command("nginx").args(["-p", &files, "-c", &path]).spawn("nginx")?;
    let listening = SocketAddr::new(node.ipv4().into(), 8080);
    wait::until(SOON, || node.run(move || TcpStream::connect(listening).is_ok())).context("nginx listens")?;
    Ok(nginx)
}

/// A proxy inside of a node, for both VIPs.
fn proxy(node: &Node, header: HeaderVersion, backends: &[IpAddr]) -> Result<Proxy> {
    let port = |port| NonZeroU16::new(port).context("a port");
    let ports = vec![PortMap { port: port(80)?, target: port(8080)? }];
    let backends: Vec<_> =
        backends.iter().map(|&address| ProxyBackend { address, weight: 1, up: true }).collect();
    let service = |name: &str, vip: &str| -> Result<ProxyService> {
        Ok(ProxyService {
            name: name.to_owned(),
            vip: vip.parse()?,
            ports: ports.clone(),
            backends: backends.clone(),
            header: Some(header),
            affinity: None,
            source_ranges: Vec::new(),
            grace: Duration::from_secs(5),
            limits: Limits::default(),
        })
    };
    let services = vec![service("web", VIP)?, service("web6", VIP6)?];
    // Its threads stay where it is started.
    node.run(move || {
        let mut proxy = Proxy::default();
        proxy.serve(services)?;
        Ok(proxy)
    })
}

fn own(node: &Node) -> Result<()> {
    node.ip(&format!("address add {VIP}/32 dev lo"))?;
    node.ip(&format!("address add {VIP6}/128 dev lo nodad"))?;
    // The kernel answers no solicitations for what is on lo.
    node.ip(&format!("address add {VIP6}/128 dev eth0 nodad")).map(drop)
}

fn lose(node: &Node) -> Result<()> {
    node.ip(&format!("address del {VIP}/32 dev lo"))?;
    node.ip(&format!("address del {VIP6}/128 dev lo"))?;
    node.ip(&format!("address del {VIP6}/128 dev eth0")).map(drop)
}

fn connect(node: &Node, vip: &str) -> Result<TcpStream> {
    let vip = SocketAddr::new(vip.parse()?, 80);
    let stream = node.run(move || TcpStream::connect_timeout(&vip, Duration::from_secs(5)))?;
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

/// The body that a node gets from a VIP.
fn get(node: &Node, vip: &str) -> Result<String> {
    let mut stream = connect(node, vip)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    Ok(body.to_owned())
}

#[test]
fn nginx_learns_the_client_by_either_version_and_family_from_backends_of_either() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(1).vips([VIP, VIP6]).build()?;
    let _nginx = nginx(lab.node(2))?;
    own(lab.node(1))?;
    let client = lab.client();
    for header in [HeaderVersion::V1, HeaderVersion::V2] {
        for backend in [IpAddr::from(lab.node(2).ipv4()), lab.node(2).ipv6().into()] {
            let _proxy = proxy(lab.node(1), header, &[backend])?;
            wait::until(SOON, || get(client, VIP6).is_ok())?;
            assert_eq!(
                get(client, VIP)?,
                format!("{} {VIP} node2", client.ipv4()),
                "{header:?} to {backend}"
            );
            assert_eq!(
                get(client, VIP6)?,
                format!("{} {VIP6} node2", client.ipv6()),
                "{header:?} to {backend}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_backup_is_ready_before_it_owns_and_meanwhile_a_client_like_others() -> Result<()> {
    let lab = Lab::builder().nodes(4).clients(1).vips([VIP, VIP6]).build()?;
    let _servers = [nginx(lab.node(3))?, nginx(lab.node(4))?];
    let backends = [IpAddr::from(lab.node(3).ipv4()), lab.node(4).ipv4().into()];
    let (first, second) = (lab.node(1), lab.node(2));
    own(first)?;
    let former = proxy(first, HeaderVersion::V2, &backends)?;
    let heir = proxy(second, HeaderVersion::V2, &backends)?;
    wait::until(SOON, || get(lab.client(), VIP).is_ok() && get(lab.client(), VIP6).is_ok())?;
    ensure!(heir.troubles().is_empty(), "{:?}", heir.troubles());

    let of_backup = get(second, VIP)?;
    ensure!(of_backup.starts_with(&format!("{} {VIP}", second.ipv4())), "{of_backup}");
    ensure!(
        heir.counts().iter().all(|counts| counts.new_flows == 0),
        "it reached itself: {:?}",
        heir.counts()
    );

    let new = |proxy: &Proxy| proxy.counts().iter().map(|counts| counts.new_flows).sum::<u64>();
    lose(first)?;
    own(second)?;
    for node in [first, second, lab.client()] {
        // As the new owner's announcements would.
        node.ip("neighbour flush dev eth0")?;
    }
    let before = new(&former);
    wait::until(SOON, || get(lab.client(), VIP).is_ok() && get(lab.client(), VIP6).is_ok())?;
    ensure!(new(&heir) > 0 && new(&former) == before, "the heir serves what comes now");
    let served: u64 = heir.counts().iter().flat_map(|counts| counts.backends.values()).map(|b| b.sent).sum();
    ensure!(served > 0, "{:?}", heir.counts());
    Ok(())
}

#[test]
fn agents_pass_connections_on_and_the_former_owner_sees_its_own_through() -> Result<()> {
    let lab = Lab::builder().nodes(4).clients(1).vips([VIP, VIP6]).build()?;
    let _servers = [nginx(lab.node(3))?, nginx(lab.node(4))?];
    let service = |name: &str, vip: &str| {
        json!({
            "name": name, "vip": vip, "mode": "proxy", "proxy_protocol": "v2",
            "ports": [{"port": 80, "target": 8080, "protocol": "tcp"}],
            "backends": [{"address": lab.node(3).ipv4()}, {"address": lab.node(4).ipv4()}],
        })
    };
    let services = json!([service("web", VIP), service("web6", VIP6)]);
    let with = |number| agent(&lab, number).set("services", services.clone()).grace(Duration::from_secs(10));
    let [first, _second] = pair(with(1), with(2))?;
    let client = lab.client();
    wait::until(SOON, || get(client, VIP).is_ok() && get(client, VIP6).is_ok())?;
    ensure!(get(client, VIP)?.starts_with(&format!("{} {VIP} node", client.ipv4())));
    ensure!(get(client, VIP6)?.starts_with(&format!("{} {VIP6} node", client.ipv6())));
    first.wait_for("counted", |status| status["services"][0]["new_flows"].as_u64() > Some(0))?;

    // 3 s long, begun before the VIPs move.
    let mut under_way = connect(client, VIP)?;
    under_way.write_all(b"GET /slow HTTP/1.0\r\n\r\n")?;
    under_way.read_exact(&mut [0; 1])?;
    first.drain()?;
    ensure!(get(client, VIP)?.starts_with(&format!("{} {VIP} node", client.ipv4())), "the heir serves");
    let mut rest = Vec::new();
    under_way.read_to_end(&mut rest)?;
    ensure!(rest.len() > 900 << 10, "only {} bytes came after the move", rest.len());
    Ok(())
}
