//! Ports of the host that lead to the stack.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU16;
use std::str::FromStr;

/// The form of a [`Publish`], for messages.
const FORM: &str = "[ADDR:]HOST[-HOST]:GUEST[-GUEST][/tcp|udp], an IPv6 ADDR in brackets";

/// What is carried to a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Ports of the host that lead to as many ports of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The host's address; `None` for all that it has, of each family that the link carries.
    pub address: Option<IpAddr>,
    /// The first port of the host.
    pub host: NonZeroU16,
    /// The first port of the stack.
    pub guest: NonZeroU16,
    /// How many more follow each.
    pub more: u16,
    /// What is carried.
    pub protocol: Protocol,
}

/// A [`Publish`] that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The address is none.
    #[error("`{0}` is no address: {FORM}")]
    Address(String),
    /// There are fewer parts than needed, or more.
    #[error("`{0}` is not {FORM}")]
    Form(String),
    /// As many ports of the host as of the guest are needed.
    #[error("{host} ports of the host cannot lead to {guest} of the command")]
    Lengths {
        /// How many of the host.
        host: u32,
        /// How many of the stack.
        guest: u32,
    },
    /// Not a port, or a range that ends before it begins.
    #[error("`{0}` is neither a port from 1 to 65535 nor a range of them")]
    Ports(String),
}

impl Publish {
    /// The host's addresses that it takes, where the link carries IPv6 or not.
    pub fn addresses(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> + use<> {
        let all: [Option<IpAddr>; 2] = match self.address {
            Some(address) => [Some(address), None],
            None => [Some(Ipv4Addr::UNSPECIFIED.into()), ipv6.then_some(Ipv6Addr::UNSPECIFIED.into())],
        };
        all.into_iter().flatten()
    }

    /// Each port of the host, and the port of the stack that it leads to.
    pub fn ports(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let (host, guest) = (self.host.get(), self.guest.get());
        (0..=self.more).map(move |i| (host + i, guest + i))
    }

    /// The ports of the host, as they are written: `FIRST`, or `FIRST-LAST`.
    #[must_use]
    pub fn host_range(&self) -> String {
        self.range(self.host)
    }

    /// The ports of the stack, as they are written.
    #[must_use]
    pub fn guest_range(&self) -> String {
        self.range(self.guest)
    }

    fn range(&self, first: NonZeroU16) -> String {
        match self.more {
            0 => first.to_string(),
            more => format!("{first}-{}", first.get() + more),
        }
    }

    /// Finds out whether its ports are to be had on this host now.
    ///
    /// # Errors
    /// Of bind(2) (EADDRINUSE, EADDRNOTAVAIL, EACCES below `net.ipv4.ip_unprivileged_port_start`), with the
    /// address at fault.
    pub fn check(&self, ipv6: bool) -> Result<(), (SocketAddr, io::Error)> {
        for address in self.addresses(ipv6) {
            for (port, _) in self.ports() {
                let at = SocketAddr::new(address, port);
                let bound = match self.protocol {
                    Protocol::Tcp => TcpListener::bind(at).map(drop),
                    Protocol::Udp => UdpSocket::bind(at).map(drop),
                };
                bound.map_err(|error| (at, error))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Publish {
    type Err = PublishError;

    /// `[ADDR:]HOST[-HOST]:GUEST[-GUEST][/tcp|udp]`; TCP when it is not said.
    fn from_str(text: &str) -> Result<Self, PublishError> {
        let form = || PublishError::Form(text.to_owned());
        let (rest, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some(_) => return Err(form()),
        };
        let (rest, guest) = rest.rsplit_once(':').ok_or_else(form)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => (Some(parse_address(address)?), host),
            None => (None, rest),
        };
        let ((host, more), (guest, more_of_guest)) = (parse_ports(host)?, parse_ports(guest)?);
        if more != more_of_guest {
            let (host, guest) = (u32::from(more) + 1, u32::from(more_of_guest) + 1);
            return Err(PublishError::Lengths { host, guest });
        }
        Ok(Publish { address, host, guest, more, protocol })
    }
}

fn parse_address(text: &str) -> Result<IpAddr, PublishError> {
    let address = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse().map(IpAddr::V6),
        None => text.parse().map(IpAddr::V4),
    };
    address.map_err(|_| PublishError::Address(text.to_owned()))
}

/// The first, and how many more.
fn parse_ports(text: &str) -> Result<(NonZeroU16, u16), PublishError> {
    let fault = || PublishError::Ports(text.to_owned());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |digits: &str| match digits.strip_prefix('+') {
        Some(_) => Err(fault()),
        None => digits.parse::<NonZeroU16>().map_err(|_| fault()),
    };
    let (first, last) = (port(first)?, port(last)?);
    let more = last.get().checked_sub(first.get()).ok_or_else(fault)?;
    Ok((first, more))
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.host_range(), self.guest_range(), self.protocol)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Publish {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in [
            "8080:80/tcp",
            "127.0.0.1:8080:80/udp",
            "[::1]:8080-8089:80-89/tcp",
            "0.0.0.0:1-65535:1-65535/udp",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse("8080:80").to_string(), "8080:80/tcp");
    }

    #[test]
    fn a_range_leads_port_by_port() {
        let ports: Vec<_> = parse("65534-65535:1-2").ports().collect();
        assert_eq!(ports, [(65534, 1), (65535, 2)]);
    }

    #[test]
    fn all_addresses_are_those_of_the_links_families() {
        let addresses = |text, ipv6| parse(text).addresses(ipv6).map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(addresses("80:80", true), ["0.0.0.0", "::"]);
        assert_eq!(addresses("80:80", false), ["0.0.0.0"]);
        assert_eq!(addresses("[::1]:80:80", false), ["::1"]);
    }

    #[test]
    fn mistakes_are_named() {
        let fault = |text: &str| text.parse::<Publish>().unwrap_err().to_string();
        assert_eq!(fault("80"), format!("`80` is not {FORM}"));
        assert_eq!(fault("80:80/sctp"), format!("`80:80/sctp` is not {FORM}"));
        assert_eq!(fault("::1:80:80"), format!("`::1` is no address: {FORM}"));
        assert_eq!(fault("localhost:80:80"), format!("`localhost` is no address: {FORM}"));
        assert_eq!(fault("80-90:80"), "11 ports of the host cannot lead to 1 of the command");
        for (text, ports) in [
            ("0:80", "0"),
            ("80:0", "0"),
            ("65536:80", "65536"),
            ("9-8:9-8", "9-8"),
            ("+1:1", "+1"),
            ("80:", ""),
        ] {
            assert_eq!(
                fault(text),
                format!("`{ports}` is neither a port from 1 to 65535 nor a range of them")
            );
        }
    }

    #[test]
    fn a_port_in_use_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        let (found, error) = parse(&format!("127.0.0.1:{}:80", at.port())).check(true).unwrap_err();
        assert_eq!((found, error.kind()), (at, io::ErrorKind::AddrInUse));
        drop(taken);
        parse(&format!("127.0.0.1:{}:80", at.port())).check(true).unwrap();
    }
}
