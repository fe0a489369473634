//! Connections that are opened, refused and given up, by frames of any kind: what the stack is told is well formed, and
//! for who asked.

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::farewells::Farewells;

fn written(input: &mut Input<'_>) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let near = *input.pick(&[1, 2]);
    let ip = match input.one_in(3) {
        true => ethernet.ipv6([near; 16], [3; 16], TTL),
        false => ethernet.ipv4([10, 0, 2, near], [192, 0, 2, 1], TTL),
    };
    let mut header = etherparse::TcpHeader::new(40_000, 80, input.word(), 9000);
    let flags = if input.one_in(2) { SYN } else { input.byte() };
    (header.syn, header.ack) = (flags & SYN != 0, flags & 0x10 != 0);
    (header.rst, header.fin) = (flags & RST != 0, flags & FIN != 0);
    let mut frame = Vec::new();
    ip.tcp_header(header).write(&mut frame, &[]).unwrap();
    if input.one_in(4) {
        input.spoil(&mut frame);
    }
    frame
}

/// The same from the other end.
fn answered(mut frame: Vec<u8>) -> Vec<u8> {
    let (address, width) = if frame.get(12) == Some(&0x86) { (22, 16) } else { (26, 4) };
    let ports = address + 2 * width;
    if frame.len() >= ports + 4 {
        let (from, to) = frame[address..ports].split_at_mut(width);
        from.swap_with_slice(to);
        frame[ports..ports + 4].rotate_left(2);
    }
    frame
}

fn told(input: &mut Input<'_>) {
    let (mut attempts, mut farewells) = (Attempts::default(), Farewells::default());
    let mut asked = std::collections::HashSet::new();
    let well_formed = |frame: &[u8], asked: &std::collections::HashSet<Vec<u8>>| {
        let packet = SlicedPacket::from_ethernet(frame).expect("what is told is well formed");
        assert!(packet.transport.is_some());
        assert!(asked.iter().any(|syn| frame[..6] == syn[6..12] && frame[6..12] == syn[..6]), "for nobody");
    };
    for _ in 0..input.up_to(8) {
        let fd = RawFd::from(input.byte() % 4);
        match input.up_to(5) {
            0 | 1 => {
                let frame = written(input);
                attempts.ask(&frame);
                attempts.opened(fd);
                attempts.asked();
                assert!(!is_syn(&frame) || attempts.has(fd));
                if is_syn(&frame) {
                    asked.insert(frame);
                }
            }
            2 => {
                let errno = *input.pick(&[0, 0, 111, 104, 110, 113, 101, 13, 112, 92, 95]);
                let had = attempts.has(fd);
                let mut count = 0;
                let show = attempts.ended(fd, errno, &mut |frame| {
                    count += 1;
                    well_formed(frame, &asked);
                });
                input.reached((show == Show::Nothing, show == Show::Everything, count, errno));
                assert!(had || count == 0);
            }
            3 => {
                let frame = written(input);
                let frame = if input.one_in(2) { answered(frame) } else { frame };
                let told = attempts.instead_of(&frame);
                input.reached(("instead", told.is_some()));
                told.iter().flatten().for_each(|frame| well_formed(frame, &asked));
                farewells.receives(&frame);
            }
            4 => {
                let frame = written(input);
                // Only resets are kept back.
                let sends = farewells.sends(&frame);
                input.reached(("sends", sends));
                assert!(sends || flags(&frame).is_some_and(|flags| flags & RST != 0));
            }
            _ => attempts.turned(),
        }
        assert!(attempts.open.len() <= 4 && attempts.up.len() <= 8);
    }
}

#[test]
fn attempts_told() {
    fuzz("attempts_told", told);
}
