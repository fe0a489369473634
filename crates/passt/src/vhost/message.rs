//! The messages of vhost-user that set up one network device, as QEMU's `docs/interop/vhost-user.rst`
//! has them: 12 bytes of header and a payload, both in the machine's byte order, and descriptors by
//! `SCM_RIGHTS`.
//!
//! Written here because it is little: the `vhost` crate brings four others for the same, and waits for
//! answers without a deadline.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::wire::Lost;

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A request, by its number. In the protocol's older words, the driver is the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    SetVringKick = 12,
    SetVringCall = 13,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    SetVringEnable = 18,
}

/// The socket during the handshake: it waits, but not longer than until the deadline.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
    /// The peer confirms requests that ask for it.
    pub(super) confirms: bool,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(socket: &'a UnixStream, deadline: Instant) -> Self {
        Conversation { socket, deadline, confirms: false }
    }

    /// Asks for a number.
    pub(super) fn ask(&mut self, request: Request) -> Result<u64, Lost> {
        self.write(request, 0, &[], None)?;
        self.reply(request)
    }

    /// Says something; the payload is numbers in the machine's order.
    pub(super) fn tell(
        &mut self,
        request: Request,
        payload: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), Lost> {
        if !self.confirms {
            return self.write(request, 0, payload, fd);
        }
        self.write(request, NEED_REPLY, payload, fd)?;
        match self.reply(request)? {
            0 => Ok(()),
            code => Err(Lost::Protocol(format!("{request:?} failed with {code}").into())),
        }
    }

    fn write(
        &mut self,
        request: Request,
        flags: u32,
        payload: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), Lost> {
        let doing = "speak vhost-user";
        let wait = self.left(doing)?;
        self.socket.set_write_timeout(Some(wait)).map_err(|source| Lost::Io { doing, source })?;
        let mut message = Vec::with_capacity(12 + payload.len());
        for word in [request as u32, VERSION | flags, payload.len() as u32] {
            message.extend(word.to_ne_bytes());
        }
        message.extend(payload);
        let fds = fd.map(|fd| [fd.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        // A socket that takes less than one short message is one that nobody reads.
        let (pieces, control) = ([IoSlice::new(&message)], rights.as_slice());
        match sendmsg::<()>(self.socket.as_raw_fd(), &pieces, control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(len) if len == message.len() => Ok(()),
            Ok(_) => Err(Lost::Protocol("it does not read its socket".into())),
            Err(error) => Err(lost(doing, error.into())),
        }
    }

    fn reply(&mut self, request: Request) -> Result<u64, Lost> {
        let mut message = [0; 20];
        self.read(&mut message)?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| message[at + i]));
        let expected = (request as u32, VERSION | REPLY, 8);
        // Some set bits that mean nothing in a reply.
        let header = (word(0), word(4) & (0b11 | REPLY), word(8));
        if header != expected {
            return Err(Lost::Protocol(format!("{header:?} for an answer to {request:?}").into()));
        }
        Ok(u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| message[12 + i])))
    }

    fn read(&mut self, mut into: &mut [u8]) -> Result<(), Lost> {
        let doing = "hear an answer over vhost-user";
        while !into.is_empty() {
            let wait = self.left(doing)?;
            self.socket.set_read_timeout(Some(wait)).map_err(|source| Lost::Io { doing, source })?;
            let mut socket = self.socket;
            match socket.read(into) {
                Ok(0) => return Err(Lost::Closed),
                Ok(len) => into = &mut into[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(doing, error)),
            }
        }
        Ok(())
    }

    fn left(&self, doing: &'static str) -> Result<std::time::Duration, Lost> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A socket's time-out of zero is none.
        if left.as_micros() == 0 { Err(late(doing)) } else { Ok(left) }
    }
}

fn lost(doing: &'static str, source: io::Error) -> Lost {
    match source.kind() {
        io::ErrorKind::WouldBlock => late(doing),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Lost::Closed,
        _ => Lost::Io { doing, source },
    }
}

fn late(doing: &'static str) -> Lost {
    Lost::Io { doing, source: io::ErrorKind::TimedOut.into() }
}
