//! A TCP connection from hand-made segments to a real listener on the host's loopback.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use common::*;
use etherparse::TcpHeader;

const PORT: u16 = 40001;

/// The guest's end of one connection: sends in order, acknowledges what arrives in order.
struct Guest {
    wire: Wire,
    to: SocketAddr,
    /// The next sequence number we send, and the next we expect.
    next: u32,
    expected: u32,
    received: Vec<u8>,
    ended: bool,
}

impl Guest {
    fn connect(mut wire: Wire, to: SocketAddr) -> Self {
        wire.introduce();
        let mut syn = TcpHeader::new(PORT, to.port(), 1000, 65535);
        syn.syn = true;
        wire.send(&tcp(wire.mac, to.ip(), syn, &[]));
        let answer = wire.expect("SYN-ACK", |frame| segment(frame, PORT).filter(|(tcp, _)| tcp.syn)).0;
        assert!(answer.ack && !answer.rst, "{answer:?}");
        assert_eq!(answer.acknowledgment_number, 1001);
        let expected = answer.sequence_number.wrapping_add(1);
        let mut guest = Guest { wire, to, next: 1001, expected, received: Vec::new(), ended: false };
        guest.segment(false, &[]);
        guest
    }

    fn segment(&mut self, fin: bool, payload: &[u8]) {
        let mut header = TcpHeader::new(PORT, self.to.port(), self.next, 65535);
        header.ack = true;
        header.acknowledgment_number = self.expected;
        header.psh = !payload.is_empty();
        header.fin = fin;
        self.wire.send(&tcp(self.wire.mac, self.to.ip(), header, payload));
        self.next += u32::try_from(payload.len()).unwrap() + u32::from(fin);
    }

    fn turn(&mut self) {
        for frame in self.wire.turn() {
            let Some((tcp, payload)) = segment(&frame, PORT) else { continue };
            assert!(!tcp.rst, "reset: {tcp:?}");
            if tcp.sequence_number != self.expected || (payload.is_empty() && !tcp.fin) {
                continue;
            }
            self.expected = self.expected.wrapping_add(u32::try_from(payload.len()).unwrap());
            self.expected = self.expected.wrapping_add(u32::from(tcp.fin));
            self.received.extend(payload);
            self.ended |= tcp.fin;
            self.segment(false, &[]);
        }
    }

    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&Guest) -> Option<T>) -> T {
        let end = std::time::Instant::now() + DEADLINE;
        while std::time::Instant::now() < end {
            if let Some(result) = done(self) {
                return result;
            }
            self.turn();
        }
        panic!("no {what} within {DEADLINE:?}; {:?}", self.wire.link);
    }
}

fn both_ways_and_an_orderly_end(listen: IpAddr, to: IpAddr) {
    let alone = alone();
    let listener = TcpListener::bind((listen, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let to = SocketAddr::new(to, listener.local_addr().unwrap().port());
    let mut guest = Guest::connect(Wire::open(&alone), to);

    let (mut server, from) = guest.until("connection", |_| ready(listener.accept()));
    assert_eq!(from.ip(), listen, "libslirp connects from the loopback");
    server.set_nonblocking(true).unwrap();

    // Several segments up, the last of them small; a bulk of more than one window down.
    let up: Vec<u8> = (0..9000_u32).map(|i| i as u8).collect();
    for part in up.chunks(1200) {
        guest.segment(false, part);
    }
    let mut arrived = Vec::new();
    guest.until("data at the server", |_| read_into(&mut server, &mut arrived, up.len()));
    assert_eq!(arrived, up);

    let down: Vec<u8> = (0..300_000_u32).map(|i| (i / 7) as u8).collect();
    let mut written = 0;
    guest.until("data at the guest", |guest| {
        while written < down.len() {
            match server.write(&down[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        (guest.received.len() >= down.len()).then_some(())
    });
    assert!(guest.received == down, "the bytes differ");

    // Our end closes first; the other direction still works.
    guest.segment(true, &[]);
    guest.until("end of file at the server", |_| {
        ready(server.read(&mut [0; 16])).inspect(|&n| assert_eq!(n, 0))
    });
    guest.received.clear();
    server.write_all(b"last words").unwrap();
    guest.until("half-closed data", |guest| (guest.received == b"last words").then_some(()));
    drop(server);
    guest.until("FIN", |guest| guest.ended.then_some(()));
}

#[test]
fn ipv4_both_ways_and_an_orderly_end() {
    both_ways_and_an_orderly_end(Ipv4Addr::LOCALHOST.into(), GATEWAY.into());
}

#[test]
fn ipv6_both_ways_and_an_orderly_end() {
    both_ways_and_an_orderly_end(Ipv6Addr::LOCALHOST.into(), GATEWAY_V6.into());
}

#[test]
fn a_closed_port_resets() {
    let alone = alone();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut wire = Wire::open(&alone);
    wire.introduce();
    let mut syn = TcpHeader::new(PORT, port, 1000, 65535);
    syn.syn = true;
    wire.send(&tcp(wire.mac, GATEWAY.into(), syn, &[]));
    let answer = wire.expect("answer", |frame| segment(frame, PORT)).0;
    assert!(answer.rst && !answer.syn, "{answer:?}");
}

fn ready<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn read_into(stream: &mut TcpStream, into: &mut Vec<u8>, enough: usize) -> Option<()> {
    let mut buffer = [0; 65536];
    while let Some(n) = ready(stream.read(&mut buffer)) {
        assert_ne!(n, 0, "the connection ended early");
        into.extend_from_slice(&buffer[..n]);
    }
    (into.len() >= enough).then_some(())
}
