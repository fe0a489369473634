//! Whole messages: addresses and control data, both ways.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{IPPROTO_IP, IPPROTO_IPV6, SOL_SOCKET, SOL_UDP};
use netshunt_lkl::{Clock, Config, Kernel, Message, MessageRoom, Name, Socket, VirtualClock};

use common::control::{control, receive, receive_into, send, switch_on};
use common::{boot, errno, kernel, now, pair, until};

fn datagrams(kernel: &Kernel, ip: &str) -> (Socket, Socket, SocketAddr, SocketAddr) {
    let any: SocketAddr = format!("{ip}:0").parse().unwrap();
    let domain = if any.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let [one, two] = [1, 2].map(|cookie| {
        let socket = kernel.socket(domain, libc::SOCK_DGRAM, 0, cookie).unwrap();
        kernel.bind(socket, any).unwrap();
        socket
    });
    (one, two, kernel.local_address(one).unwrap(), kernel.local_address(two).unwrap())
}

#[test]
fn control_data_of_ipv4_arrives() {
    let kernel = kernel();
    let (one, two, from, to) = datagrams(&kernel, "127.0.0.1");
    for name in [libc::IP_PKTINFO, libc::IP_RECVTOS, libc::IP_RECVTTL] {
        switch_on(&kernel, two, IPPROTO_IP, name);
    }
    switch_on(&kernel, two, SOL_SOCKET, libc::SO_TIMESTAMPNS);
    let mut wanted = control(IPPROTO_IP, libc::IP_TOS, &[0x28]);
    wanted.extend(control(IPPROTO_IP, libc::IP_TTL, &7_i32.to_ne_bytes()));
    // struct in_pktinfo: from another address of lo than the bound one.
    let source = [1_i32.to_ne_bytes(), [127, 0, 0, 9], [0; 4]].concat();
    wanted.extend(control(IPPROTO_IP, libc::IP_PKTINFO, &source));
    assert_eq!(send(&kernel, one, b"two pieces", to, &wanted).unwrap(), 10);
    kernel.poll();
    let got = receive(&kernel, two, 0).unwrap();
    assert_eq!(got.data, b"two pieces");
    assert_eq!(got.from, Name::from(SocketAddr::from(([127, 0, 0, 9], from.port()))).bytes());
    assert_eq!(got.find(IPPROTO_IP, libc::IP_TOS), Some(&[0x28][..]));
    assert_eq!(got.number(IPPROTO_IP, libc::IP_TTL), Some(7));
    let info = [1_i32.to_ne_bytes(), [127, 0, 0, 1], [127, 0, 0, 1]].concat();
    assert_eq!(got.find(IPPROTO_IP, libc::IP_PKTINFO), Some(&info[..]));
    assert_eq!(got.find(SOL_SOCKET, libc::SO_TIMESTAMPNS).map(<[u8]>::len), Some(16));
    assert_eq!(got.received.flags, 0);
}

/// What SO_TIMESTAMPNS says of a datagram to oneself, in ns since 1970.
fn stamp(kernel: &Kernel, one: Socket, two: Socket, to: SocketAddr) -> u64 {
    kernel.run();
    send(kernel, one, b"x", to, &[]).unwrap();
    kernel.poll();
    let got = receive(kernel, two, 0).unwrap();
    let stamp = got.find(SOL_SOCKET, libc::SO_TIMESTAMPNS).unwrap();
    let [seconds, nanos] = [0, 8].map(|at| u64::from_ne_bytes(stamp[at..at + 8].try_into().unwrap()));
    seconds * 1_000_000_000 + nanos
}

#[test]
fn datagrams_are_stamped_with_the_hosts_wall_clock() {
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let kernel = kernel();
    let (one, two, _, to) = datagrams(&kernel, "127.0.0.1");
    switch_on(&kernel, two, SOL_SOCKET, libc::SO_TIMESTAMPNS);
    // Even the first.
    for _ in 0..3 {
        let before = wall();
        let stamp = stamp(&kernel, one, two, to);
        assert!((before..=wall()).contains(&stamp), "{before} {stamp}");
    }
}

#[test]
fn a_wall_clock_that_is_set_is_followed() {
    let clock = VirtualClock::new();
    let kernel = boot(Config::default().memory, Clock::Virtual(clock.clone()));
    let (one, two, _, to) = datagrams(&kernel, "127.0.0.1");
    switch_on(&kernel, two, SOL_SOCKET, libc::SO_TIMESTAMPNS);
    for hours in [0, 50, 2] {
        clock.set_wall(Duration::from_secs(hours * 3600));
        clock.advance(Duration::from_secs(1));
        let wall = 1_000_000_000_000_000_000 + hours * 3_600_000_000_000 + clock.now();
        assert_eq!(stamp(&kernel, one, two, to), wall);
    }
}

#[test]
fn control_data_of_ipv6_arrives() {
    let kernel = kernel();
    let (one, two, from, to) = datagrams(&kernel, "[::1]");
    for name in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS, libc::IPV6_RECVHOPLIMIT] {
        switch_on(&kernel, two, IPPROTO_IPV6, name);
    }
    let mut wanted = control(IPPROTO_IPV6, libc::IPV6_TCLASS, &0x28_i32.to_ne_bytes());
    wanted.extend(control(IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &7_i32.to_ne_bytes()));
    send(&kernel, one, b"six", to, &wanted).unwrap();
    kernel.poll();
    let got = receive(&kernel, two, 0).unwrap();
    assert_eq!((&got.data[..], &got.from[..]), (&b"six"[..], Name::from(from).bytes()));
    assert_eq!(got.number(IPPROTO_IPV6, libc::IPV6_TCLASS), Some(0x28));
    assert_eq!(got.number(IPPROTO_IPV6, libc::IPV6_HOPLIMIT), Some(7));
    let info = got.find(IPPROTO_IPV6, libc::IPV6_PKTINFO).unwrap();
    assert_eq!(info[..16], std::net::Ipv6Addr::LOCALHOST.octets());
}

#[test]
fn what_may_hold_descriptors_is_refused() {
    let kernel = kernel();
    let (one, two, _, to) = datagrams(&kernel, "127.0.0.1");
    let refused = [
        control(SOL_SOCKET, libc::SCM_RIGHTS, &0_i32.to_ne_bytes()),
        control(SOL_SOCKET, libc::SCM_CREDENTIALS, &[0; 12]),
        control(IPPROTO_IP, 9999, &[0; 4]),
        control(9999, 1, &[0; 4]),
        // Too long for where it lies, and too short for itself.
        [1000_usize.to_ne_bytes(), [0; 8]].concat(),
        [3_usize.to_ne_bytes(), [0; 8]].concat(),
    ];
    for control in refused {
        assert_eq!(errno(send(&kernel, one, b"x", to, &control)), Some(libc::EINVAL), "{control:?}");
    }
    let long = control(IPPROTO_IP, libc::IP_TTL, &vec![0; 1 << 20]);
    assert_eq!(errno(send(&kernel, one, b"x", to, &long)), Some(libc::ENOBUFS));
    kernel.poll();
    assert_eq!(errno(receive(&kernel, two, 0)), Some(libc::EAGAIN));
    // On a netlink socket too.
    let netlink = kernel.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, 3).unwrap();
    let rights = control(SOL_SOCKET, libc::SCM_RIGHTS, &0_i32.to_ne_bytes());
    let message = Message { control: &rights, ..Message::default() };
    assert_eq!(errno(kernel.send_message(netlink, &message, 0)), Some(libc::EINVAL));
}

#[test]
fn too_little_room_is_told() {
    let kernel = kernel();
    let (one, two, from, to) = datagrams(&kernel, "127.0.0.1");
    switch_on(&kernel, two, IPPROTO_IP, libc::IP_PKTINFO);
    kernel.send_to(one, b"a long datagram", to).unwrap();
    kernel.poll();
    let got = receive_into(&kernel, two, libc::MSG_PEEK | libc::MSG_TRUNC, 4, 0).unwrap();
    assert_eq!((got.received.data, got.received.control), (15, 0));
    assert_eq!(got.received.flags, libc::MSG_TRUNC | libc::MSG_CTRUNC);
    assert_eq!(got.from, Name::from(from).bytes());

    let mut name = [0; 4];
    let mut room = MessageRoom { from: &mut name, ..MessageRoom::default() };
    assert_eq!(kernel.receive_message(two, &mut room, 0).unwrap().from, 16, "the whole address's length");
    assert_eq!(name, Name::from(from).bytes()[..4]);

    let many: Vec<_> = (0..1025).map(|_| std::io::IoSlice::new(b"x")).collect();
    let message = Message { data: &many, ..Message::default() };
    assert_eq!(errno(kernel.send_message(one, &message, 0)), Some(libc::EMSGSIZE));
    let message = Message { to: &[2], ..Message::default() };
    assert_eq!(errno(kernel.send_message(one, &message, 0)), Some(libc::EINVAL));
    let message = Message { to: &[2; 129], ..Message::default() };
    assert_eq!(errno(kernel.send_message(one, &message, 0)), Some(libc::EINVAL));
}

#[test]
fn the_largest_and_the_smallest_datagram() {
    let kernel = kernel();
    for (ip, largest) in [("127.0.0.1", 65_507), ("[::1]", 65_527)] {
        let (one, two, _, to) = datagrams(&kernel, ip);
        for size in [0, largest] {
            assert_eq!(send(&kernel, one, &vec![3; size], to, &[]).unwrap(), size);
            let got = until(&kernel, || now(receive(&kernel, two, 0)));
            assert_eq!(got.data, vec![3; size]);
        }
        assert_eq!(errno(send(&kernel, one, &vec![0; largest + 1], to, &[])), Some(libc::EMSGSIZE));
    }
}

#[test]
fn refusals_lie_in_the_error_queue() {
    let kernel = kernel();
    for (ip, level, name) in
        [("127.0.0.1", IPPROTO_IP, libc::IP_RECVERR), ("[::1]", IPPROTO_IPV6, libc::IPV6_RECVERR)]
    {
        let (one, two, _, nobody) = datagrams(&kernel, ip);
        kernel.close(two);
        switch_on(&kernel, one, level, name);
        send(&kernel, one, b"anybody?", nobody, &[]).unwrap();
        kernel.poll();
        assert_eq!(errno(receive(&kernel, one, 0)), Some(libc::ECONNREFUSED));
        let got = receive(&kernel, one, libc::MSG_ERRQUEUE).unwrap();
        assert_eq!(got.data, b"anybody?");
        assert_eq!(got.from, Name::from(nobody).bytes(), "whom it was for");
        // struct sock_extended_err begins with the errno.
        assert_eq!(got.number(level, name), Some(libc::ECONNREFUSED));
        assert_ne!(got.received.flags & libc::MSG_ERRQUEUE, 0);
        assert_eq!(errno(receive(&kernel, one, libc::MSG_ERRQUEUE)), Some(libc::EAGAIN));
    }
}

#[test]
fn segments_are_cut_and_merged() {
    let kernel = kernel();
    let (one, two, _, to) = datagrams(&kernel, "127.0.0.1");
    let data: Vec<u8> = (0..2500).map(|n| n as u8).collect();
    let segment = control(SOL_UDP, libc::UDP_SEGMENT, &1000_u16.to_ne_bytes());
    assert_eq!(send(&kernel, one, &data, to, &segment).unwrap(), 2500);
    let pieces = [0, 1, 2].map(|_| until(&kernel, || now(receive(&kernel, two, 0))).data);
    assert_eq!(pieces.each_ref().map(Vec::len), [1000, 1000, 500]);
    assert_eq!(pieces.concat(), data);

    switch_on(&kernel, two, SOL_UDP, libc::UDP_GRO);
    send(&kernel, one, &data, to, &segment).unwrap();
    let got = until(&kernel, || now(receive(&kernel, two, 0)));
    assert_eq!((got.number(SOL_UDP, libc::UDP_GRO), got.data), (Some(1000), data));
}

#[test]
fn accept_tells_who_it_is() {
    let kernel = kernel();
    let (listener, client, _) = pair(&kernel, "127.0.0.1:9000");
    let other = kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 4).unwrap();
    assert_eq!(errno(kernel.accept_from(listener, 5)), Some(libc::EAGAIN));
    let _ = kernel.connect(other, "127.0.0.1:9000".parse().unwrap());
    kernel.run();
    let here = kernel.local_address(other).unwrap();
    // Reset before it is accepted: it is still known who it was.
    kernel.abort(other);
    kernel.run();
    let (served, name) = kernel.accept_from(listener, 5).unwrap();
    assert_eq!(name.internet().unwrap(), here);
    assert_eq!(errno(kernel.peer_name(served)), Some(libc::ENOTCONN));
    assert_ne!(kernel.local_address(client).unwrap(), here);
}

#[test]
fn one_listener_for_both_families() {
    let kernel = kernel();
    let listener = kernel.socket(libc::AF_INET6, libc::SOCK_STREAM, 0, 1).unwrap();
    kernel.bind(listener, "[::]:9001".parse().unwrap()).unwrap();
    kernel.listen(listener, 8).unwrap();
    for (to, seen) in [("127.0.0.1:9001", "[::ffff:127.0.0.1]"), ("[::1]:9001", "[::1]")] {
        let to: SocketAddr = to.parse().unwrap();
        let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let client = kernel.socket(domain, libc::SOCK_STREAM, 0, 2).unwrap();
        assert_eq!(errno(kernel.connect(client, to)), Some(libc::EINPROGRESS));
        let (_, name) = until(&kernel, || now(kernel.accept_from(listener, 3)));
        let port = kernel.local_address(client).unwrap().port();
        assert_eq!(name.internet().unwrap(), format!("{seen}:{port}").parse().unwrap());
    }
}

#[test]
fn a_group_shares_a_port() {
    let kernel = kernel();
    let at: SocketAddr = "127.0.0.1:9002".parse().unwrap();
    let bound = |shared: bool| {
        let socket = kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 1).unwrap();
        if shared {
            switch_on(&kernel, socket, SOL_SOCKET, libc::SO_REUSEPORT);
        }
        kernel.bind(socket, at).map(|()| socket)
    };
    let group = [0, 1].map(|_| bound(true).unwrap());
    assert_eq!(errno(bound(false)), Some(libc::EADDRINUSE));
    for _ in 0..64 {
        let sender = kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 2).unwrap();
        kernel.send_to(sender, b"x", at).unwrap();
        kernel.poll();
        kernel.close(sender);
    }
    let got = group.map(|s| std::iter::from_fn(|| now(receive(&kernel, s, 0))).count());
    assert_eq!(got.iter().sum::<usize>(), 64);
    assert!(got.iter().all(|&n| n > 0), "{got:?}");
}
