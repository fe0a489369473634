//! A datagram socket of the host's, beside the stack's: for destinations that a rule sends there, and for
//! guests that an `in:` rule lets be reached there.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tracing::debug;

use super::pump::CONTROL;
use crate::address::{canonical, encode, for_family};
use crate::calls::errno;
use crate::control::{self, ControlMessage};
use crate::ends::Run;
use crate::options::{StackOption, datagram_on_host};
use crate::sys;

/// How many peers one socket remembers.
const PEERS: usize = 1024;

#[derive(Debug)]
pub(super) struct Host {
    socket: OwnedFd,
    v6: bool,
    heard: Heard,
}

/// Whose datagrams are the guest's.
#[derive(Debug)]
enum Heard {
    Everybody,
    /// Whatever port they answer from.
    Peers(HashSet<IpAddr>),
}

impl Host {
    /// One that hears nobody yet, with what the guest has set.
    pub(super) fn new(v6: bool, protocol: i32, options: &[StackOption]) -> io::Result<Self> {
        let socket = sys::datagram_socket(v6, protocol)?;
        let host = Host { socket, v6, heard: Heard::Peers(HashSet::new()) };
        options.iter().for_each(|option| host.set(option));
        Ok(host)
    }

    pub(super) fn bind(&self, local: SocketAddr) -> io::Result<()> {
        sys::bind(self.socket.as_fd(), for_family(local, self.v6))
    }

    /// From now on datagrams from there are the guest's.
    pub(super) fn hear(&mut self, from: SocketAddr) {
        let Heard::Peers(peers) = &mut self.heard else { return };
        if peers.len() >= PEERS {
            peers.clear();
        }
        peers.insert(from.ip());
    }

    pub(super) fn hear_everybody(&mut self) {
        self.heard = Heard::Everybody;
    }

    pub(super) fn hears_everybody(&self) -> bool {
        matches!(self.heard, Heard::Everybody)
    }

    pub(super) fn connect(&self, to: SocketAddr) -> io::Result<()> {
        sys::connect(self.socket.as_fd(), for_family(to, self.v6))
    }

    pub(super) fn disconnect(&self) -> io::Result<()> {
        sys::disconnect(self.socket.as_fd())
    }

    pub(super) fn local_name(&self) -> Option<SocketAddr> {
        sys::local_name(self.socket.as_fd()).ok().flatten()
    }

    /// Sets an option if it means something here. The stack has checked it.
    pub(super) fn set(&self, StackOption { level, name, value }: &StackOption) {
        if datagram_on_host(*level, *name)
            && let Err(error) = sys::set_option(self.socket.as_fd(), *level, *name, value)
        {
            debug!(level, name, %error, "an option of the stack's is not the host's");
        }
    }

    pub(super) fn option(&self, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
        sys::option(self.socket.as_fd(), level, name, value)
    }

    /// To its peer if there is no address.
    pub(super) fn send(&self, to: Option<SocketAddr>, data: &[u8], control: &[u8]) -> io::Result<()> {
        let name = to.map(|to| encode(to, self.v6)).unwrap_or_default();
        let control = harmless(control).map_err(io::Error::from_raw_os_error)?;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        sys::send_message(self.socket.as_fd(), &name, data, &control, flags).map(drop)
    }

    /// The next datagram for the guest, its sender, and the length.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<(Run, SocketAddr, usize)> {
        let mut control = [0; CONTROL];
        loop {
            let got = sys::receive(self.socket.as_fd(), into, &mut control, 0)?;
            let Some(from) = got.from else { continue };
            let heard = match &self.heard {
                Heard::Everybody => true,
                Heard::Peers(peers) => peers.contains(&canonical(from).ip()),
            };
            if heard {
                let run = Run { from: encode(from, self.v6), control: control[..got.control].to_vec() };
                return Ok((run, canonical(from), got.length));
            }
        }
    }

    /// What the error queue has (ip(7), IP_RECVERR): where it was sent, and the rest of recvmsg(2).
    pub(super) fn errors(&self, into: &mut [u8], flags: i32) -> io::Result<(Run, usize, i32)> {
        let mut control = [0; CONTROL];
        let got = sys::receive(self.socket.as_fd(), into, &mut control, flags)?;
        let from = got.from.map(|from| encode(from, self.v6)).unwrap_or_default();
        Ok((Run { from, control: control[..got.control].to_vec() }, got.length, got.flags))
    }

    /// The error that is to be told (`SO_ERROR`).
    pub(super) fn take_error(&self) -> Option<i32> {
        sys::int_option(self.socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)
            .ok()
            .filter(|&errno| errno != 0)
    }

    /// Whether an error is to be told, or waits in the queue.
    pub(super) fn has_errors(&self) -> bool {
        sys::poll_now(self.socket.as_fd(), 0) & libc::POLLERR != 0
    }
}

impl AsFd for Host {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The control messages of a send that a socket of the host's may get: those whose whole meaning is known.
/// Interfaces are the stack's to the guest, and the way that the host's packets take is not its to choose.
fn harmless(control: &[u8]) -> Result<Vec<u8>, i32> {
    let mut kept = Vec::new();
    for message in control::messages(control) {
        let ControlMessage { level, kind, value } = message?;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS | libc::IP_TTL)
            | (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG | libc::IPV6_HOPLIMIT | libc::IPV6_TCLASS)
            | (libc::IPPROTO_UDP, libc::UDP_SEGMENT) => control::push(&mut kept, level, kind, value),
            // `ipi_ifindex` stands at the beginning, `ipi6_ifindex` at the end.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let mut info: [u8; 12] = value.try_into().map_err(|_| libc::EINVAL)?;
                info[..4].fill(0);
                control::push(&mut kept, level, kind, &info);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let mut info: [u8; 20] = value.try_into().map_err(|_| libc::EINVAL)?;
                info[16..].fill(0);
                control::push(&mut kept, level, kind, &info);
            }
            _ => return Err(libc::EINVAL),
        }
    }
    Ok(kept)
}

/// Whether a receive failed only because there is nothing.
pub(super) fn is_nothing(error: &io::Error) -> bool {
    errno(error) == libc::EAGAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_message_chooses_an_interface_of_the_hosts() {
        let one = |level, kind, value: &[u8]| {
            let mut bytes = Vec::new();
            control::push(&mut bytes, level, kind, value);
            bytes
        };
        let (v4, v6) = ([7, 7, 7, 7, 127, 0, 0, 1, 0, 0, 0, 0], [[0x20; 16].as_slice(), &[7; 4]].concat());
        let kept = harmless(&one(libc::IPPROTO_IP, libc::IP_PKTINFO, &v4)).unwrap();
        assert_eq!(kept, one(libc::IPPROTO_IP, libc::IP_PKTINFO, &[[0; 4].as_slice(), &v4[4..]].concat()));
        let kept = harmless(&one(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &v6)).unwrap();
        let expected = [&v6[..16], &[0; 4]].concat();
        assert_eq!(kept, one(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &expected));
        for (level, kind) in [
            (libc::IPPROTO_IP, libc::IP_RETOPTS),
            (libc::IPPROTO_IPV6, libc::IPV6_RTHDR),
            (libc::SOL_SOCKET, libc::SO_MARK),
            (libc::SOL_SOCKET, libc::SCM_RIGHTS),
        ] {
            assert_eq!(harmless(&one(level, kind, &[0; 4])), Err(libc::EINVAL), "{level} {kind}");
        }
    }
}
