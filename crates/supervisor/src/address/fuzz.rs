//! What guests write for an address, against the host's kernel, and against those that are given what was read.

use std::os::fd::AsFd;

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::sys;

const FAMILIES: &[i32] =
    &[libc::AF_INET, libc::AF_INET6, libc::AF_INET6, libc::AF_UNSPEC, libc::AF_UNIX, libc::AF_NETLINK];

/// Bytes of some family, often enough of them.
fn written(input: &mut Input<'_>) -> Vec<u8> {
    const LENGTHS: &[usize] = &[16, 28, 24, 128, 0, 1, 2, 3, 8, 15, 23, 27, 32, 109, 110, 111];
    let family = if input.one_in(16) { input.short() } else { *input.pick(FAMILIES) as u16 };
    let length = *input.pick(LENGTHS);
    let mut bytes = family.to_ne_bytes().to_vec();
    bytes.extend(input.array::<2>());
    let ip = internet(input);
    match i32::from(family) {
        libc::AF_INET => bytes.extend(&ip[12..]),
        libc::AF_INET6 => {
            bytes.extend(if input.one_in(2) { input.array() } else { [0; 4] });
            bytes.extend(ip);
            bytes.extend(u32::from(input.byte()).to_ne_bytes());
        }
        _ => bytes.extend(ip),
    }
    while bytes.len() < length {
        bytes.push(input.byte());
    }
    bytes.truncate(length);
    bytes
}

/// An address, IPv4's in its last bytes.
fn internet(input: &mut Input<'_>) -> [u8; 16] {
    const TEXTS: &[&str] = &[
        "::ffff:127.0.0.1",
        "::1",
        "::",
        "::ffff:0.0.0.0",
        "::ffff:192.0.2.7",
        "2001:db8::1",
        "fe80::1",
        "ff02::1",
        "::ffff:255.255.255.255",
        "::ffff:224.0.0.1",
        "::127.0.0.1",
        "fec0::2",
        "64:ff9b::7f00:1",
    ];
    match input.up_to(3) {
        0 => input.array(),
        _ => input.pick(TEXTS).parse::<Ipv6Addr>().unwrap().octets(),
    }
}

/// What is read is what was written, and what the stack and the host are given.
fn read(input: &mut Input<'_>) {
    let bytes = written(input);
    let parsed = Address::parse(&bytes);
    let family =
        bytes.get(..2).and_then(|family| FAMILIES.iter().position(|f| (*f as u16).to_ne_bytes() == family));
    input.reached((bytes.len().min(32), family, std::mem::discriminant(&parsed)));
    let Some(address) = parsed else { return };
    match address {
        Address::Inet(address) => {
            let mut whole = bytes;
            // Padding, and a scope that is not all there.
            whole.truncate(if whole.len() < V6 { V6_SHORT } else { V6 });
            let length = if address.is_ipv6() { V6 } else { V4 };
            whole.resize(length, 0);
            if address.is_ipv4() {
                whole[8..].fill(0);
            }
            assert_eq!(encode(address, address.is_ipv6()), whole);
            assert_eq!(netshunt_lkl::Name::from(address).bytes(), whole, "what the stack is given");
            assert_eq!(
                Address::parse(&encode(canonical(address), true)).map(inet),
                Some(canonical_mapped(address))
            );
        }
        Address::Unix(name) => {
            assert!(name.len() <= 108);
            assert_eq!(name, bytes[2..]);
        }
        Address::Other(family) => assert_eq!(family.to_ne_bytes(), bytes[..2]),
        Address::Unspec => assert_eq!(bytes[..2], [0, 0]),
    }
}

fn inet(address: Address) -> SocketAddr {
    match address {
        Address::Inet(address) => address,
        other => panic!("{other:?}"),
    }
}

/// As an IPv6 socket is to see it.
fn canonical_mapped(address: SocketAddr) -> SocketAddr {
    for_family(canonical(address), true)
}

/// A TCP socket takes the addresses that the host's takes, as the host takes them, and refuses others with its errno.
fn bound(input: &mut Input<'_>) {
    let mut bytes = written(input);
    let v6 = input.one_in(2);
    // Any port that is free.
    if let Some(port) = bytes.get_mut(2..4) {
        port.fill(0);
    }
    let ours = of_family(&bytes, v6);
    let socket = sys::tcp_socket_of(v6).unwrap();
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND) } else { (libc::IPPROTO_IP, libc::IP_FREEBIND) };
    sys::set_option(socket.as_fd(), level, name, &1_i32.to_ne_bytes()).unwrap();
    let hosts = sys::bind_raw(socket.as_fd(), &bytes).map_err(|error| error.raw_os_error().unwrap());
    input.reached((ours.is_ok(), hosts, v6, bytes.len()));
    match (ours, hosts) {
        (Ok(ours), Ok(())) => {
            let name = sys::local_name(socket.as_fd()).unwrap().unwrap();
            assert_eq!((name.ip(), scope(name)), (ours.ip(), scope(ours)));
        }
        // What is no address of the family's is refused before it is looked at.
        (Ok(_), Err(errno)) => {
            assert!([libc::EADDRNOTAVAIL, libc::EINVAL, libc::ENODEV].contains(&errno), "{errno}");
        }
        // bind(2) of IPv4 takes AF_UNSPEC with INADDR_ANY, which calls/listen.rs knows.
        (Err(errno), Ok(())) => assert_eq!((errno, &bytes[..2]), (libc::EAFNOSUPPORT, &[0; 2][..])),
        (Err(ours), Err(hosts)) => assert_eq!(ours, hosts),
    }
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        // The kernel keeps that of link-local ones.
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() => address.scope_id(),
        _ => 0,
    }
}

/// What is judged: always an address that somebody can have, in one form, and the same if it is asked for again.
fn judged(input: &mut Input<'_>) {
    let some = |input: &mut Input<'_>| -> SocketAddr {
        let ip = Ipv6Addr::from(internet(input));
        let (port, flow, scope) = (input.short(), input.word(), u32::from(input.byte()));
        match ip.to_ipv4_mapped().filter(|_| input.one_in(2)) {
            Some(ip) => SocketAddr::new(ip.into(), port),
            None => SocketAddrV6::new(ip, port, flow, scope).into(),
        }
    };
    let address = some(input);
    let from = if input.one_in(2) { Some(some(input)) } else { None };
    let to = destination(address, from);
    input.reached((to.ip().is_loopback(), to.is_ipv6(), to.ip() == address.ip(), scope(to) != 0));
    assert_eq!(to.port(), address.port());
    assert!(!to.ip().is_unspecified());
    assert_eq!(to.ip().to_canonical(), to.ip());
    assert_eq!(destination(to, from), to);
    if !address.ip().to_canonical().is_unspecified() {
        assert_eq!(to.ip(), address.ip().to_canonical());
    }
    for v6 in [to.is_ipv6(), true] {
        assert_eq!(destination(for_family(to, v6), from), to);
    }
}

#[test]
fn addresses_read() {
    fuzz("addresses_read", read);
}

#[test]
fn addresses_bound() {
    fuzz("addresses_bound", bound);
}

#[test]
fn addresses_judged() {
    fuzz("addresses_judged", judged);
}
