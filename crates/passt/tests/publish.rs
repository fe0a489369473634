//! Ports of the host that lead to the guest.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::net::{TcpListener, TcpStream, UdpSocket};

use common::*;
use etherparse::{SlicedPacket, TransportSlice};
use netshunt_backend::{Error, Settings};
use netshunt_passt::Passt;

/// The port of the guest that a packet is for.
fn guest_port(frame: &[u8]) -> Option<u16> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(tcp) if tcp.syn() => Some(tcp.destination_port()),
        TransportSlice::Udp(udp) => Some(udp.destination_port()),
        _ => None,
    }
}

fn publishing(case: &Case, what: &[&str]) -> Settings {
    let mut settings = settings(case, "");
    settings.publish = what.iter().map(|text| text.parse().unwrap()).collect();
    settings
}

fn reach(case: &Case) {
    let what = ["192.0.2.2:8080-8081:80-81", "8443:443", "192.0.2.2:5353:53/udp"];
    let backend = Passt::new(&publishing(case, &what)).unwrap();
    let mut wire = Wire::new(runtime().block_on(backend.link()).unwrap());
    wire.arp();
    for (port, guest) in [(8080, 80), (8081, 81), (8443, 443)] {
        let _client = TcpStream::connect((HOST, port)).unwrap();
        wire.expect("SYN", |frame| guest_port(frame).filter(|&to| to == guest));
    }
    let client = UdpSocket::bind((HOST, 0)).unwrap();
    client.send_to(b"word", (HOST, 5353)).unwrap();
    wire.expect("datagram", |frame| guest_port(frame).filter(|&to| to == 53));
    assert!(TcpStream::connect((HOST, 80)).is_err(), "what is not published");
}

#[test]
fn published_ports_reach_the_guest() {
    each("published_ports_reach_the_guest", &[BARE, V4], reach);
}

fn in_use(case: &Case) {
    let _taken = TcpListener::bind((HOST, 8080)).unwrap();
    let error = Passt::new(&publishing(case, &["8079-8080:79-80"])).unwrap_err();
    assert!(matches!(error, Error::Publish { .. }), "{error}");
    assert!(error.to_string().contains("0.0.0.0:8080"), "{error}");
}

#[test]
fn a_port_in_use_is_an_error_before_passt_starts() {
    each("a_port_in_use_is_an_error_before_passt_starts", &[BARE, V4], in_use);
}
