//! Datagrams of every size, thousands of them, to a server on the host and back: over shared rings,
//! and the same over a stream.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::net::{SocketAddr, UdpSocket};

use common::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// The largest that an MTU of 65,520 carries whole.
const LARGEST: usize = 65_520 - 28;

/// An echo server; it ends with the process.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from).unwrap();
        }
    });
    address
}

/// The payload of a datagram for the guest's port 5000.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (NetSlice::Ipv4(_), TransportSlice::Udp(udp)) = (packet.net?, packet.transport?) else { return None };
    (udp.destination_port() == 5000).then(|| udp.payload().to_vec())
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 + number) as u8).collect();
    let tag = (number as u32).to_be_bytes();
    let len = len.min(4);
    bytes[..len].copy_from_slice(&tag[..len]);
    bytes
}

/// Sends datagrams in bursts, and waits for each burst's answers; their order is UDP's affair.
fn exchange(wire: &mut Wire, to: SocketAddr, count: usize, burst: usize, len: impl Fn(usize) -> usize) {
    for first in (0..count).step_by(burst) {
        let numbers = first..(first + burst).min(count);
        for number in numbers.clone() {
            let datagram = udp(wire.mac, to.ip(), 5000, to.port(), &payload(number, len(number)));
            wire.send(&datagram);
        }
        let mut missing: Vec<Vec<u8>> = numbers.map(|number| payload(number, len(number))).collect();
        wire.expect("answers to a burst", |frame| {
            if let Some(got) = answer(frame) {
                let found = missing.iter().position(|sent| *sent == got);
                missing.swap_remove(found.expect("an answer to a question, once"));
            }
            missing.is_empty().then_some(())
        });
    }
}

#[test]
fn thousands_of_frames_of_every_size_come_back() {
    each("thousands_of_frames_of_every_size_come_back", &[BARE, V4], |case| {
        let mut wire = Wire::open(case);
        wire.arp();
        let to = echo();
        exchange(&mut wire, to, 4000, 16, |number| 1 + number % 1472);
        exchange(&mut wire, to, 200, 2, |number| [LARGEST, 16_384 - 54, 8972, 1][number % 4]);
        // Around the size of a buffer, where a frame becomes two.
        exchange(&mut wire, to, 200, 4, |number| 16_384 - 54 - 100 + number);
        assert_eq!(wire.renewed, 0);
    });
}
