//! Netlink sockets: what they tell everybody, and whom they let change something.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;

use netshunt_lkl::{Kernel, NicConfig, Socket, Transmit};

use common::{errno, kernel, pair};

const DUMP: i32 = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
const CHANGE: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `struct nlmsghdr`, and what follows.
fn request(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Asks, and gives the bodies of the answers. The errno of a refusal.
fn ask(kernel: &Kernel, s: Socket, kind: u16, flags: i32, body: &[u8]) -> Result<Vec<Vec<u8>>, i32> {
    let bytes = request(kind, flags, body);
    assert_eq!(kernel.send(s, &bytes).unwrap(), bytes.len());
    let mut answers = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let n = kernel.recv(s, &mut buffer).unwrap();
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            let answer = &rest[16..length];
            match i32::from(u16::from_ne_bytes(rest[4..6].try_into().unwrap())) {
                libc::NLMSG_DONE => return Ok(answers),
                libc::NLMSG_ERROR => match -i32::from_ne_bytes(answer[..4].try_into().unwrap()) {
                    0 => return Ok(answers),
                    errno => return Err(errno),
                },
                _ => answers.push(answer.to_vec()),
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// The value of an attribute behind a fixed head.
fn attribute(message: &[u8], head: usize, kind: u16) -> Option<&[u8]> {
    let mut rest = &message[head..];
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if u16::from_ne_bytes([rest[2], rest[3]]) == kind {
            return Some(&rest[4..length]);
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    None
}

fn user(kernel: &Kernel, protocol: i32) -> Socket {
    kernel.user_socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol, 1).unwrap()
}

/// A kernel with `eth0` (2) and addresses of both families.
fn on_a_wire() -> Kernel {
    let kernel = kernel();
    let config = NicConfig::new([2, 0, 0, 0, 0, 7], 1400);
    let nic = kernel.add_nic(config, Box::new(|_| Transmit::Taken)).unwrap();
    kernel.interface_up(nic.ifindex).unwrap();
    kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap()).unwrap();
    kernel.add_address(nic.ifindex, "fd00::15/64".parse().unwrap()).unwrap();
    kernel.add_route("0.0.0.0/0".parse().unwrap(), Some("10.0.2.2".parse().unwrap()), nic.ifindex).unwrap();
    kernel
}

/// `struct ifinfomsg`: an interface, its flags and which of them change.
fn link(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

#[test]
fn links_addresses_and_routes_are_shown() {
    let kernel = on_a_wire();
    let s = user(&kernel, libc::NETLINK_ROUTE);
    let links = ask(&kernel, s, libc::RTM_GETLINK, DUMP, &link(0, 0, 0)).unwrap();
    let shown: Vec<_> = links
        .iter()
        .map(|m| {
            let flags = i32::from_ne_bytes(m[8..12].try_into().unwrap());
            (attribute(m, 16, libc::IFLA_IFNAME).unwrap(), flags & libc::IFF_UP != 0)
        })
        .collect();
    assert_eq!(shown, [(&b"lo\0"[..], true), (b"eth0\0", true)]);

    // struct ifaddrmsg: family, prefix, flags, scope, interface.
    let addresses = ask(&kernel, s, libc::RTM_GETADDR, DUMP, &[0; 8]).unwrap();
    let find = |address: &str, interface: u8| {
        let address: std::net::IpAddr = address.parse().unwrap();
        let bytes = match address {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut found = addresses.iter().filter(|m| m[4] == interface);
        found.find(|m| attribute(m, 8, libc::IFA_ADDRESS) == Some(&bytes)).map(|m| m[1])
    };
    assert_eq!(find("127.0.0.1", 1), Some(8));
    assert_eq!(find("::1", 1), Some(128));
    assert_eq!(find("10.0.2.15", 2), Some(24));
    assert_eq!(find("fd00::15", 2), Some(64));

    // struct rtmsg is 12 bytes; the default route has no destination.
    let mut head = [0; 12];
    head[0] = libc::AF_INET as u8;
    let routes = ask(&kernel, s, libc::RTM_GETROUTE, DUMP, &head).unwrap();
    let mut defaults = routes.iter().filter(|m| m[1] == 0 && attribute(m, 12, libc::RTA_GATEWAY).is_some());
    assert_eq!(attribute(defaults.next().unwrap(), 12, libc::RTA_GATEWAY), Some(&[10, 0, 2, 2][..]));
    assert_eq!(defaults.next(), None);
}

#[test]
fn an_ordinary_user_changes_nothing() {
    let kernel = on_a_wire();
    let s = user(&kernel, libc::NETLINK_ROUTE);
    let mut address = vec![libc::AF_INET as u8, 32, 0, 0, 1, 0, 0, 0];
    address.extend([8, 0, libc::IFA_LOCAL as u8, 0, 127, 9, 9, 9]);
    let mut route = vec![libc::AF_INET as u8, 32, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    route.extend([8, 0, libc::RTA_DST as u8, 0, 192, 0, 2, 1, 8, 0, libc::RTA_OIF as u8, 0, 1, 0, 0, 0]);
    let down = link(1, 0, libc::IFF_UP as u32);
    let changes = [
        (libc::RTM_SETLINK, &down),
        (libc::RTM_NEWLINK, &down),
        (libc::RTM_NEWADDR, &address),
        (libc::RTM_DELADDR, &address),
        (libc::RTM_NEWROUTE, &route),
        (libc::RTM_NEWNEIGH, &address),
        (libc::RTM_NEWRULE, &route),
        (libc::RTM_NEWQDISC, &down),
    ];
    for (kind, body) in changes {
        assert_eq!(ask(&kernel, s, kind, CHANGE, body), Err(libc::EPERM), "{kind}");
    }
    // The very requests are in order: the host may.
    let host = kernel.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, 2).unwrap();
    assert_eq!(ask(&kernel, host, libc::RTM_NEWADDR, CHANGE, &address), Ok(vec![]));
    assert_eq!(ask(&kernel, host, libc::RTM_NEWROUTE, CHANGE, &route), Ok(vec![]));
    assert_eq!(
        ask(&kernel, host, libc::RTM_NEWLINK, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &down),
        Ok(vec![])
    );
    // And the user still may not.
    assert_eq!(ask(&kernel, s, libc::RTM_DELADDR, CHANGE, &address), Err(libc::EPERM));
}

#[test]
fn an_ordinary_user_has_no_other_rights_either() {
    let kernel = kernel();
    let raw = kernel.user_socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP, 1);
    assert_eq!(errno(raw), Some(libc::EPERM));
    let s = kernel.user_socket(libc::AF_INET, libc::SOCK_STREAM, 0, 1).unwrap();
    assert_eq!(errno(kernel.bind(s, "127.0.0.1:80".parse().unwrap())), Some(libc::EACCES));
    let mark = |s| kernel.set_option(s, libc::SOL_SOCKET, libc::SO_MARK, &7_i32.to_ne_bytes());
    assert_eq!(errno(mark(s)), Some(libc::EPERM));

    // What it accepts is like it.
    let at: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    kernel.bind(s, at).unwrap();
    kernel.listen(s, 1).unwrap();
    let client = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 2).unwrap();
    let _ = kernel.connect(client, at);
    kernel.run();
    let (served, _) = kernel.accept_from(s, 3).unwrap();
    assert_eq!(errno(mark(served)), Some(libc::EPERM));
    // The host is what it was.
    mark(client).unwrap();
}

#[test]
fn sockets_are_listed() {
    let kernel = kernel();
    pair(&kernel, "127.0.0.1:9200");
    for (domain, kind, protocol, at) in [
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP, "127.0.0.1:9201"),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP, "[::1]:9202"),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW, "127.0.0.1:0"),
    ] {
        let s = kernel.socket(domain, kind, protocol, 5).unwrap();
        kernel.bind(s, at.parse().unwrap()).unwrap();
    }
    let s = user(&kernel, libc::NETLINK_SOCK_DIAG);
    // struct inet_diag_req_v2 is 56 bytes: family, protocol, …, states.
    let list = |family: i32, protocol: i32| {
        let mut body = vec![0; 56];
        body[0] = family as u8;
        body[1] = protocol as u8;
        body[4..8].fill(0xff);
        let answers = ask(&kernel, s, SOCK_DIAG_BY_FAMILY, DUMP, &body).unwrap();
        // struct inet_diag_msg: family, state, timer, retransmissions, source port…
        let mut ports: Vec<_> = answers.iter().map(|m| u16::from_be_bytes([m[4], m[5]])).collect();
        ports.sort_unstable();
        ports
    };
    let tcp = list(libc::AF_INET, libc::IPPROTO_TCP);
    assert_eq!((tcp.len(), tcp.iter().filter(|&&port| port == 9200).count()), (3, 2), "{tcp:?}");
    assert_eq!(list(libc::AF_INET, libc::IPPROTO_UDP), [9201]);
    assert_eq!(list(libc::AF_INET6, libc::IPPROTO_UDP), [9202]);
    assert_eq!(list(libc::AF_INET, libc::IPPROTO_RAW).len(), 1);
}

#[test]
fn names_are_netlinks() {
    let kernel = kernel();
    let s = user(&kernel, libc::NETLINK_ROUTE);
    // struct sockaddr_nl: family, padding, port, groups.
    let mut name = [0; 12];
    name[0] = libc::AF_NETLINK as u8;
    name[4..8].copy_from_slice(&4711_u32.to_ne_bytes());
    name[8..12].copy_from_slice(&(libc::RTMGRP_IPV4_IFADDR as u32).to_ne_bytes());
    assert_eq!(errno(kernel.bind_name(s, &name[..4])), Some(libc::EINVAL));
    assert_eq!(errno(kernel.bind_name(s, &[16])), Some(libc::EINVAL));
    assert_eq!(errno(kernel.bind_name(s, &[16; 129])), Some(libc::EINVAL));
    kernel.bind_name(s, &name).unwrap();
    let bound = kernel.local_name(s).unwrap();
    assert_eq!((bound.family(), bound.bytes()), (libc::AF_NETLINK, &name[..]));
    assert_eq!(errno(kernel.local_address(s)), Some(libc::EAFNOSUPPORT));
    assert_eq!(kernel.peer_name(s).unwrap().bytes()[4..8], [0; 4], "the kernel");

    // It is told of changes that others make.
    kernel.add_address(1, "127.8.8.8/32".parse().unwrap()).unwrap();
    let mut news = [0; 512];
    kernel.recv(s, &mut news).unwrap();
    assert_eq!(u16::from_ne_bytes([news[4], news[5]]), libc::RTM_NEWADDR);
}
