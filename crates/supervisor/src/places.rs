//! Places: where guests' own sockets G are while the stack's are bound and listen in their stead.
//!
//! A place is a port of a private loopback address. G is bound to it as soon as the stack's socket is bound, so
//! the host's kernel knows, and tells whoever asks, whether anybody still has G; and it listens there, so
//! that its accept queue, its readiness and its duplicates are native. A connection that the stack has accepted *arrives*
//! by a socket P of ours that connects to the place.
//!
//! Anybody on the host can connect to a loopback port, and a socket filter, which would keep others out, is not every
//! user's to attach. So what arrives is known by P's address, and accept(2), which is the supervisor's, drops
//! everything else.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::address::{canonical, for_family};
use crate::park::is_at_one;
use crate::sys;

/// Of linux/in.h: the port is chosen by connect(2), when it need not be free for every peer.
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;

/// Binds G to a port of `ip`. The kernel picks the port, which it therefore takes back with the connection
/// or the listening state (`SOCK_BINDPORT_LOCK` is not set): see [`leave`].
///
/// # Errors
/// `EINVAL` if G is bound or connected.
pub(crate) fn occupy(guest: BorrowedFd<'_>, v6: bool, ip: Ipv4Addr) -> io::Result<SocketAddrV4> {
    // Before its options are touched: by one of them it is known.
    if is_at_one(guest)? {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if v6 {
        // Places are IPv4 (there is only one ::1). The guest's own wish is in its entry.
        sys::set_option(guest, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0i32.to_ne_bytes())?;
    }
    // With it, which it may have of an attempt past the stack, others of the same user could join it there.
    sys::set_option(guest, libc::SOL_SOCKET, libc::SO_REUSEPORT, &0i32.to_ne_bytes())?;
    sys::bind(guest, for_family(SocketAddrV4::new(ip, 0).into(), v6))?;
    of(guest)
}

/// Where a socket is on the host.
///
/// # Errors
/// `EADDRNOTAVAIL` if that is no place.
pub(crate) fn of(guest: BorrowedFd<'_>) -> io::Result<SocketAddrV4> {
    match sys::local_name(guest)?.map(canonical) {
        Some(SocketAddr::V4(at)) if at.ip().is_loopback() && at.port() != 0 => Ok(at),
        _ => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
    }
}

/// Unbinds G, so that it can be bound elsewhere. Dissolving a listener takes its port away, and nothing else
/// does without a peer.
pub(crate) fn leave(guest: BorrowedFd<'_>) -> io::Result<()> {
    sys::listen(guest, 0)?;
    sys::disconnect(guest)
}

/// Takes the address of its former place from a G that has left it. Does nothing to one that is bound: that is an
/// error to bind(2), and getsockname(2) tells a port that was left all the same.
pub(crate) fn forget(guest: BorrowedFd<'_>, v6: bool) {
    if sys::local_name(guest).is_ok_and(|at| at.is_some_and(|at| !canonical(at).ip().is_unspecified())) {
        let any = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let _ = sys::bind(guest, SocketAddr::new(any, 0));
    }
}

/// Whether somebody has a socket that is bound there. What a listener has accepted counts too.
pub(crate) fn is_taken(place: SocketAddrV4) -> bool {
    let probed = sys::tcp_socket().and_then(|probe| sys::bind(probe.as_fd(), place.into()));
    // In doubt it is.
    probed.is_err()
}

/// P, connecting to a place from a port of `from`, and where it is.
///
/// # Errors
/// `ECONNREFUSED` when nobody listens there.
pub(crate) fn visit(place: SocketAddrV4, from: Ipv4Addr) -> io::Result<(OwnedFd, SocketAddr)> {
    let visitor = sys::tcp_socket()?;
    let one = 1i32.to_ne_bytes();
    // The relay writes what it has: waiting to fill segments only delays the guest.
    sys::set_option(visitor.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &one)?;
    sys::set_option(visitor.as_fd(), libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one)?;
    sys::bind(visitor.as_fd(), SocketAddrV4::new(from, 0).into())?;
    match sys::connect(visitor.as_fd(), place.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // Over the loopback the handshake ran inside connect(2): a refusal is there by now.
    match sys::int_option(visitor.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    let at = sys::local_name(visitor.as_fd())?.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((visitor, at))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(127, 91, 7, 3);

    fn guest(v6: bool) -> OwnedFd {
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap()
    }

    #[test]
    fn a_place_is_taken_until_the_last_descriptor_is_closed() {
        for v6 in [false, true] {
            let g = guest(v6);
            let place = occupy(g.as_fd(), v6, IP).unwrap();
            assert_eq!(*place.ip(), IP);
            let copy = g.try_clone().unwrap();
            drop(g);
            assert!(is_taken(place));
            drop(copy);
            assert!(!is_taken(place));
        }
    }

    #[test]
    fn who_arrives_is_known_by_its_address() {
        for v6 in [false, true] {
            let g = guest(v6);
            let place = occupy(g.as_fd(), v6, IP).unwrap();
            assert_eq!(visit(place, IP).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
            sys::listen(g.as_fd(), 5).unwrap();
            let (_p, at) = visit(place, IP).unwrap();
            let (_accepted, peer) = sys::accept(g.as_fd(), 0).unwrap();
            assert_eq!(canonical(peer.unwrap()), at);
        }
    }

    #[test]
    fn a_socket_that_left_can_be_bound_and_connected_elsewhere() {
        for (v6, any) in [(false, "0.0.0.0:0"), (true, "[::]:0")] {
            let server = std::net::TcpListener::bind(if v6 { "[::1]:0" } else { "127.0.0.1:0" });
            // Not every machine has IPv6 on its loopback.
            let Ok(server) = server else { continue };
            let g = guest(v6);
            let place = occupy(g.as_fd(), v6, IP).unwrap();
            leave(g.as_fd()).unwrap();
            assert!(!is_taken(place));
            forget(g.as_fd(), v6);
            let name = sys::local_name(g.as_fd()).unwrap().unwrap();
            assert_eq!(name.ip(), any.parse::<SocketAddr>().unwrap().ip());
            let started = sys::connect(g.as_fd(), server.local_addr().unwrap());
            assert!(started.is_ok() || started.unwrap_err().raw_os_error() == Some(libc::EINPROGRESS));
            let (_peer, from) = server.accept().unwrap();
            assert_eq!(Some(from), sys::local_name(g.as_fd()).unwrap());
        }
    }
}
