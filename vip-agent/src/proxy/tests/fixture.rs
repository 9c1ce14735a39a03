//! A service with backends, on loopback addresses that are this test's alone.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::proxy::{BackendCounts, Limits, PortMap, Proxy, ProxyBackend, ProxyService, ServiceCounts};

/// Everything here happens within a moment; what does not, fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Of the VIP.
pub(super) const PORT: u16 = 1080;
/// Of the backends.
pub(super) const TARGET: u16 = 1081;

/// A proxy with one service, `web`.
pub(super) struct Rig {
    pub(super) proxy: Proxy,
    pub(super) service: ProxyService,
    place: u8,
}

impl Rig {
    /// With so many backends, on which nobody listens yet.
    pub(super) fn with(backends: u8) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // The VIP and five backends each.
        let place = u8::try_from(NEXT.fetch_add(6, Ordering::Relaxed)).expect("fewer tests than addresses");
        let port = |port| NonZeroU16::new(port).unwrap();
        let service = ProxyService {
            name: "web".into(),
            vip: address(place),
            ports: vec![PortMap { port: port(PORT), target: port(TARGET) }],
            backends: (1..=backends).map(|number| backend(address(place + number))).collect(),
            header: None,
            affinity: None,
            source_ranges: Vec::new(),
            grace: Duration::from_secs(5),
            limits: Limits::default(),
        };
        Self { proxy: Proxy::default(), service, place }
    }

    /// Changes the service, and serves it.
    pub(super) fn serving(mut self, change: impl FnOnce(&mut ProxyService)) -> Self {
        change(&mut self.service);
        self.serve();
        self
    }

    /// Serves the service as it is now.
    pub(super) fn serve(&mut self) {
        self.proxy.serve(vec![self.service.clone()]).unwrap();
        until("the service is there", || self.proxy.counts().len() == 1);
        if self.proxy.troubles().is_empty() {
            until("somebody listens", || is_listening(self.vip()) || !self.proxy.troubles().is_empty());
        }
    }

    pub(super) fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.service.vip, self.service.ports[0].port.get())
    }

    /// The address of backend `number`, from 1.
    pub(super) fn backend(&self, number: u8) -> SocketAddr {
        SocketAddr::new(address(self.place + number), TARGET)
    }

    /// Listens in the place of backend `number`.
    pub(super) fn listen(&self, number: u8) -> TcpListener {
        TcpListener::bind(self.backend(number)).unwrap()
    }

    /// Has backend `number` echo, each connection in a thread, for as long as the test runs.
    pub(super) fn echo(&self, number: u8) {
        let listener = self.listen(number);
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || echo(stream.unwrap()));
            }
        });
    }

    pub(super) fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.vip()).unwrap())
    }

    /// A client and the backend's end of its connection.
    pub(super) fn connection(&self, backend: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.connect();
        (client, patient(backend.accept().unwrap().0))
    }

    /// This node loses these addresses.
    pub(super) fn cut(&self, vips: &[IpAddr]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.proxy.cut(vips));
    }

    pub(super) fn counts(&self) -> ServiceCounts {
        self.proxy.counts().remove(0)
    }

    pub(super) fn counts_of(&self, number: u8) -> BackendCounts {
        self.counts().backends[&self.backend(number).ip()].clone()
    }

    pub(super) fn failed(&self, reason: &str) -> u64 {
        self.counts().failed.get(reason).copied().unwrap_or_default()
    }

    pub(super) fn broken(&self, reason: &str) -> u64 {
        self.counts().broken.get(reason).copied().unwrap_or_default()
    }
}

pub(super) fn backend(address: IpAddr) -> ProxyBackend {
    ProxyBackend { address, weight: 1, up: true }
}

/// Addresses by process: other tests run on this host at the same time.
fn address(number: u8) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, number).into()
}

/// Whether an address is taken by a listener, without connecting to it, and without taking it: it is not listened on here.
fn is_listening(address: SocketAddr) -> bool {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Waits for something that is about to be so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let latest = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < latest, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A test that waits for bytes that never come fails.
pub(super) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// Says something and hears it back.
pub(super) fn is_echoed(stream: &mut TcpStream) -> bool {
    let mut heard = [0; 4];
    stream.write_all(b"echo").is_ok() && stream.read_exact(&mut heard).is_ok() && heard == *b"echo"
}

/// What is read until the other side has said all.
pub(super) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Says something, and that it is all.
pub(super) fn say_all(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// What is read until the connection is reset.
pub(super) fn read_until_reset(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
        other => panic!("no reset but {other:?} after {} bytes", bytes.len()),
    }
}

/// Closes so that the other side sees a reset.
pub(super) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Runs beside the test.
pub(super) fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(work)
}
