//! `Network.host` is true: every address it names by example reaches the host's loopback, and
//! `Network.trusted` is: checksums of guest frames are verified.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use common::*;
use etherparse::TcpHeader;
use netshunt_backend::Link;

fn loopback(to: IpAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

fn received(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    match socket.recv(&mut buffer) {
        Ok(n) => Some(buffer[..n].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn host_udp(to: IpAddr) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((loopback(to), 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[test]
fn datagrams_to_these_reach_the_loopback_and_are_listed() {
    let alone = alone();
    for to in ["10.0.2.2", "255.255.255.255", "fd00::2", "fd00::1234", "ff02::1"] {
        let to: IpAddr = to.parse().unwrap();
        let mut wire = Wire::open(&alone);
        wire.introduce();
        assert!(wire.link.network().host.iter().any(|net| net.contains(&to)), "{to}");
        let (socket, port) = host_udp(to);
        wire.send(&udp(wire.mac, to, 5000, port, b"hello"));
        let text = wire.until(&format!("datagram through {to}"), || received(&socket));
        assert_eq!(text, b"hello", "{to}");
    }
}

#[test]
fn a_fragmented_datagram_arrives_whole() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    wire.introduce();
    let to = IpAddr::V4(GATEWAY);
    let (socket, port) = host_udp(to);
    // The largest there is, which a stack must cut.
    let payload: Vec<u8> = (0..65_507_u32).map(|i| i as u8).collect();
    let whole = udp(wire.mac, to, 5000, port, &payload);
    let (header, data) = whole.split_at(34);
    let piece = (usize::from(wire.link.network().mtu) - 20) / 8 * 8;
    let pieces = data.chunks(piece).count();
    for (i, bytes) in data.chunks(piece).enumerate() {
        let mut frame = [header, bytes].concat();
        let total = u16::try_from(20 + bytes.len()).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        let more = if i + 1 < pieces { 0x2000 } else { 0 };
        let field = more | u16::try_from(i * piece / 8).unwrap();
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        wire.send(&frame);
    }
    let mut buffer = vec![0; 65_536];
    let length = wire.until("datagram", || socket.recv(&mut buffer).ok());
    assert!(buffer[..length] == payload, "{length} bytes, or not the same");
}

#[test]
fn connections_to_these_reach_the_loopback_and_are_listed() {
    let alone = alone();
    for to in ["10.0.2.2", "fd00::2", "fd00::1234"] {
        let to: IpAddr = to.parse().unwrap();
        let mut wire = Wire::open(&alone);
        wire.introduce();
        assert!(wire.link.network().host.iter().any(|net| net.contains(&to)), "{to}");
        let listener = TcpListener::bind((loopback(to), 0)).unwrap();
        let mut syn = TcpHeader::new(6000, listener.local_addr().unwrap().port(), 1, 65535);
        syn.syn = true;
        wire.send(&tcp(wire.mac, to, syn, &[]));
        wire.expect(&format!("SYN-ACK of {to}"), |frame| segment(frame, 6000).filter(|(tcp, _)| tcp.syn));
    }
}

#[test]
fn checksums_are_verified() {
    let alone = alone();
    let mut wire = Wire::open(&alone);
    assert!(!wire.link.network().trusted);
    wire.introduce();
    let to = IpAddr::V4(GATEWAY);
    let (socket, port) = host_udp(to);
    let mut bad = udp(wire.mac, to, 5000, port, b"wrong");
    bad[40] ^= 0x55;
    wire.send(&bad);
    // The same flow, so in order: the damaged datagram would have come first.
    wire.send(&udp(wire.mac, to, 5000, port, b"right"));
    assert_eq!(wire.until("datagram", || received(&socket)), b"right");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let syn = |from| {
        let mut syn = TcpHeader::new(from, port, 1, 65535);
        syn.syn = true;
        tcp(wire.mac, to, syn, &[])
    };
    let (mut bad, good) = (syn(6000), syn(6001));
    bad[50] ^= 0x55;
    wire.send(&bad);
    wire.send(&good);
    wire.expect("SYN-ACK of the good segment", |frame| {
        assert!(segment(frame, 6000).is_none(), "libslirp no longer verifies: say so in `trusted`");
        segment(frame, 6001)
    });
}
