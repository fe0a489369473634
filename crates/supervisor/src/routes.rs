//! Whether an address is the host's own, by its routes (rtnetlink(7)).
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

/// A netlink socket to ask. Locked for one question and its answer.
#[derive(Debug)]
pub(crate) struct Routes(Mutex<OwnedFd>);

impl Routes {
    pub(crate) fn new() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Routes(Mutex::new(socket)))
    }

    /// Whether what is sent to `address` stays on this host. Fails closed: an answer that cannot
    /// be had counts as yes.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.ask(address).unwrap_or_else(|error| {
            warn!(%address, %error, "cannot ask for a route: taken for the host's own");
            true
        })
    }

    fn ask(&self, address: IpAddr) -> io::Result<bool> {
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

/// Whether the route found is a local one; `None` if this is no answer.
fn read(answer: &[u8]) -> Option<bool> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind == libc::NLMSG_ERROR as u16 {
        // No route (ENETUNREACH and its like): then it is not the host's.
        let errno = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
        return (errno < 0).then_some(false);
    }
    let route = answer.get(HEADER..HEADER + ROUTE)?;
    Some(matches!(route[ROUTE_TYPE], libc::RTN_LOCAL | libc::RTN_BROADCAST | libc::RTN_ANYCAST))
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
            assert_eq!(routes.is_local(address.parse().unwrap()), local, "{address}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0; 20]), None);
    }
}
