//! Datagrams between two kernels that a wire joins, in virtual time: ping, groups, refusals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6};
use netshunt_lkl::{Kernel, Name, Socket};

use common::control::{receive, switch_on};
use common::twin::{Twin, Weather};
use common::{errno, now};

fn twin() -> Twin {
    let twin = Twin::new(Weather { delay: Duration::from_millis(3), room: 10_000, ..Weather::default() });
    // Duplicate address detection of the link-local addresses, and the first reports.
    let settled = twin.clock.now() + 5_000_000_000;
    twin.until(|| (twin.clock.now() >= settled).then_some(()));
    twin
}

fn bound(kernel: &Kernel, at: &str) -> Socket {
    let at: SocketAddr = at.parse().unwrap();
    let domain = if at.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let s = kernel.socket(domain, libc::SOCK_DGRAM, 0, 1).unwrap();
    kernel.bind(s, at).unwrap();
    s
}

#[test]
fn everybody_may_ping() {
    let twin = twin();
    let kernel = &twin.nodes[0].kernel;
    let ping = |domain, protocol| kernel.user_socket(domain, libc::SOCK_DGRAM, protocol, 1);
    let kinds = [
        (libc::AF_INET, libc::IPPROTO_ICMP, 8, 0, "10.1.0.2:0"),
        (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129, "[fd00::2]:0"),
    ];
    for (domain, protocol, ..) in kinds {
        assert_eq!(errno(ping(domain, protocol)), Some(libc::EACCES), "nobody, as Linux has it");
    }
    kernel.sysctl("net/ipv4/ping_group_range", "0 2147483647").unwrap();
    for (domain, protocol, request, reply, to) in kinds {
        let to: SocketAddr = to.parse().unwrap();
        let s = ping(domain, protocol).unwrap();
        // Type, code, checksum, identifier (the kernel's own), sequence.
        let mut echo = vec![request, 0, 0, 0, 0, 0, 0, 9];
        echo.extend(b"payload");
        switch_on(kernel, s, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS);
        let began = twin.clock.now() % 1_000_000_000;
        assert_eq!(kernel.send_to(s, &echo, to).unwrap(), echo.len());
        let got = twin.until(|| now(receive(kernel, s, 0)));
        assert_eq!((got.data[0], &got.data[6..]), (reply, &echo[6..]));
        assert_eq!(got.from, Name::from(to).bytes());
        // struct timespec. Twice there and back: the neighbour, too, is asked for.
        let stamp = got.find(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS).unwrap();
        let arrived = u64::from_ne_bytes(stamp[8..].try_into().unwrap());
        let took = (arrived + 1_000_000_000 - began) % 1_000_000_000;
        assert_eq!(Duration::from_nanos(took).as_millis(), 12);
    }
}

#[test]
fn groups_are_joined_and_left() {
    let twin = twin();
    let [here, there] = [0, 1].map(|n| &twin.nodes[n].kernel);
    let index = twin.nodes[1].nic.ifindex.to_ne_bytes();
    for (any, group, level, join, leave, reports) in [
        ("0.0.0.0:9300", "239.1.2.3:9300", IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, libc::IP_DROP_MEMBERSHIP, 2),
        (
            "[::]:9301",
            "[ff02::4711%2]:9301",
            IPPROTO_IPV6,
            libc::IPV6_ADD_MEMBERSHIP,
            libc::IPV6_DROP_MEMBERSHIP,
            58,
        ),
    ] {
        let (one, two) = (bound(here, &any.replace("930", "931")), bound(there, any));
        let group: SocketAddr = group.parse().unwrap();
        // struct ip_mreqn, struct ipv6_mreq
        let request = match group {
            SocketAddr::V4(v4) => [&v4.ip().octets()[..], &[0; 4], &index].concat(),
            SocketAddr::V6(v6) => [&v6.ip().octets()[..], &index].concat(),
        };
        let send = || {
            here.send_to(one, b"all", group).unwrap();
            let later = twin.clock.now() + 1_000_000_000;
            twin.until(|| (twin.clock.now() >= later).then_some(()));
        };
        if group.is_ipv4() {
            here.set_option(one, IPPROTO_IP, libc::IP_MULTICAST_IF, &[10, 1, 0, 1]).unwrap();
        }
        let before = twin.nodes[1].wire.borrow().sent;
        there.set_option(two, level, join, &request).unwrap();
        send();
        assert_eq!(receive(there, two, 0).unwrap().data, b"all");
        assert!(twin.nodes[1].wire.borrow().sent > before, "no report of protocol {reports}");
        there.set_option(two, level, leave, &request).unwrap();
        send();
        assert_eq!(errno(receive(there, two, 0)), Some(libc::EAGAIN));
    }
}

#[test]
fn broadcasts_need_leave() {
    let twin = twin();
    let [here, there] = [0, 1].map(|n| &twin.nodes[n].kernel);
    let (one, two) = (bound(here, "0.0.0.0:9320"), bound(there, "0.0.0.0:9321"));
    for to in ["10.1.0.255:9321", "255.255.255.255:9321"] {
        let to = to.parse().unwrap();
        let s = bound(here, "10.1.0.1:0");
        assert!(errno(here.send_to(s, b"all", to)) == Some(libc::EACCES), "{to}");
        switch_on(here, s, libc::SOL_SOCKET, libc::SO_BROADCAST);
        switch_on(here, s, IPPROTO_IP, libc::IP_PKTINFO);
        here.set_option(s, IPPROTO_IP, libc::IP_MULTICAST_IF, &[10, 1, 0, 1]).unwrap();
        here.send_to(s, b"all", to).unwrap();
        assert_eq!(twin.until(|| now(receive(there, two, 0))).data, b"all");
    }
    assert_eq!(errno(receive(here, one, 0)), Some(libc::EAGAIN));
}

#[test]
fn a_refusal_crosses_the_wire() {
    let twin = twin();
    let kernel = &twin.nodes[0].kernel;
    for (from, to) in [("10.1.0.1:9330", "10.1.0.2:9331"), ("[fd00::1]:9330", "[fd00::2]:9331")] {
        let s = bound(kernel, from);
        kernel.connect(s, to.parse().unwrap()).unwrap();
        kernel.send(s, b"anybody?").unwrap();
        assert_eq!(twin.until(|| kernel.take_error(s).unwrap()), libc::ECONNREFUSED);
    }
}
