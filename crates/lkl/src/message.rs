//! What sockets send and receive.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;

use crate::{Kernel, Name, Socket};

/// A message to send, as sendmsg(2) takes it. What is empty is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// The bytes, in at most 1024 pieces.
    pub data: &'a [IoSlice<'a>],
    /// Where to: a `struct sockaddr_*` of the socket's family, 2 to 128 bytes.
    pub to: &'a [u8],
    /// Control messages, as cmsg(3) lays them out.
    pub control: &'a [u8],
}

/// Room for a message, as recvmsg(2) takes it. What is empty is not wanted.
#[derive(Debug, Default)]
pub struct MessageRoom<'a, 'b> {
    /// For the bytes, in at most 1024 pieces.
    pub data: &'a mut [IoSliceMut<'b>],
    /// For the sender's address: 128 bytes are enough for all.
    pub from: &'a mut [u8],
    /// For control messages, as cmsg(3) lays them out.
    pub control: &'a mut [u8],
}

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of data. With `MSG_TRUNC` asked for, of the whole datagram: maybe more than there was
    /// room for.
    pub data: usize,
    /// Bytes of the whole address: maybe more than there was room for. 0 for a connected stream.
    pub from: usize,
    /// Bytes of control messages.
    pub control: usize,
    /// `MSG_TRUNC`, `MSG_CTRUNC`, `MSG_ERRQUEUE`, `MSG_OOB`…
    pub flags: i32,
}

impl Kernel {
    /// As send(2) with `MSG_NOSIGNAL`.
    ///
    /// # Errors
    /// As send(2): EAGAIN, EPIPE, ECONNRESET…
    pub fn send(&self, s: Socket, data: &[u8]) -> io::Result<usize> {
        self.instance.send(s.0, data, 0)
    }

    /// As [`send`](Self::send), with `MSG_*` flags (`MSG_OOB`, `MSG_MORE`). `MSG_ZEROCOPY` is
    /// ignored: the data is used during the call only.
    ///
    /// # Errors
    /// As send(2).
    pub fn send_with(&self, s: Socket, data: &[u8], flags: i32) -> io::Result<usize> {
        self.instance.send(s.0, data, flags)
    }

    /// As [`send`](Self::send), from several buffers.
    ///
    /// # Errors
    /// As send(2).
    pub fn send_vectored(&self, s: Socket, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_message(s, &Message { data, ..Message::default() }, 0)
    }

    /// As sendto(2).
    ///
    /// # Errors
    /// As sendto(2).
    pub fn send_to(&self, s: Socket, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        let data = &[IoSlice::new(data)];
        self.send_message(s, &Message { data, to: Name::from(to).bytes(), control: &[] }, 0)
    }

    /// As recv(2). 0 at the end of a stream.
    ///
    /// # Errors
    /// As recv(2): EAGAIN, ECONNRESET…
    pub fn recv(&self, s: Socket, into: &mut [u8]) -> io::Result<usize> {
        self.instance.recv(s.0, into, 0)
    }

    /// As [`recv`](Self::recv), with `MSG_*` flags (`MSG_PEEK`, `MSG_OOB`; `MSG_TRUNC` answers a
    /// datagram's whole length).
    ///
    /// # Errors
    /// As recv(2).
    pub fn recv_with(&self, s: Socket, into: &mut [u8], flags: i32) -> io::Result<usize> {
        self.instance.recv(s.0, into, flags)
    }

    /// As [`recv`](Self::recv), into several buffers.
    ///
    /// # Errors
    /// As recv(2).
    pub fn recv_vectored(&self, s: Socket, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut room = MessageRoom { data: into, ..MessageRoom::default() };
        self.receive_message(s, &mut room, 0).map(|got| got.data)
    }

    /// As recvfrom(2).
    ///
    /// # Errors
    /// As recvfrom(2); EAFNOSUPPORT if the sender's address is not an internet address (the
    /// datagram is gone then).
    pub fn recv_from(&self, s: Socket, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut n = 0;
        let from = Name::filled(|from| {
            let data = &mut [IoSliceMut::new(into)];
            let got = self.receive_message(s, &mut MessageRoom { data, from, control: &mut [] }, 0)?;
            n = got.data;
            Ok(got.from)
        })?;
        Ok((n, from.internet()?))
    }

    /// As sendmsg(2), with `MSG_NOSIGNAL`. `MSG_ZEROCOPY` is ignored, as in
    /// [`send_with`](Self::send_with). The control messages ip(7), ipv6(7) and udp(7) know are
    /// taken: all that are plain data.
    ///
    /// # Errors
    /// As sendmsg(2); EINVAL for other control messages, above all `SCM_RIGHTS`, and for an address
    /// that is not 2 to 128 bytes; EMSGSIZE for too many pieces, ENOBUFS for too long control
    /// messages (the sysctl `net/core/optmem_max`).
    pub fn send_message(&self, s: Socket, message: &Message<'_>, flags: i32) -> io::Result<usize> {
        self.instance.send_message(s.0, message, flags)
    }

    /// As recvmsg(2), also for `MSG_ERRQUEUE` and `MSG_PEEK`. No control message that the kernel
    /// gives holds a descriptor.
    ///
    /// # Errors
    /// As recvmsg(2): EAGAIN, ECONNREFUSED…; EMSGSIZE for too many pieces.
    pub fn receive_message(
        &self,
        s: Socket,
        room: &mut MessageRoom<'_, '_>,
        flags: i32,
    ) -> io::Result<Received> {
        self.instance.receive_message(s.0, room, flags)
    }
}
