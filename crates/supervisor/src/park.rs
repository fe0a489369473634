//! Parking: a guest's socket G waits, in SYN_SENT, while the stack connects in its stead.
//!
//! A guest must not see "connected" before the far end is, so G is connected to a listener whose
//! queue is full and never emptied: its SYNs are dropped, polls show nothing. (A socket filter
//! that drops everything does the same, but not every kernel lets an unprivileged user attach one.) When the stack's connection is up, a socket P of
//! ours is bound to the listener's own address and connected to G's: a TCP simultaneous open
//! (RFC 9293, 3.5), after which G and P are joined and G's pollers get one EPOLLOUT. When it
//! fails, G is connected to a port that is bound but closed, and its pollers see what a refused
//! connection looks like.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::address::{canonical, for_family};
use crate::sys;

/// How many listeners at most. Each has an address of its own, which spreads the ephemeral ports
/// of parked sockets: above some 10,000 on one address the kernel's port search gets slow.
pub(crate) const PLACES: usize = 64;

/// How long a call on a socket that is not connected may have its lock, on a busy machine.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where sockets park. One per supervisor.
#[derive(Debug)]
pub(crate) struct Lot {
    hasher: RandomState,
    places: [Option<Place>; PLACES],
}

/// A port that is bound and not listening: whoever connects to it is refused.
#[derive(Debug)]
pub(crate) struct Closed(Place);

/// A bound socket and its address.
#[derive(Debug)]
struct Place {
    socket: OwnedFd,
    address: SocketAddrV4,
    /// The one connection that a listener's queue has room for.
    filler: Option<OwnedFd>,
}

/// A parked socket: what P needs to join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// The listener's address, which P borrows.
    listener: SocketAddrV4,
    /// Where G is, on the loopback.
    guest: SocketAddrV4,
}

impl Lot {
    pub(crate) fn new() -> Self {
        Lot { hasher: RandomState::new(), places: [const { None }; PLACES] }
    }

    /// The `nth` place to try to park a socket at. `destination` only spreads the load.
    pub(crate) fn listener(&mut self, destination: SocketAddr, nth: usize) -> io::Result<SocketAddrV4> {
        let first = self.hasher.hash_one(destination) as usize % PLACES;
        self.place((first + nth) % PLACES)
    }

    fn place(&mut self, index: usize) -> io::Result<SocketAddrV4> {
        if let Some(place) = &self.places[index] {
            return Ok(place.address);
        }
        let place = Place::listening(random_loopback(&self.hasher, index))?;
        Ok(self.places[index].insert(place).address)
    }
}

impl Closed {
    pub(crate) fn new() -> io::Result<Self> {
        Place::bound(random_loopback(&RandomState::new(), PLACES), false).map(Closed)
    }

    /// Ends the wait of a parked socket with the events of a refused connection. The caller keeps
    /// the errno: `SO_ERROR` of G itself is not to be relied on.
    pub(crate) fn refuse(&self, guest: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
        sys::disconnect(guest)?;
        // Refused at once, or a moment later: the port is closed either way.
        let _ = sys::start_connect(guest, for_family(self.0.address.into(), v6));
        Ok(())
    }
}

impl Space {
    /// Starts G on its way to nowhere.
    ///
    /// # Errors
    /// What connect(2) gives for a socket that cannot connect, such as `EISCONN`.
    pub(crate) fn park(listener: SocketAddrV4, guest: BorrowedFd<'_>, v6: bool) -> io::Result<Self> {
        let to = for_family(listener.into(), v6);
        match sys::start_connect(guest, to) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
            // A listener that drops every SYN cannot have answered.
            Ok(()) => return Err(io::Error::from_raw_os_error(libc::EISCONN)),
        }
        // A socket that was bound is where it was bound to.
        match sys::local_name(guest)?.map(canonical) {
            Some(SocketAddr::V4(guest)) => Ok(Space { listener, guest }),
            _ => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
        }
    }

    /// Where G is on the host, and where P will be.
    pub(crate) fn ends(self) -> (SocketAddrV4, SocketAddrV4) {
        (self.guest, self.listener)
    }

    /// The address for a repeated connect(2) of the parked socket.
    pub(crate) fn again(self, v6: bool) -> SocketAddr {
        for_family(self.listener.into(), v6)
    }

    /// P: joined with G, which is connected from now on. Of either family: one of IPv6 sees G as v4-mapped.
    ///
    /// # Errors
    /// `ECONNREFUSED` when G is gone, `ETIMEDOUT` when who is there does not answer.
    pub(crate) fn join(self, v6: bool) -> io::Result<OwnedFd> {
        let socket = sys::tcp_socket_of(v6)?;
        if v6 {
            sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0i32.to_ne_bytes())?;
        }
        let one = 1i32.to_ne_bytes();
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, &one)?;
        // The relay writes what it has: waiting to fill segments only delays the guest.
        sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &one)?;
        sys::bind(socket.as_fd(), for_family(self.listener.into(), v6))?;
        match sys::connect(socket.as_fd(), for_family(self.guest.into(), v6)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        // Over the loopback the handshake ran inside connect(2), unless one of the guest's own calls had G's lock at that moment.
        // A P that is not connected must not be left: it would try again, whoever is at G's address by then.
        let events = sys::poll_for(socket.as_fd(), libc::POLLOUT, PATIENCE);
        let joined = match sys::int_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR) {
            Ok(0) if events & libc::POLLOUT != 0 => Ok(()),
            Ok(0) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
            Err(error) => Err(error),
        };
        if joined.is_err() {
            // It may be: G must not see a stream that ended in order.
            sys::reset_when_closed(socket.as_fd());
        }
        joined.map(|()| socket)
    }
}

impl Place {
    fn bound(ip: Ipv4Addr, shared: bool) -> io::Result<Self> {
        let socket = sys::tcp_socket()?;
        let shared = i32::from(shared).to_ne_bytes();
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, &shared)?;
        sys::bind(socket.as_fd(), SocketAddrV4::new(ip, 0).into())?;
        match sys::local_name(socket.as_fd())? {
            Some(SocketAddr::V4(address)) => Ok(Place { socket, address, filler: None }),
            _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        }
    }

    fn listening(ip: Ipv4Addr) -> io::Result<Self> {
        // P shares this address (SO_REUSEPORT wants the same user on both).
        let mut place = Self::bound(ip, true)?;
        // A queue of length 0 holds one connection; with that in it the kernel drops every SYN
        // (sk_acceptq_is_full() in tcp_conn_request(), net/ipv4/tcp_input.c).
        sys::listen(place.socket.as_fd(), 0)?;
        let filler = sys::tcp_socket()?;
        match sys::connect(filler.as_fd(), place.address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        place.filler = Some(filler);
        Ok(place)
    }
}

/// 127.x.y.z that differs between supervisors and between their places. Not 127.0/16, where
/// people's own services are.
pub(crate) fn random_loopback(hasher: &RandomState, index: usize) -> Ipv4Addr {
    let [a, b, c, ..] = hasher.hash_one((index, "place")).to_ne_bytes();
    Ipv4Addr::new(127, 64 | (a & 63), b, c.clamp(1, 254))
}

/// Whether that may be one of them, of whatever supervisor.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 127 && ip.octets()[1] & 0xc0 == 64)
}

/// Whether a socket is where others are parked, by whatever supervisor: they would take it for what they wait for, and be connected
/// to it. That is a P that a guest has accepted and dissolved (stack/direct.rs). No guest's own socket has SO_REUSEPORT at such an
/// address.
pub(crate) fn is_at_one(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let at = sys::local_name(socket)?.map(canonical);
    let is_private = at.is_some_and(|at| is_private(at.ip()));
    Ok(is_private && sys::int_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT)? != 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    use super::*;

    const FAR: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80));

    fn guest(v6: bool, nonblocking: bool) -> OwnedFd {
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let flags = if nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
        socket(family, SockType::Stream, flags, None).unwrap()
    }

    fn park(lot: &mut Lot, guest: &OwnedFd, v6: bool) -> io::Result<Space> {
        Space::park(lot.listener(FAR, 0)?, guest.as_fd(), v6)
    }

    fn events(fd: &OwnedFd) -> PollFlags {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        fds[0].revents().unwrap()
    }

    fn flags(fd: &OwnedFd) -> i32 {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).unwrap()
    }

    #[test]
    fn a_parked_socket_is_silent_and_joining_connects_it() {
        let mut lot = Lot::new();
        for (v6, nonblocking) in [(false, true), (false, false), (true, true), (true, false)] {
            let g = guest(v6, nonblocking);
            let before = flags(&g);
            let space = park(&mut lot, &g, v6).unwrap();
            assert_eq!(events(&g), PollFlags::empty());
            let p = space.join(false).unwrap();
            assert_eq!(events(&g), PollFlags::POLLOUT);
            assert_eq!(flags(&g), before, "the shared status flags stay");
            let (mut g, mut p) = (TcpStream::from(g), TcpStream::from(p));
            g.set_nonblocking(false).unwrap();
            p.set_nonblocking(false).unwrap();
            p.write_all(b"to the guest").unwrap();
            let mut bytes = [0; 12];
            g.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"to the guest");
        }
    }

    #[test]
    fn a_refused_socket_looks_refused_and_can_try_again() {
        let closed = Closed::new().unwrap();
        let mut lot = Lot::new();
        for v6 in [false, true] {
            let g = guest(v6, true);
            park(&mut lot, &g, v6).unwrap();
            closed.refuse(g.as_fd(), v6).unwrap();
            assert!(events(&g).contains(PollFlags::POLLOUT | PollFlags::POLLERR | PollFlags::POLLHUP));
            sys::int_option(g.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).unwrap();
            // As natively: the next connect(2) after a failed one reports that once.
            let next = park(&mut lot, &g, v6);
            assert_eq!(next.unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
            park(&mut lot, &g, v6).unwrap().join(v6).unwrap();
        }
    }

    #[test]
    fn joining_a_socket_that_is_gone_is_refused() {
        let mut lot = Lot::new();
        let g = guest(false, true);
        let space = park(&mut lot, &g, false).unwrap();
        drop(g);
        assert_eq!(space.join(false).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }

    #[test]
    fn every_place_is_known_to_be_private() {
        let hasher = RandomState::new();
        assert!((0..1000).all(|index| is_private(random_loopback(&hasher, index).into())));
        for ip in ["127.63.255.255", "127.128.0.0", "128.64.0.1", "::1"] {
            assert!(!is_private(ip.parse().unwrap()), "{ip}");
        }
    }

    /// It would go on trying, and reach whoever comes there later.
    #[test]
    fn joining_who_does_not_answer_fails() {
        let [ours, silent] = [0, 1].map(|n| Place::listening(Ipv4Addr::new(127, 91, 8, n + 1)).unwrap());
        let space = Space { listener: ours.address, guest: silent.address };
        assert_eq!(space.join(false).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    }

    #[test]
    fn nobody_else_gets_into_a_place() {
        let mut lot = Lot::new();
        let g = guest(false, true);
        let space = park(&mut lot, &g, false).unwrap();
        let other = sys::tcp_socket().unwrap();
        let started = sys::connect(other.as_fd(), space.listener.into());
        assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        assert_eq!(events(&other), PollFlags::empty());
    }
}
