//! ioctl(2) on sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use netshunt_lkl::{Kernel, NicConfig, Socket, Transmit};

use common::{errno, kernel, now, pair, until};

const SIOCGSTAMP_OLD: u32 = 0x8906;
const SIOCATMARK: u32 = 0x8905;
/// `struct ifreq`.
const IFREQ: usize = 40;

/// A kernel with `eth0` (2), 10.0.2.15/24, MTU 1400.
fn on_a_wire() -> Kernel {
    let kernel = kernel();
    let config = NicConfig::new([2, 0, 0, 0, 0, 7], 1400);
    let nic = kernel.add_nic(config, Box::new(|_| Transmit::Taken)).unwrap();
    kernel.interface_up(nic.ifindex).unwrap();
    kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap()).unwrap();
    kernel
}

/// What a request says of an interface: the union of a `struct ifreq`.
fn ask(kernel: &Kernel, s: Socket, request: libc::Ioctl, interface: &str) -> std::io::Result<[u8; 24]> {
    let mut argument = [0; IFREQ];
    argument[..interface.len()].copy_from_slice(interface.as_bytes());
    kernel.ioctl(s, request as u32, &mut argument)?;
    Ok(argument[16..].try_into().unwrap())
}

fn number(union: [u8; 24]) -> i32 {
    i32::from_ne_bytes(union[..4].try_into().unwrap())
}

#[test]
fn interfaces_are_described() {
    let kernel = on_a_wire();
    for s in [
        kernel.user_socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 1).unwrap(),
        kernel.socket(libc::AF_INET, libc::SOCK_STREAM, 0, 1).unwrap(),
    ] {
        let ask = |request| ask(&kernel, s, request, "eth0").unwrap();
        assert_eq!(number(ask(libc::SIOCGIFINDEX)), 2);
        assert_eq!(number(ask(libc::SIOCGIFMTU)), 1400);
        assert_eq!(number(ask(libc::SIOCGIFTXQLEN)), 1000);
        assert_eq!(number(ask(libc::SIOCGIFMETRIC)), 0);
        let flags = u16::from_ne_bytes(ask(libc::SIOCGIFFLAGS)[..2].try_into().unwrap());
        let wanted = libc::IFF_UP | libc::IFF_BROADCAST | libc::IFF_RUNNING | libc::IFF_MULTICAST;
        assert_eq!(i32::from(flags), wanted);
        assert_eq!(ask(libc::SIOCGIFHWADDR)[2..8], [2, 0, 0, 0, 0, 7]);
        assert_eq!(ask(libc::SIOCGIFADDR)[4..8], [10, 0, 2, 15]);
        assert_eq!(ask(libc::SIOCGIFDSTADDR)[4..8], [10, 0, 2, 15]);
        assert_eq!(ask(libc::SIOCGIFBRDADDR)[4..8], [10, 0, 2, 255]);
        assert_eq!(ask(libc::SIOCGIFNETMASK)[4..8], [255, 255, 255, 0]);
    }
    // By number; any family of socket will do.
    let s = kernel.user_socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, 1).unwrap();
    let mut argument = [0; IFREQ];
    argument[16..20].copy_from_slice(&1_i32.to_ne_bytes());
    kernel.ioctl(s, libc::SIOCGIFNAME as u32, &mut argument).unwrap();
    assert_eq!(argument[..3], *b"lo\0");
    assert_eq!(errno(ask(&kernel, s, libc::SIOCGIFINDEX, "eth9")), Some(libc::ENODEV));
}

#[test]
fn the_list_of_interfaces() {
    let kernel = on_a_wire();
    let s = kernel.user_socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 1).unwrap();
    let records = kernel.interface_records(s).unwrap();
    let found: Vec<_> = records.chunks(IFREQ).map(|r| (&r[..4], &r[20..24])).collect();
    assert_eq!(found, [(&b"lo\0\0"[..], &[127, 0, 0, 1][..]), (b"eth0", &[10, 0, 2, 15])]);
}

#[test]
fn queues_are_measured() {
    let kernel = kernel();
    let (_listener, client, served) = pair(&kernel, "127.0.0.1:9100");
    let ask = |s, request| {
        let mut answer = [0; 4];
        kernel.ioctl(s, request, &mut answer).map(|()| i32::from_ne_bytes(answer))
    };
    kernel.send(client, b"12345").unwrap();
    assert_eq!(until(&kernel, || Some(ask(served, libc::FIONREAD as u32).unwrap()).filter(|&n| n > 0)), 5);
    until(&kernel, || (ask(client, libc::TIOCOUTQ as u32).unwrap() == 0).then_some(()));
    assert_eq!(until(&kernel, || now(kernel.recv(served, &mut [0; 9]))), 5);
    assert_eq!(ask(served, libc::FIONREAD as u32).unwrap(), 0);

    kernel.send_with(client, b"!", libc::MSG_OOB).unwrap();
    until(&kernel, || (ask(served, SIOCATMARK).unwrap() == 1).then_some(()));

    let datagram = kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 1).unwrap();
    assert_eq!(errno(ask(datagram, SIOCATMARK)), Some(libc::ENOTTY));
    let stamp = |s| kernel.ioctl(s, SIOCGSTAMP_OLD, &mut [0; 16]);
    assert_eq!(errno(stamp(datagram)), Some(libc::ENOENT), "none yet");
    kernel.bind(datagram, "127.0.0.1:9101".parse().unwrap()).unwrap();
    let here = kernel.local_address(datagram).unwrap();
    for _ in 0..2 {
        kernel.send_to(datagram, b"x", here).unwrap();
        kernel.poll();
        kernel.recv(datagram, &mut [0; 1]).unwrap();
    }
    stamp(datagram).unwrap();
}

#[test]
fn what_sets_or_is_unknown_is_refused() {
    let kernel = on_a_wire();
    let s = kernel.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 1).unwrap();
    for request in [libc::SIOCSIFFLAGS, libc::SIOCSIFADDR, libc::SIOCSIFMTU, libc::SIOCADDRT] {
        assert_eq!(errno(ask(&kernel, s, request, "eth0")), Some(libc::EPERM), "{request:#x}");
    }
    // SIOCETHTOOL holds a pointer, SIOCGSKNS gives a descriptor; SIOCGIFCONF is a call of its own.
    for request in [0x8946, 0x894c, libc::SIOCGIFCONF, 0xdead_beef] {
        assert_eq!(errno(ask(&kernel, s, request, "eth0")), Some(libc::ENOTTY), "{request:#x}");
    }
    let short = kernel.ioctl(s, libc::SIOCGIFINDEX as u32, &mut [0; IFREQ - 1]);
    assert_eq!(errno(short), Some(libc::EINVAL));
    kernel.close(s);
    assert_eq!(errno(kernel.ioctl(s, libc::SIOCGIFINDEX as u32, &mut [0; IFREQ])), Some(libc::EBADF));
    assert_eq!(errno(kernel.interface_records(s)), Some(libc::EBADF));
}
