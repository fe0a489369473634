//! Ports of the host that lead to the guest.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::net::{IpAddr, TcpStream, UdpSocket};

use common::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use netshunt_backend::{Error, Settings};
use netshunt_passt::Passt;

/// The source, and the port of the guest that a packet is for.
fn from(frame: &[u8]) -> Option<(IpAddr, u16)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let ip = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        _ => return None,
    };
    match packet.transport? {
        TransportSlice::Tcp(tcp) if tcp.syn() => Some((ip, tcp.destination_port())),
        TransportSlice::Udp(udp) => Some((ip, udp.destination_port())),
        _ => None,
    }
}

fn settings(case: &Case, what: &[&str]) -> Settings {
    let mut settings = Settings::default();
    let (program, mode) = (case.program.display(), &case.mode);
    settings.backends = format!("[passt]\nprogram = '{program}'\nmode = '{mode}'").parse().unwrap();
    settings.publish = what.iter().map(|text| text.parse().unwrap()).collect();
    settings
}

fn reach(case: &Case) {
    let what = ["192.0.2.2:8080-8081:80-81", "8443:443", "192.0.2.2:5353:53/udp"];
    let backend = Passt::new(&settings(case, &what)).unwrap();
    let mut wire = Wire::new(runtime().block_on(backend.link()).unwrap());
    wire.arp();
    for (port, guest) in [(8080, 80), (8081, 81), (8443, 443)] {
        let _client = TcpStream::connect((HOST, port)).unwrap();
        wire.expect("SYN", |frame| from(frame).filter(|(_, to)| *to == guest));
    }
    let client = UdpSocket::bind((HOST, 0)).unwrap();
    client.send_to(b"word", (HOST, 5353)).unwrap();
    wire.expect("datagram", |frame| from(frame).filter(|(_, to)| *to == 53));
    assert!(TcpStream::connect((HOST, 80)).is_err(), "what is not published");
}

#[test]
fn published_ports_reach_the_guest() {
    each("published_ports_reach_the_guest", &[BARE, V4], reach);
}

fn in_use(case: &Case) {
    let _taken = std::net::TcpListener::bind((HOST, 8080)).unwrap();
    let error = Passt::new(&settings(case, &["8079-8080:79-80"])).unwrap_err();
    assert!(matches!(error, Error::Publish { .. }), "{error}");
    assert!(error.to_string().contains("0.0.0.0:8080"), "{error}");
}

#[test]
fn a_port_in_use_is_an_error_before_passt_starts() {
    each("a_port_in_use_is_an_error_before_passt_starts", &[BARE, V4], in_use);
}
