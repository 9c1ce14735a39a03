//! Listening, and who is let in: until the address changes, and again every few seconds while it cannot be had.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_send_buffer_size, set_tcp_user_timeout};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Shared;
use super::conversation::{Doorman, converse};
use crate::config;

/// Connections at a time. Of more, the one that has been there for longest makes room, event streams excepted: who holds
/// connections open keeps nobody out.
const MOST_CONNECTIONS: usize = 64;

/// How often an address that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// After an error of accept(2), which may be a lack of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// What the kernel keeps of a stream for a reader that does not read.
const SEND_BUFFER: usize = 32 << 10;

/// How long a reader may leave what it was sent unread (milliseconds): the kernel ends the connection then, by TCP_USER_TIMEOUT,
/// which holds for closed windows as well (tcp_probe_timer).
const UNREAD: u32 = 30_000;

/// Serves what is wanted, until nobody can want anything any more.
pub(super) async fn run(mut wishes: watch::Receiver<Option<config::Api>>, shared: Arc<Shared>) {
    loop {
        let wanted = wishes.borrow_and_update().clone();
        let ended = match wanted {
            None => {
                *shared.trouble() = None;
                wishes.changed().await.is_err()
            }
            Some(wanted) => match listen(wanted.listen) {
                Ok(listener) => {
                    *shared.trouble() = None;
                    tracing::info!(listen = %wanted.listen, tls = wanted.tls.is_some(), "the HTTP API listens");
                    accept(&listener, wanted, &mut wishes, &shared).await
                }
                Err(error) => {
                    complain(wanted.listen, &error, &shared);
                    tokio::select! {
                        changed = wishes.changed() => changed.is_err(),
                        () = tokio::time::sleep(RETRY) => false,
                    }
                }
            },
        };
        if ended {
            return;
        }
    }
}

/// Says once what is wrong, not with each attempt.
fn complain(address: SocketAddr, error: &io::Error, shared: &Shared) {
    let why = format!("cannot listen on {address}: {error}");
    let mut trouble = shared.trouble();
    if trouble.as_ref() != Some(&why) {
        tracing::error!(
            "the HTTP API {why}; it is tried again every {} s (`api.listen`; `api: null` does without)",
            RETRY.as_secs()
        );
        *trouble = Some(why);
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // [::] leaves IPv4 to who asks for it.
        socket.set_only_v6(true)?;
    }
    // An agent that comes after one finds connections of that in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Connections inherit both.
    set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    set_tcp_user_timeout(&socket, UNREAD)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Lets connections in until another address is wanted; whether nothing can be wanted any more.
async fn accept(
    listener: &TcpListener,
    wanted: config::Api,
    wishes: &mut watch::Receiver<Option<config::Api>>,
    shared: &Arc<Shared>,
) -> bool {
    let address = wanted.listen;
    let mut doorman = Arc::new(Doorman::new(&wanted));
    let mut guests = Guests::default();
    loop {
        tokio::select! {
            biased;
            changed = wishes.changed() => {
                if changed.is_err() {
                    return true;
                }
                // Left unseen, for the caller, unless it is dealt with here.
                match &*wishes.borrow() {
                    Some(wanted) if wanted.listen == address => doorman = Arc::new(Doorman::new(wanted)),
                    _ => return false,
                }
                wishes.mark_unchanged();
                // Whoever came in by another token or certificate has to come again.
                guests = Guests::default();
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    guests.admit(stream, &doorman, shared);
                    // Whoever comes in a crowd gets a chance to say what it wants before it makes room.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the HTTP API cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
}

/// The connections there are, by age. They end with this.
#[derive(Default)]
struct Guests(Vec<Guest>);

struct Guest {
    task: AbortHandle,
    streams: Arc<AtomicBool>,
}

impl Guests {
    fn admit(&mut self, stream: TcpStream, doorman: &Arc<Doorman>, shared: &Arc<Shared>) {
        self.0.retain(|guest| !guest.task.is_finished());
        if self.0.len() >= MOST_CONNECTIONS {
            let oldest = self.0.iter().position(|guest| !guest.streams.load(Ordering::Relaxed));
            // There are fewer readers than places.
            if let Some(oldest) = oldest {
                self.0.remove(oldest).task.abort();
            }
        }
        let streams = Arc::<AtomicBool>::default();
        let conversation = converse(stream, Arc::clone(doorman), Arc::clone(&streams), Arc::clone(shared));
        self.0.push(Guest { task: tokio::spawn(conversation).abort_handle(), streams });
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.0.iter().for_each(|guest| guest.task.abort());
    }
}
