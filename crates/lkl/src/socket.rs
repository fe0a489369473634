//! Non-blocking sockets inside the kernel.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};

use crate::Kernel;
use crate::address::{Encoded, ROOM, decode};
use crate::sys;

/// A socket of one [`Kernel`]: a checked handle. After [`Kernel::close`], and in another kernel, it
/// answers EBADF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket(u64);

/// Something happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number that was given with the socket.
    pub cookie: u64,
    /// `EPOLL*` bits, as edges: try the I/O before waiting for one.
    pub mask: u32,
}

impl Kernel {
    /// Makes a socket, as socket(2) does; `kind` without flags. `cookie` comes back in its events.
    ///
    /// # Errors
    /// As socket(2), and ENOMEM.
    pub fn socket(&self, domain: i32, kind: i32, protocol: i32, cookie: u64) -> io::Result<Socket> {
        self.instance.socket(domain, kind, protocol, cookie).map(Socket)
    }

    /// As bind(2).
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind(&self, s: Socket, to: SocketAddr) -> io::Result<()> {
        self.instance.bind(s.0, Encoded::from(to).bytes())
    }

    /// As connect(2) on a non-blocking socket.
    ///
    /// # Errors
    /// As connect(2); EINPROGRESS when it has begun, and then an event says when to ask
    /// [`take_error`](Self::take_error).
    pub fn connect(&self, s: Socket, to: SocketAddr) -> io::Result<()> {
        self.instance.connect(s.0, Encoded::from(to).bytes())
    }

    /// As listen(2).
    ///
    /// # Errors
    /// As listen(2).
    pub fn listen(&self, s: Socket, backlog: i32) -> io::Result<()> {
        self.instance.listen(s.0, backlog)
    }

    /// As accept(2) on a non-blocking socket.
    ///
    /// # Errors
    /// As accept(2): EAGAIN, ECONNABORTED, EMFILE never.
    pub fn accept(&self, s: Socket, cookie: u64) -> io::Result<Socket> {
        self.instance.accept(s.0, cookie).map(Socket)
    }

    /// As send(2) with `MSG_NOSIGNAL`.
    ///
    /// # Errors
    /// As send(2): EAGAIN, EPIPE, ECONNRESET…
    pub fn send(&self, s: Socket, data: &[u8]) -> io::Result<usize> {
        self.instance.send(s.0, data, 0, None)
    }

    /// As [`send`](Self::send), with `MSG_*` flags (`MSG_OOB`, `MSG_MORE`). `MSG_ZEROCOPY` is
    /// ignored: the data is used during the call only.
    ///
    /// # Errors
    /// As send(2).
    pub fn send_with(&self, s: Socket, data: &[u8], flags: i32) -> io::Result<usize> {
        self.instance.send(s.0, data, flags, None)
    }

    /// As [`send`](Self::send), from several buffers.
    ///
    /// # Errors
    /// As send(2).
    pub fn send_vectored(&self, s: Socket, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.instance.send_vectored(s.0, data, 0)
    }

    /// As sendto(2).
    ///
    /// # Errors
    /// As sendto(2).
    pub fn send_to(&self, s: Socket, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.instance.send(s.0, data, 0, Some(Encoded::from(to).bytes()))
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
        self.instance.recv_vectored(s.0, into, 0)
    }

    /// As recvfrom(2).
    ///
    /// # Errors
    /// As recvfrom(2); EAFNOSUPPORT if the sender's address is not an internet address (the
    /// datagram is gone then).
    pub fn recv_from(&self, s: Socket, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut from = [0; ROOM];
        let (n, len) = self.instance.recv_from(s.0, into, 0, &mut from)?;
        Ok((n, decode(&from[..len])?))
    }

    /// As shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn shutdown(&self, s: Socket, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        self.instance.shutdown(s.0, how)
    }

    /// As close(2), but never waits: `SO_LINGER` with a time-out closes in the background, with 0 it
    /// resets. A stale handle is ignored.
    pub fn close(&self, s: Socket) {
        if let Err(error) = self.instance.close(s.0) {
            tracing::debug!(?s, %error, "close");
        }
    }

    /// Closes, and resets a connection instead of ending it. A stale handle is ignored.
    pub fn abort(&self, s: Socket) {
        if let Err(error) = self.instance.abort(s.0) {
            tracing::debug!(?s, %error, "abort");
        }
    }

    /// As setsockopt(2).
    ///
    /// # Errors
    /// As setsockopt(2); ENOPROTOOPT for attaching filters.
    pub fn set_option(&self, s: Socket, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        self.instance.set_option(s.0, level, name, value)
    }

    /// As getsockopt(2); returns the length of the value.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn option(&self, s: Socket, level: i32, name: i32, into: &mut [u8]) -> io::Result<usize> {
        self.instance.option(s.0, level, name, into)
    }

    /// The pending error's errno (`SO_ERROR`), which this clears.
    ///
    /// # Errors
    /// EBADF.
    pub fn take_error(&self, s: Socket) -> io::Result<Option<i32>> {
        let mut errno = [0; 4];
        self.option(s, libc::SOL_SOCKET, libc::SO_ERROR, &mut errno)?;
        let errno = i32::from_ne_bytes(errno);
        Ok((errno != 0).then_some(errno))
    }

    /// As getsockname(2).
    ///
    /// # Errors
    /// EAFNOSUPPORT for a socket without internet addresses.
    pub fn local_address(&self, s: Socket) -> io::Result<SocketAddr> {
        let mut name = [0; ROOM];
        let len = self.instance.name(s.0, false, &mut name)?;
        decode(&name[..len])
    }

    /// As getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN; EAFNOSUPPORT for a socket without internet addresses.
    pub fn peer_address(&self, s: Socket) -> io::Result<SocketAddr> {
        let mut name = [0; ROOM];
        let len = self.instance.name(s.0, true, &mut name)?;
        decode(&name[..len])
    }

    /// What poll(2) would say now, in `EPOLL*` bits; `POLLNVAL` for a stale handle. If it is not
    /// writable, there will be an event when it is.
    pub fn readiness(&self, s: Socket) -> u32 {
        self.instance.readiness(s.0).unwrap_or(libc::POLLNVAL.unsigned_abs().into())
    }

    /// Appends what happened since the last call: at most one event a socket.
    pub fn events(&self, into: &mut Vec<Event>) {
        let mut batch = [sys::Event::default(); 64];
        loop {
            let n = self.instance.events(&mut batch).unwrap_or(0);
            into.extend(batch[..n].iter().map(|e| Event { cookie: e.cookie, mask: e.mask }));
            if n < batch.len() {
                return;
            }
        }
    }
}
