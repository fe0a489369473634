//! Who listens at a TCP address of the host, and what became of a connection: sock_diag(7), linux/inet_diag.h.
//!
//! Sees the caller's network namespace only, which is the guest's sockets' too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

use nix::sys::socket::SockProtocol;

use crate::netlink::{Host, SOCK_DIAG_BY_FAMILY, field};
use crate::sockets::Cookie;

/// `struct inet_diag_req_v2` and the `struct inet_diag_sockid` in it.
const REQUEST: usize = 56;
const ID: usize = 8;
/// Where `struct inet_diag_sockid` has its cookie, 8 bytes.
const COOKIE: usize = 40;
/// Where `struct inet_diag_msg` has its state, its id and its inode.
const STATE: usize = 1;
const FOUND_ID: usize = 4;
const INODE: usize = 68;
/// `TCP_SYN_SENT` and `TCP_LISTEN` (net/tcp_states.h).
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

/// A netlink socket to ask.
#[derive(Debug)]
pub(crate) struct Diag(Host);

/// A TCP socket of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) cookie: Cookie,
    /// Nobody has it any more if it is 0: what was closed lives on until the far side knows.
    pub(crate) inode: u32,
    state: u8,
}

impl Diag {
    /// # Errors
    /// `ENOENT` where the kernel has no tcp_diag.
    pub(crate) fn new() -> io::Result<Self> {
        let diag = Diag(Host::new(SockProtocol::NetlinkSockDiag)?);
        // Without its module the kernel says of everybody that nobody is there.
        let known = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        match known.local_addr()? {
            SocketAddr::V4(at) if diag.listener(at)?.is_some() => Ok(diag),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// The socket that gets the connections to that address, of either family; a few microseconds.
    ///
    /// # Errors
    /// What netlink(7) gives.
    pub(crate) fn listener(&self, at: SocketAddrV4) -> io::Result<Option<Cookie>> {
        let found = self.ask(at, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        Ok(found.filter(|found| found.state == LISTEN).map(|found| found.cookie))
    }

    /// The socket at `local` that is connected to `peer`, or was and lingers.
    ///
    /// # Errors
    /// As [`listener`](Self::listener).
    pub(crate) fn connection(&self, local: SocketAddrV4, peer: SocketAddrV4) -> io::Result<Option<Found>> {
        Ok(self.ask(local, peer)?.filter(|found| found.state != LISTEN))
    }

    /// Whether that socket is at `own` and waits for the first answer from `other`. Nobody can hold the lock of such a one: nothing is
    /// copied from it or to it. A program outside that it was given to may have made something else of it.
    pub(crate) fn is_opening(&self, cookie: Cookie, (own, other): (SocketAddrV4, SocketAddrV4)) -> bool {
        let found = self.connection(own, other);
        matches!(found, Ok(Some(found)) if found.cookie == cookie && found.state == SYN_SENT)
    }

    fn ask(&self, local: SocketAddrV4, peer: SocketAddrV4) -> io::Result<Option<Found>> {
        match self.0.ask(SOCK_DIAG_BY_FAMILY, &question(local, peer))? {
            Ok(body) => read(&body).map(Some),
            Err(libc::ENOENT) => Ok(None),
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// One exact question: a listener takes what matches nothing connected (inet_diag_find_one_icsk()).
fn question(local: SocketAddrV4, peer: SocketAddrV4) -> [u8; REQUEST] {
    let mut body = [0; REQUEST];
    body[0] = libc::AF_INET as u8;
    body[1] = libc::IPPROTO_TCP as u8;
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    body[ID..ID + 2].copy_from_slice(&local.port().to_be_bytes());
    body[ID + 2..ID + 4].copy_from_slice(&peer.port().to_be_bytes());
    body[ID + 4..ID + 8].copy_from_slice(&local.ip().octets());
    body[ID + 20..ID + 24].copy_from_slice(&peer.ip().octets());
    // INET_DIAG_NOCOOKIE.
    body[ID + COOKIE..].fill(0xff);
    body
}

fn read(body: &[u8]) -> io::Result<Found> {
    // Two words, the lower first.
    let [low, high] = [0, 4].map(|at| field(body, FOUND_ID + COOKIE + at).map(u32::from_ne_bytes));
    let cookie = Cookie(u64::from(low?) | u64::from(high?) << 32);
    let [state] = field(body, STATE)?;
    Ok(Found { cookie, inode: u32::from_ne_bytes(field(body, INODE)?), state })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::park::{Lot, Space};
    use crate::sys;

    #[test]
    fn a_listener_is_found_until_it_is_closed_whoever_it_accepted() {
        let diag = Diag::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else { panic!("asked for IPv4") };
        let own = Cookie(sys::cookie(listener.as_fd(), libc::SO_COOKIE).unwrap());
        assert_eq!(diag.listener(at).unwrap(), Some(own));
        let _client = std::net::TcpStream::connect(at).unwrap();
        let _accepted = listener.accept().unwrap();
        assert_eq!(diag.listener(at).unwrap(), Some(own));
        drop(listener);
        assert_eq!(diag.listener(at).unwrap(), None);
    }

    #[test]
    fn an_end_of_a_connection_is_held_then_closed_then_gone() {
        let diag = Diag::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (SocketAddr::V4(own), SocketAddr::V4(far)) =
            (client.local_addr().unwrap(), client.peer_addr().unwrap())
        else {
            panic!("asked for IPv4")
        };
        let cookie = Cookie(sys::cookie(client.as_fd(), libc::SO_COOKIE).unwrap());
        let held = diag.connection(own, far).unwrap().unwrap();
        assert_eq!(held.cookie, cookie);
        assert_ne!(held.inode, 0);
        drop(client);
        let closed = diag.connection(own, far).unwrap().unwrap();
        assert_eq!((closed.cookie, closed.inode), (cookie, 0));
        // The first to close lingers, the last does not.
        drop(accepted);
        assert_eq!(diag.connection(far, own).unwrap(), None);
        assert_eq!(diag.connection(own, far).unwrap().map(|found| found.cookie), Some(cookie));
    }

    #[test]
    fn one_that_waits_is_told_from_one_that_has_left_or_is_connected() {
        let diag = Diag::new().unwrap();
        let mut lot = Lot::new();
        let g = sys::tcp_socket().unwrap();
        let park = lot.listener("192.0.2.1:80".parse().unwrap(), 0).unwrap();
        let space = Space::park(park, g.as_fd(), false).unwrap();
        let own = Cookie(sys::cookie(g.as_fd(), libc::SO_COOKIE).unwrap());
        assert!(diag.is_opening(own, space.ends()));
        assert!(!diag.is_opening(Cookie(own.0 + 1), space.ends()));
        let _p = space.join(false).unwrap();
        assert!(!diag.is_opening(own, space.ends()));
        sys::disconnect(g.as_fd()).unwrap();
        assert!(!diag.is_opening(own, space.ends()));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(read(&[]).is_err());
        assert!(read(&[0; INODE]).is_err());
    }
}
