//! Sending announcements: prebuilt frames in batches, past the IP stack.

use std::io;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, Socket, Type};

use super::{Interface, OpenError, link_address, set_control_priority};
use crate::dataplane::announce::Frame;

/// Frames per system call: its cost is spread thin, and the headers (10 KiB) fit the stack. The kernel takes 1024.
const BATCH: usize = 128;

/// Sends frames out of one interface. It never receives.
#[derive(Debug)]
pub struct AnnounceSender {
    socket: Socket,
}

impl AnnounceSender {
    /// Opens the socket.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or no such interface.
    pub fn open(interface: &Interface) -> Result<Self, OpenError> {
        let open = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            set_control_priority(&socket)?;
            // Protocol 0: nothing is ever queued to it. The kernel reads each frame's own from its header (5.1).
            socket.bind(&link_address(interface, 0)?)?;
            Ok(socket)
        };
        let socket =
            open().map_err(OpenError::new("open the packet socket that announces VIPs", interface))?;
        Ok(Self { socket })
    }

    /// Sends the frames in order and returns how many went out: all, but for those that a full queue refused
    /// (announcements are repeated, so they are not tried again).
    ///
    /// # Errors
    /// Any other refusal, such as ENETDOWN or ENXIO; the frames from there on are not sent.
    pub fn send(&self, frames: &[Frame]) -> io::Result<usize> {
        let mut rest = frames;
        let mut sent = 0;
        while !rest.is_empty() {
            match self.send_batch(&rest[..rest.len().min(BATCH)]) {
                Ok(count) => {
                    sent += count;
                    rest = &rest[count..];
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS | Errno::AGAIN) => rest = &rest[1..],
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(sent)
    }

    /// One sendmmsg(2): the number that went out before the first refusal, or the refusal if it was the first.
    fn send_batch(&self, frames: &[Frame]) -> rustix::io::Result<usize> {
        let slices: ArrayVec<[IoSlice<'_>; 1], BATCH> =
            frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut messages: ArrayVec<MMsgHdr<'_>, BATCH> =
            slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control)).collect();
        sendmmsg(&self.socket, &mut messages, SendFlags::DONTWAIT)
    }
}
