//! Non-blocking sockets inside the kernel.

use std::io;
use std::net::{Shutdown, SocketAddr};

use crate::{Kernel, Name, sys};

/// A socket of one [`Kernel`]: a checked handle. After [`Kernel::close`], and in another kernel, it
/// answers EBADF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket(pub(crate) u64);

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
        self.instance.socket(domain, kind, protocol, false, cookie).map(Socket)
    }

    /// As [`socket`](Self::socket), but an ordinary user's: whatever is done with it, and with what
    /// it accepts, is done as uid and gid 65534 without capabilities. For requests that others
    /// make: a netlink socket's are answered, but EPERM to those that would change something.
    ///
    /// # Errors
    /// As socket(2), and ENOMEM: EPERM for `SOCK_RAW`, EACCES for a ping socket while the sysctl
    /// `net/ipv4/ping_group_range` does not include the group.
    pub fn user_socket(&self, domain: i32, kind: i32, protocol: i32, cookie: u64) -> io::Result<Socket> {
        self.instance.socket(domain, kind, protocol, true, cookie).map(Socket)
    }

    /// As bind(2).
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind(&self, s: Socket, to: SocketAddr) -> io::Result<()> {
        self.bind_name(s, Name::from(to).bytes())
    }

    /// As [`bind`](Self::bind), to an address of any family: a `struct sockaddr_*`.
    ///
    /// # Errors
    /// As bind(2); EINVAL if it is not 2 to 128 bytes.
    pub fn bind_name(&self, s: Socket, to: &[u8]) -> io::Result<()> {
        self.instance.bind(s.0, to)
    }

    /// As connect(2) on a non-blocking socket.
    ///
    /// # Errors
    /// As connect(2); EINPROGRESS when it has begun, and then an event says when to ask
    /// [`take_error`](Self::take_error).
    pub fn connect(&self, s: Socket, to: SocketAddr) -> io::Result<()> {
        self.connect_name(s, Name::from(to).bytes())
    }

    /// As [`connect`](Self::connect), to an address of any family, also `AF_UNSPEC`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); EINVAL if it is not 2 to 128 bytes.
    pub fn connect_name(&self, s: Socket, to: &[u8]) -> io::Result<()> {
        self.instance.connect(s.0, to)
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

    /// As [`accept`](Self::accept), with the peer's address, also when it is gone again.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_from(&self, s: Socket, cookie: u64) -> io::Result<(Socket, Name)> {
        let mut accepted = 0;
        let name = Name::filled(|room| {
            let (socket, length) = self.instance.accept_from(s.0, cookie, room)?;
            accepted = socket;
            Ok(length)
        })?;
        Ok((Socket(accepted), name))
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
        self.local_name(s)?.internet()
    }

    /// As [`local_address`](Self::local_address), for any family.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_name(&self, s: Socket) -> io::Result<Name> {
        Name::filled(|room| self.instance.name(s.0, false, room))
    }

    /// As getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN; EAFNOSUPPORT for a socket without internet addresses.
    pub fn peer_address(&self, s: Socket) -> io::Result<SocketAddr> {
        self.peer_name(s)?.internet()
    }

    /// As [`peer_address`](Self::peer_address), for any family.
    ///
    /// # Errors
    /// As getpeername(2).
    pub fn peer_name(&self, s: Socket) -> io::Result<Name> {
        Name::filled(|room| self.instance.name(s.0, true, room))
    }

    /// As ioctl(2), for requests that ask and whose argument holds no pointer: `SIOCINQ`,
    /// `SIOCOUTQ`, `SIOCOUTQNSD`, `SIOCATMARK`, `SIOCGSTAMP*` and netdevice(7)'s `SIOCGIF*` but
    /// `CONF`, on a socket of any family. The argument may be longer than the request's.
    ///
    /// # Errors
    /// As ioctl(2); EPERM for requests that set something, ENOTTY for all others, EINVAL for an
    /// argument that is too short.
    pub fn ioctl(&self, s: Socket, request: u32, argument: &mut [u8]) -> io::Result<()> {
        self.instance.ioctl(s.0, request, argument)
    }

    /// What `SIOCGIFCONF` gives: `struct ifreq` by `struct ifreq` (40 bytes), the interfaces that
    /// have IPv4 addresses.
    ///
    /// # Errors
    /// EBADF.
    pub fn interface_records(&self, s: Socket) -> io::Result<Vec<u8>> {
        let mut records = vec![0; self.instance.interface_records(s.0, &mut [])?];
        let n = self.instance.interface_records(s.0, &mut records)?;
        records.truncate(n);
        Ok(records)
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
