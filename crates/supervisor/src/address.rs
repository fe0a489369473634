//! Socket addresses as guests write them: `struct sockaddr` to values and back (socket(7), ip(7),
//! ipv6(7), unix(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `struct sockaddr_storage` (RFC 3493): no address is longer.
pub(crate) const STORAGE: usize = 128;

const FAMILY: usize = size_of::<libc::sa_family_t>();
const V4: usize = size_of::<libc::sockaddr_in>();
/// The kernel takes an IPv6 address without its scope id (`SIN6_LEN_RFC2133`).
pub(crate) const V6_SHORT: usize = 24;
const V6: usize = size_of::<libc::sockaddr_in6>();
const UNIX: usize = size_of::<libc::sockaddr_un>();

/// What a guest passed to connect(2) or bind(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Inet(SocketAddr),
    Other(u16),
    Unix(Vec<u8>),
    Unspec,
}

impl Address {
    /// Reads what the guest wrote. `None`: too short for its family, `EINVAL`.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(bytes.get(..FAMILY)?.try_into().ok()?);
        Some(match i32::from(family) {
            libc::AF_INET => Address::Inet(v4(bytes)?.into()),
            libc::AF_INET6 => Address::Inet(v6(bytes)?.into()),
            libc::AF_UNIX if bytes.len() <= UNIX => Address::Unix(bytes[FAMILY..].to_vec()),
            libc::AF_UNIX => return None,
            libc::AF_UNSPEC => Address::Unspec,
            _ => Address::Other(family),
        })
    }
}

fn v4(bytes: &[u8]) -> Option<SocketAddrV4> {
    let bytes: &[u8; V4] = bytes.get(..V4)?.try_into().ok()?;
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    Some(SocketAddrV4::new(Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]), port))
}

fn v6(bytes: &[u8]) -> Option<SocketAddrV6> {
    let head = bytes.get(..V6_SHORT)?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    // As it lies in memory: that is how std and the stack's binding write it again.
    let flow = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    let ip: [u8; 16] = head[8..24].try_into().ok()?;
    let scope = bytes.get(24..28).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope))
}

/// `address` as a socket of that family shows it: AF_INET6 sockets see IPv4 v4-mapped.
pub(crate) fn encode(address: SocketAddr, v6_socket: bool) -> Vec<u8> {
    match (address, v6_socket) {
        (SocketAddr::V4(a), false) => encode_v4(a),
        (SocketAddr::V4(a), true) => encode_v6(SocketAddrV6::new(a.ip().to_ipv6_mapped(), a.port(), 0, 0)),
        (SocketAddr::V6(a), _) => encode_v6(a),
    }
}

fn encode_v4(address: SocketAddrV4) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(V4);
    bytes.extend((libc::AF_INET as u16).to_ne_bytes());
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(address.ip().octets());
    bytes.resize(V4, 0);
    bytes
}

fn encode_v6(address: SocketAddrV6) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(V6);
    bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(address.flowinfo().to_ne_bytes());
    bytes.extend(address.ip().octets());
    bytes.extend(address.scope_id().to_ne_bytes());
    bytes
}

/// An IPv4 address in its own form, however the guest wrote it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// `address` in the form that a socket of that family takes in connect(2) and bind(2).
pub(crate) fn for_family(address: SocketAddr, v6_socket: bool) -> SocketAddr {
    match (address.ip(), v6_socket) {
        (IpAddr::V4(ip), true) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

/// What connect(2) and bind(2) of a TCP socket make of an address (tcp_v4_connect(), tcp_v6_connect() and
/// inet_bind_sk(), inet6_bind_sk()): one of its own family, whatever its length says of another.
pub(crate) fn of_family(bytes: &[u8], v6: bool) -> Result<SocketAddr, i32> {
    let family = bytes.get(..FAMILY).and_then(|family| family.try_into().ok()).map(u16::from_ne_bytes);
    let (short, own) = if v6 { (V6_SHORT, libc::AF_INET6) } else { (V4, libc::AF_INET) };
    match family {
        Some(_) if bytes.len() < short => Err(libc::EINVAL),
        Some(family) if i32::from(family) == own => match Address::parse(bytes) {
            Some(Address::Inet(address)) => Ok(address),
            _ => Err(libc::EINVAL),
        },
        Some(_) => Err(libc::EAFNOSUPPORT),
        None => Err(libc::EINVAL),
    }
}

/// Where a connection or a datagram goes that is for `address`, from a socket that is bound to `from`. The
/// unspecified address is, for the kernel, that of the sender itself, or the loopback's
/// (ip_route_output_key_hash_rcu() in net/ipv4/route.c, tcp_v6_connect()).
pub(crate) fn destination(address: SocketAddr, from: Option<SocketAddr>) -> SocketAddr {
    let mut to = canonical(address);
    // Only a link-local address has a scope; what is said of others is not kept.
    if let SocketAddr::V6(to) = &mut to
        && !to.ip().is_unicast_link_local()
        && !to.ip().is_multicast()
    {
        to.set_scope_id(0);
    }
    let own = from.map(|from| canonical(from).ip()).filter(|ip| !ip.is_unspecified());
    match to.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            to.set_ip(own.filter(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into()));
        }
        IpAddr::V6(ip) if ip.is_unspecified() => to.set_ip(match own {
            Some(IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
            _ => Ipv6Addr::LOCALHOST.into(),
        }),
        _ => {}
    }
    to
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["192.0.2.7:80", "[2001:db8::1]:443", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::parse(&encode(address, address.is_ipv6())), Some(Address::Inet(address)));
        }
    }

    #[test]
    fn ipv6_sockets_see_mapped_addresses_and_policies_do_not() {
        let plain: SocketAddr = "192.0.2.7:80".parse().unwrap();
        let Some(Address::Inet(mapped)) = Address::parse(&encode(plain, true)) else { panic!("no address") };
        assert_eq!(mapped.to_string(), "[::ffff:192.0.2.7]:80");
        assert_eq!(canonical(mapped), plain);
        assert_eq!(for_family(plain, true), mapped);
    }

    #[test]
    fn an_unspecified_destination_is_the_sender_itself_or_the_loopback() {
        let to = |address: &str, from: Option<&str>| {
            destination(address.parse().unwrap(), from.map(|from| from.parse().unwrap())).to_string()
        };
        assert_eq!(to("0.0.0.0:80", None), "127.0.0.1:80");
        assert_eq!(to("0.0.0.0:80", Some("0.0.0.0:7")), "127.0.0.1:80");
        assert_eq!(to("0.0.0.0:80", Some("10.0.2.15:7")), "10.0.2.15:80");
        assert_eq!(to("[::ffff:0.0.0.0]:80", None), "127.0.0.1:80");
        assert_eq!(to("[::]:80", None), "[::1]:80");
        assert_eq!(to("[::]:80", Some("[::ffff:127.0.0.1]:7")), "127.0.0.1:80");
        assert_eq!(to("[2001:db8::1%7]:80", None), "[2001:db8::1]:80");
        assert_eq!(to("[fe80::1%7]:80", None), "[fe80::1%7]:80");
        assert_eq!(to("192.0.2.7:80", Some("10.0.2.15:7")), "192.0.2.7:80");
    }

    #[test]
    fn an_address_is_one_of_the_sockets_own_family() {
        let v4 = encode("192.0.2.7:80".parse().unwrap(), false);
        let v6 = encode("[2001:db8::1]:80".parse().unwrap(), true);
        assert!(of_family(&v4, false).is_ok() && of_family(&v6, true).is_ok());
        // Longer than it need be, and of the other family.
        assert_eq!(of_family(&v6, false), Err(libc::EAFNOSUPPORT));
        assert_eq!(of_family(&v6[..16], false), Err(libc::EAFNOSUPPORT));
        // Too short for an AF_INET6 socket, whatever it is.
        assert_eq!(of_family(&v4, true), Err(libc::EINVAL));
        assert_eq!(of_family(&[1, 0, b'a'], false), Err(libc::EINVAL));
        assert_eq!(of_family(&[], false), Err(libc::EINVAL));
    }

    #[test]
    fn a_flow_label_reaches_the_stack_as_it_was_written() {
        let mut bytes = encode("[2001:db8::1]:443".parse().unwrap(), true);
        bytes[4..8].copy_from_slice(&[0, 1, 2, 3]);
        let Some(Address::Inet(address)) = Address::parse(&bytes) else { panic!("no address") };
        assert_eq!(netshunt_lkl::Name::from(address).bytes(), bytes);
        assert_eq!(encode(address, true), bytes);
    }

    #[test]
    fn short_addresses_are_refused_and_unknown_families_named() {
        assert_eq!(Address::parse(&[2]), None);
        assert_eq!(Address::parse(&encode("192.0.2.7:80".parse().unwrap(), false)[..15]), None);
        assert_eq!(Address::parse(&[16, 0, 0, 0]), Some(Address::Other(16)));
        assert_eq!(Address::parse(&[0, 0]), Some(Address::Unspec));
        assert_eq!(Address::parse(b"\x01\0/run/x"), Some(Address::Unix(b"/run/x".to_vec())));
        assert_eq!(Address::parse(&[&[1, 0][..], &[b'x'; 109]].concat()), None);
    }
}
