//! The wire to a passt that speaks vhost-user (2025 and newer): frames in memory that both map.
//!
//! passt is started with `--vhost-user` and, as for the stream protocol, `--fd`: it takes the connected
//! socket as the one that a virtual machine's monitor would have connected to, and exits when that
//! closes, so it dies with us. (By `--socket` it would listen, and leave that path and one with the
//! suffix `.repair` behind.)
//!
//! One virtio network device with one pair of queues. We are the driver: all memory is ours, one sealed
//! memfd with both rings and all buffers ([`plan`]). passt reads frames to send from it ([`transmit`])
//! and writes those that arrive into it ([`receive`]). By a kick it hears of our changes, by a call we
//! of its ([`bell`]); we want none while we look by ourselves.
//!
//! # Checksums
//! passt does not look at the checksums of TCP and UDP that it is given. Those of what it gives it
//! computes, unless `VIRTIO_NET_F_GUEST_CSUM` is agreed: and it is, since every link of this crate is
//! [`trusted`](netshunt_backend::Network::trusted).

mod bell;
#[cfg(test)]
mod device;
#[cfg(test)]
mod fuzz;
mod message;
mod plan;
mod receive;
mod ring;
mod sys;
#[cfg(test)]
mod tests;
mod transmit;

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use libc::{POLLIN, POLLOUT};
use netshunt_backend::{PollFd, Sent};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tracing::debug;

use self::bell::{Button, Ear, bell};
use self::message::{Conversation, Request};
use self::plan::{BASE, Plan, Sizes};
use self::receive::{Broken, Receive};
use self::ring::Layout;
use self::sys::Memory;
use self::transmit::Transmit;
use crate::wire::{Lost, Wire};

/// `VIRTIO_NET_F_GUEST_CSUM`: frames may come without checksums.
const GUEST_CSUM: u64 = 1 << 1;
/// `VIRTIO_NET_F_MRG_RXBUF`: a received frame may be in several buffers.
const MRG_RXBUF: u64 = 1 << 15;
/// `VHOST_USER_F_PROTOCOL_FEATURES`: there are protocol features.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VIRTIO_F_VERSION_1`: little-endian rings, and one form of the header.
const VERSION_1: u64 = 1 << 32;
/// What must be offered, and is all that we take.
const FEATURES: u64 = GUEST_CSUM | MRG_RXBUF | PROTOCOL_FEATURES | VERSION_1;
/// `VHOST_USER_PROTOCOL_F_REPLY_ACK`, among the protocol features.
const REPLY_ACK: u64 = 1 << 3;

/// The queues' numbers, as the driver sees them.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// A wire over shared memory.
pub(crate) struct VhostWire {
    socket: UnixStream,
    receive: Receive,
    transmit: Transmit,
    receive_kick: Button,
    transmit_kick: Button,
    call: Ear,
    /// Found when no error could be returned.
    lost: Option<Broken>,
}

impl VhostWire {
    /// Agrees with the passt at the socket's other end. Waits for it, until the deadline.
    ///
    /// # Errors
    /// [`Lost`]: it is gone, late, or no passt with vhost-user.
    pub(crate) fn connect(socket: UnixStream, deadline: Instant) -> Result<VhostWire, Lost> {
        Self::with(socket, deadline, Sizes::default())
    }

    fn with(socket: UnixStream, deadline: Instant, sizes: Sizes) -> Result<VhostWire, Lost> {
        let plan = Plan::new(sizes);
        let memory = Memory::new(plan.bytes).map_err(failed("make shared memory"))?;
        let memory = Arc::new(memory);
        let bell = || bell().map_err(failed("make a pipe"));
        let [(receive_kick, receive_ear), (transmit_kick, transmit_ear)] = [bell()?, bell()?];
        let (button, call) = bell()?;
        let queues =
            [(RECEIVE, plan.receive_ring, receive_ear), (TRANSMIT, plan.transmit_ring, transmit_ear)];
        // The rings are ready before the peer sees them.
        let receive = Receive::new(memory.clone(), &plan);
        let transmit = Transmit::new(memory.clone(), &plan);
        let mut peer = Conversation::new(&socket, deadline);
        agree(&mut peer)?;
        // One region: our number for it is the same as the guest's, and says nothing about where we
        // have mapped it.
        let region = [1, BASE, memory.len() as u64, BASE, 0];
        peer.tell(Request::SetMemTable, &numbers(region), Some(memory.fd()))?;
        for (queue, layout, kick) in queues {
            start(&mut peer, queue, layout, kick.as_fd(), button.as_fd())?;
        }
        socket.set_nonblocking(true).map_err(failed("set up the socket"))?;
        debug!(bytes = memory.len(), "vhost-user: agreed");
        Ok(VhostWire { socket, receive, transmit, receive_kick, transmit_kick, call, lost: None })
    }

    /// passt never speaks first: only the end of its socket can be there to read.
    fn listen(&self) -> Result<(), Lost> {
        match recv(self.socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => Err(Lost::Closed),
            Ok(_) => Err(Lost::Protocol("a message where none was asked for".into())),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(failed("read its socket")(error.into())),
        }
    }
}

impl fmt::Debug for VhostWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (receive, transmit) = (self.receive.held(), self.transmit.held());
        write!(f, "VhostWire {{ to receive into: {receive} buffers, to send: {transmit}, .. }}")
    }
}

impl Wire for VhostWire {
    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent {
        // Of a broken ring the next turn tells; until then there is no room.
        self.transmit.send(frame).unwrap_or_else(|error| {
            self.lost = Some(error.into());
            Sent::Busy
        })
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<bool, Lost> {
        self.transmit.reclaim().map_err(broken)?;
        if self.transmit.flush(false) {
            self.transmit_kick.ring();
        }
        let any = self.receive.receive(deliver).map_err(broken)?;
        if self.receive.flush() {
            self.receive_kick.ring();
        }
        Ok(any)
    }

    fn interests(&mut self, fds: &mut Vec<PollFd>) -> Option<Duration> {
        if self.transmit.flush(true) {
            self.transmit_kick.ring();
        }
        let ready = self.receive.sleep().and_then(|frames| Ok(self.transmit.sleep()? || frames));
        let ready = ready.unwrap_or_else(|error| {
            self.lost = Some(error);
            true
        });
        // Nothing is ever sent on the socket now, so it can be written: poll(2) returns at once.
        let events = if ready { POLLIN | POLLOUT } else { POLLIN };
        fds.push(PollFd { fd: self.call.as_fd().as_raw_fd(), events: POLLIN, revents: 0 });
        fds.push(PollFd { fd: self.socket.as_raw_fd(), events, revents: 0 });
        None
    }

    fn unsent(&mut self) -> u64 {
        if let Err(error) = self.transmit.reclaim() {
            self.lost = Some(error.into());
            return 0;
        }
        if self.transmit.flush(true) {
            self.transmit_kick.ring();
        }
        self.transmit.held().into()
    }

    fn turn(&mut self, fds: &[PollFd]) -> Result<(), Lost> {
        self.receive.wake();
        self.transmit.wake();
        if let Some(error) = self.lost.take() {
            return Err(broken(error));
        }
        let [call, socket] = fds else { return Ok(()) };
        if call.revents & POLLIN != 0 {
            self.call.hear();
        }
        if socket.revents & !POLLOUT != 0 {
            self.listen()?;
        }
        self.transmit.reclaim().map_err(broken)
    }
}

/// Agrees on the features.
fn agree(peer: &mut Conversation<'_>) -> Result<(), Lost> {
    let offered = peer.ask(Request::GetFeatures)?;
    if offered & FEATURES != FEATURES {
        return Err(Lost::Protocol(format!("it offers {offered:#x} of the features {FEATURES:#x}").into()));
    }
    let confirmation = peer.ask(Request::GetProtocolFeatures)? & REPLY_ACK;
    peer.tell(Request::SetProtocolFeatures, &confirmation.to_ne_bytes(), None)?;
    peer.confirms = confirmation != 0;
    peer.tell(Request::SetOwner, &[], None)?;
    peer.tell(Request::SetFeatures, &FEATURES.to_ne_bytes(), None)
}

/// Tells the peer all about one queue, and starts it.
fn start(
    peer: &mut Conversation<'_>,
    queue: u32,
    layout: Layout,
    kick: BorrowedFd<'_>,
    call: BorrowedFd<'_>,
) -> Result<(), Lost> {
    let state = |value: u32| [queue.to_ne_bytes(), value.to_ne_bytes()].concat();
    let number = u64::from(queue).to_ne_bytes();
    peer.tell(Request::SetVringNum, &state(layout.size.into()), None)?;
    peer.tell(Request::SetVringBase, &state(0), None)?;
    let [descriptors, used, available] =
        [layout.descriptors, layout.used, layout.available].map(|offset| BASE + offset as u64);
    // No flags, and no log.
    let mut address = state(0);
    address.extend(numbers([descriptors, used, available, 0]));
    peer.tell(Request::SetVringAddr, &address, None)?;
    peer.tell(Request::SetVringCall, &number, Some(call))?;
    peer.tell(Request::SetVringKick, &number, Some(kick))?;
    peer.tell(Request::SetVringEnable, &state(1), None)
}

fn numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn broken(error: impl Into<Broken>) -> Lost {
    Lost::Protocol(error.into().to_string().into())
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Lost {
    move |source| Lost::Io { doing, source }
}
