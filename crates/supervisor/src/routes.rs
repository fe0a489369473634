//! Where the host would send what is for an address: by its routes (rtnetlink(7)).
//!
//! Addresses come and go, and a route of type `local` makes whole networks the host's; a list taken
//! at the start knows neither. Asking costs a few microseconds.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::SockProtocol;
use tracing::warn;

use crate::netlink::{Host, attributes, field};

/// `struct rtmsg`, 12 bytes (linux/rtnetlink.h), and where its `rtm_type` is.
const ROUTE: usize = 12;
const ROUTE_TYPE: usize = 7;
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
pub(crate) struct Routes(Mutex<Host>);

impl Routes {
    pub(crate) fn new() -> io::Result<Self> {
        Host::new(SockProtocol::NetlinkRoute).map(Mutex::new).map(Routes)
    }

    /// Where `address` is; `None` if the host gives no answer, in which case nothing may go there this time.
    pub(crate) fn way(&self, address: IpAddr) -> Option<Way> {
        self.ask(address).inspect_err(|error| warn!(%address, %error, "cannot ask for a route")).ok()
    }

    fn ask(&self, address: IpAddr) -> io::Result<Way> {
        let host = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match host.ask(libc::RTM_GETROUTE, &question(address))? {
            Ok(route) => read(&route).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(errno) if NO_WAY.contains(&errno) => Ok(Way::Nowhere(errno)),
            // Whatever else it was, it is not the host's.
            Err(_) => Ok(Way::Away),
        }
    }
}

/// RTM_GETROUTE for one destination.
fn question(address: IpAddr) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let mut body = vec![family as u8, (octets.len() * 8) as u8];
    body.resize(ROUTE, 0);
    body.extend(((4 + octets.len()) as u16).to_ne_bytes());
    body.extend(libc::RTA_DST.to_ne_bytes());
    body.extend(octets);
    body
}

/// What the route found says; `None` if this is none.
fn read(route: &[u8]) -> Option<Way> {
    let (head, rest) = route.split_at_checked(ROUTE)?;
    let refusal = |else_| Way::Nowhere(refusal(rest).unwrap_or(else_));
    // IPv6 finds a route that refuses, where IPv4 finds none (inet6_rtm_getroute()).
    Some(match head[ROUTE_TYPE] {
        libc::RTN_LOCAL | libc::RTN_BROADCAST | libc::RTN_ANYCAST => Way::Local,
        libc::RTN_BLACKHOLE => refusal(libc::EINVAL),
        libc::RTN_PROHIBIT => refusal(libc::EACCES),
        libc::RTN_UNREACHABLE => refusal(libc::EHOSTUNREACH),
        _ => Way::Away,
    })
}

/// The errno of a route that refuses (RTA_CACHEINFO).
fn refusal(rest: &[u8]) -> Option<i32> {
    let (_, cache) = attributes(rest).map_while(Result::ok).find(|&(kind, _)| kind == libc::RTA_CACHEINFO)?;
    let errno = i32::from_ne_bytes(field(cache, CACHE_ERROR).ok()?).wrapping_neg();
    NO_WAY.contains(&errno).then_some(errno)
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
            assert_eq!(routes.way(address.parse().unwrap()) == Some(Way::Local), local, "{address}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0; ROUTE - 1]), None);
    }

    #[test]
    fn a_route_that_refuses_says_with_what() {
        let answer = |kind: u8, error: i32| {
            let mut bytes = vec![0; ROUTE];
            bytes[ROUTE_TYPE] = kind;
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
        assert_eq!(read(&answer(libc::RTN_PROHIBIT, 0)[..24]), Some(Way::Nowhere(libc::EACCES)));
        assert_eq!(read(&answer(libc::RTN_UNICAST, -libc::ENETUNREACH)), Some(Way::Away));
    }
}
