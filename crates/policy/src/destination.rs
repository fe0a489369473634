//! What is judged.

use std::fmt;
use std::net::SocketAddr;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// ICMP and ICMPv6 echo. Has no ports.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    pub(crate) const ALL: [Proto; 3] = [Proto::Icmp, Proto::Tcp, Proto::Udp];

    /// The word in a rule and in the flow log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Proto::Icmp => "icmp",
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who starts a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Somebody reaches the guest: only `in:` rules match.
    In,
    /// The guest reaches out: `in:` rules do not match.
    Out,
}

/// One flow to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Where the flow goes: the remote end of an outgoing flow, the local address of an incoming
    /// one. The port is ignored for [`Proto::Icmp`], the scope of an IPv6 address always.
    pub address: SocketAddr,
    /// Its protocol.
    pub proto: Proto,
    /// Who starts it.
    pub direction: Direction,
}

impl Destination {
    /// What a TCP connect() to `address` asks for.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Destination { address, proto: Proto::Tcp, direction: Direction::Out }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Destination { address, proto, direction } = self;
        if *direction == Direction::In {
            f.write_str("in:")?;
        }
        match proto {
            Proto::Icmp if address.is_ipv6() => write!(f, "[{}]/{proto}", address.ip()),
            Proto::Icmp => write!(f, "{}/{proto}", address.ip()),
            Proto::Tcp | Proto::Udp => write!(f, "{address}/{proto}"),
        }
    }
}
