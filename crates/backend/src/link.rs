//! Frames and the link that carries them.

use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// One entry of poll(2), as the stack thread and a link exchange it.
pub type PollFd = libc::pollfd;

/// The guest's IPv4 place on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4 {
    /// The stack's own address with its prefix length.
    pub address: Ipv4Net,
    /// The default router.
    pub gateway: Ipv4Addr,
}

/// The guest's IPv6 place on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6 {
    /// The stack's own address with its prefix length.
    pub address: Ipv6Net,
    /// The default router.
    pub gateway: Ipv6Addr,
}

/// What a link says about itself: how to configure the stack, and which addresses reach the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The stack's Ethernet address.
    pub mac: [u8; 6],
    /// IPv4, if the link carries it.
    pub v4: Option<V4>,
    /// IPv6, if the link carries it.
    pub v6: Option<V6>,
    /// The link's own DNS forwarder, answering on port 53.
    pub dns: Option<IpAddr>,
    /// It answers over TCP, too.
    pub dns_over_tcp: bool,
    /// The host's name servers whose answers over UDP seem to come from `dns`: to be asked by it.
    pub name_servers: Vec<IpAddr>,
    /// Every address through which the link reaches the host's own loopback or the host itself.
    /// They belong to the policy's protected group `host-local`.
    pub host: Vec<IpNet>,
    /// The link does not check TCP and UDP checksums of frames it is given, nor needs them.
    pub trusted: bool,
}

/// What became of a link in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turned {
    /// It goes on.
    Alive,
    /// Its far side was replaced and has forgotten every connection: whoever holds one resets it.
    /// New ones work.
    Renewed,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// No room now: the caller keeps the frame and offers it again after a [`Link::turn`].
    Busy,
    /// The link took the frame (or lost it, as Ethernet may).
    Taken,
}

/// An open wire. Owned by the stack thread, which calls every method; none may block.
///
/// One turn of the stack thread: let the stack transmit ([`send`](Link::send)), take what arrived
/// ([`receive`](Link::receive)), and when both are idle ask for [`interests`](Link::interests),
/// poll(2), and hand the result to [`turn`](Link::turn).
pub trait Link: Send + fmt::Debug {
    /// Addresses and sizes; constant while the link is open.
    fn network(&self) -> &Network;

    /// Sends one Ethernet frame (no FCS) given in pieces.
    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent;

    /// Delivers the frames that have arrived, oldest first, without waiting. What arrives after it has
    /// delivered all that was there may need a [`turn`](Link::turn) first.
    /// Returns whether there were any.
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> bool;

    /// Appends the descriptors to poll, and returns the time by which [`turn`](Link::turn) must
    /// be called even if none is ready.
    fn interests(&mut self, now: Instant, fds: &mut Vec<PollFd>) -> Option<Instant>;

    /// Does what the polled descriptors allow. `fds` are the entries that
    /// [`interests`](Link::interests) appended, with `revents` filled in.
    ///
    /// # Errors
    /// The link is dead for good: its last words. The stack then behaves as on a dead network.
    fn turn(&mut self, now: Instant, fds: &[PollFd]) -> Result<Turned, crate::Error>;

    /// What the link has taken and would lose if it ended now, as far as it can know: 0 for nothing, and less as it
    /// gets less, in whatever unit. By default it sends at once what it takes.
    fn unsent(&mut self, now: Instant) -> u64 {
        let _ = now;
        0
    }

    /// The processes that the link has started, by their ids: children of this process that are no
    /// guests. They may change with a [`Turned::Renewed`].
    fn processes(&self) -> Vec<i32> {
        Vec::new()
    }

    /// The stack has given up connecting `from` its own address `to` another, without a word: whoever
    /// waited is gone. A link that opens connections in the stack's stead gives them up too, so that
    /// no server sees one that nobody wants any more. By default it may.
    fn abandon(&mut self, from: SocketAddr, to: SocketAddr) {
        let _ = (from, to);
    }
}
