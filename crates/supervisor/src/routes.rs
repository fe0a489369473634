//! Where the host would send what is for an address: by its routes (rtnetlink(7)).
//!
//! Addresses come and go, and a route of type `local` makes whole networks the host's; a list taken
//! at the start knows neither. Asking costs a few microseconds.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use tracing::warn;

/// `struct nlmsghdr`, 16 bytes (linux/netlink.h).
const HEADER: usize = 16;
/// `struct rtmsg`, 12 bytes (linux/rtnetlink.h), and where its `rtm_type` is.
const ROUTE: usize = 12;
const ROUTE_TYPE: usize = 7;
/// `struct rtattr`, 4 bytes.
const ATTRIBUTE: usize = 4;
/// Where `struct rta_cacheinfo` has its `rta_error`.
const CACHE_ERROR: usize = 12;

/// The errnos that connect(2) gives when no route leads anywhere: none at all, `unreachable`,
/// `prohibit` and `blackhole` (ip-route(8)).
const NO_WAY: [i32; 4] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL];

/// Where an address is, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Away,
    /// It is the host's own.
    Local,
    /// The host's connect(2) fails at once, with this errno.
    Nowhere(i32),
}

/// A netlink socket to ask. Locked for one question and its answer.
#[derive(Debug)]
pub(crate) struct Routes(Mutex<OwnedFd>);

impl Routes {
    pub(crate) fn new() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Routes(Mutex::new(socket)))
    }

    /// Where `address` is. Fails closed: without an answer it is the host's own.
    pub(crate) fn way(&self, address: IpAddr) -> Way {
        self.ask(address).unwrap_or_else(|error| {
            warn!(%address, %error, "cannot ask for a route: taken for the host's own");
            Way::Local
        })
    }

    fn ask(&self, address: IpAddr) -> io::Result<Way> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_raw_fd(), &question(address), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        // The kernel answers within send(2); nobody else can write to this socket.
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        read(&answer[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// RTM_GETROUTE for one destination.
fn question(address: IpAddr) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let length = HEADER + ROUTE + ATTRIBUTE + octets.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(libc::RTM_GETROUTE.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence and port: there is one question at a time.
    bytes.extend([0; 8]);
    bytes.extend([family as u8, (octets.len() * 8) as u8]);
    bytes.extend([0; ROUTE - 2]);
    bytes.extend(((ATTRIBUTE + octets.len()) as u16).to_ne_bytes());
    bytes.extend(libc::RTA_DST.to_ne_bytes());
    bytes.extend(octets);
    bytes
}

/// What the route found says; `None` if this is no answer.
fn read(answer: &[u8]) -> Option<Way> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind == libc::NLMSG_ERROR as u16 {
        let errno = -i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
        // Whatever else it was, it is not the host's.
        let way = if NO_WAY.contains(&errno) { Way::Nowhere(errno) } else { Way::Away };
        return (errno > 0).then_some(way);
    }
    let route = answer.get(HEADER..HEADER + ROUTE)?;
    // IPv6 finds a route that refuses, where IPv4 finds none (inet6_rtm_getroute()).
    Some(match route[ROUTE_TYPE] {
        libc::RTN_LOCAL | libc::RTN_BROADCAST | libc::RTN_ANYCAST => Way::Local,
        libc::RTN_BLACKHOLE => Way::Nowhere(refusal(answer).unwrap_or(libc::EINVAL)),
        libc::RTN_PROHIBIT => Way::Nowhere(refusal(answer).unwrap_or(libc::EACCES)),
        libc::RTN_UNREACHABLE => Way::Nowhere(refusal(answer).unwrap_or(libc::EHOSTUNREACH)),
        _ => Way::Away,
    })
}

/// The errno of a route that refuses (RTA_CACHEINFO).
fn refusal(answer: &[u8]) -> Option<i32> {
    let mut attributes = answer.get(HEADER + ROUTE..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..ATTRIBUTE)?.try_into().ok()?);
        if kind == libc::RTA_CACHEINFO {
            let error = attributes.get(ATTRIBUTE + CACHE_ERROR..ATTRIBUTE + CACHE_ERROR + 4)?;
            let errno = i32::from_ne_bytes(error.try_into().ok()?).wrapping_neg();
            return NO_WAY.contains(&errno).then_some(errno);
        }
        attributes = attributes.get(length.max(ATTRIBUTE).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_local_and_documentation_is_not() {
        let routes = Routes::new().unwrap();
        for (address, local) in
            [("127.0.0.1", true), ("127.1.2.3", true), ("::1", true), ("198.51.100.1", false)]
        {
            assert_eq!(routes.way(address.parse().unwrap()) == Way::Local, local, "{address}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0; 20]), None);
    }

    #[test]
    fn a_route_that_refuses_says_with_what() {
        let answer = |kind: u8, error: i32| {
            let mut bytes = vec![0; HEADER + ROUTE];
            bytes[4..6].copy_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
            bytes[HEADER + ROUTE_TYPE] = kind;
            // One of another kind and an odd length comes first.
            bytes.extend([5, 0, 4, 0, 9, 0, 0, 0]);
            bytes.extend(36u16.to_ne_bytes());
            bytes.extend(libc::RTA_CACHEINFO.to_ne_bytes());
            bytes.extend([0; CACHE_ERROR]);
            bytes.extend(error.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        let unreachable = libc::RTN_UNREACHABLE;
        assert_eq!(read(&answer(unreachable, -libc::ENETUNREACH)), Some(Way::Nowhere(libc::ENETUNREACH)));
        assert_eq!(read(&answer(unreachable, 0)), Some(Way::Nowhere(libc::EHOSTUNREACH)));
        assert_eq!(read(&answer(libc::RTN_PROHIBIT, 0)[..40]), Some(Way::Nowhere(libc::EACCES)));
        assert_eq!(read(&answer(libc::RTN_UNICAST, -libc::ENETUNREACH)), Some(Way::Away));
    }
}
