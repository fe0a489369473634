//! Ports of the host that lead to the guest.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::error::Error as _;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use common::*;
use etherparse::{NetSlice, SlicedPacket, TcpHeader, TransportSlice};
use netshunt_backend::{Error, Settings};
use netshunt_slirp::Slirp;

const PORT: u16 = 80;

/// A port that nobody has now.
fn free(ip: &str) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

fn publishing(what: &[String]) -> Settings {
    let mut settings = Settings::default();
    settings.publish = what.iter().map(|text| text.parse().unwrap()).collect();
    settings
}

fn open(alone: &Alone, what: &[String]) -> Wire {
    let mut wire = Wire::with(alone, &publishing(what));
    wire.introduce();
    wire
}

/// Where a packet to the guest's port came from.
fn from(frame: &[u8], port: u16) -> Option<(IpAddr, Option<TcpHeader>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let ip = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        _ => return None,
    };
    match packet.transport? {
        TransportSlice::Tcp(tcp) if tcp.destination_port() == port => Some((ip, Some(tcp.to_header()))),
        TransportSlice::Udp(udp) if udp.destination_port() == port => Some((ip, None)),
        _ => None,
    }
}

fn a_connection_reaches_the_guest(host: &str, gateway: IpAddr) {
    let alone = alone();
    let port = free(host.trim_matches(['[', ']']));
    let mut wire = open(&alone, &[format!("{host}:{port}:{PORT}")]);
    let mut client = TcpStream::connect((host.trim_matches(['[', ']']), port)).unwrap();
    client.set_nonblocking(true).unwrap();
    let (peer, syn) = wire.expect("SYN", |frame| from(frame, PORT));
    let syn = syn.unwrap();
    assert!(syn.syn && !syn.ack);
    assert_eq!(peer, gateway);
    // Refused by the guest, and so the client's connection ends.
    let mut reset = TcpHeader::new(PORT, syn.source_port, 0, 0);
    (reset.rst, reset.ack, reset.acknowledgment_number) = (true, true, syn.sequence_number.wrapping_add(1));
    let frame = tcp(wire.mac, peer, reset, &[]);
    wire.send(&frame);
    let end = wire.until("the client's end", || match client.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        end => Some(end),
    });
    assert!(end.is_err() || end.is_ok_and(|count| count == 0));
}

#[test]
fn a_connection_reaches_the_guest_as_from_the_gateway() {
    a_connection_reaches_the_guest("127.0.0.1", GATEWAY.into());
}

#[test]
fn a_connection_by_ipv6_reaches_the_guest_as_from_the_gateway() {
    a_connection_reaches_the_guest("[::1]", GATEWAY_V6.into());
}

#[test]
fn a_datagram_reaches_the_guest() {
    let alone = alone();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut wire = open(&alone, &[format!("127.0.0.1:{port}:{PORT}/udp")]);
    client.send_to(b"word", ("127.0.0.1", port)).unwrap();
    let (peer, none) = wire.expect("datagram", |frame| from(frame, PORT));
    assert!(none.is_none());
    assert_eq!(peer, IpAddr::from(GATEWAY));
}

#[test]
fn a_port_in_use_is_an_error_before_the_link_opens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at: SocketAddr = taken.local_addr().unwrap();
    let what = format!("127.0.0.1:{}:80", at.port());
    let error = Slirp::new(&publishing(&[what])).unwrap_err();
    assert!(matches!(error, Error::Publish { .. }), "{error}");
    let wanted = format!("cannot publish {at}:80/tcp ({at}): end what has the port, or choose another");
    assert_eq!(error.to_string(), wanted);
    assert!(error.source().unwrap().to_string().contains("in use"));
}

#[test]
fn nothing_listens_any_more_when_the_link_is_closed() {
    let alone = alone();
    let port = free("127.0.0.1");
    let wire = open(&alone, &[format!("127.0.0.1:{port}:{PORT}")]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    drop(wire);
    assert_eq!(TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
