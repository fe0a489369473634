//! Frames that nobody should send: the kernel drops them, and goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::rc::Rc;

use netshunt_lkl::{Kernel, Nic, NicConfig, Transmit};

use common::{errno, kernel, now, pair, until};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A kernel with a device of the largest MTU, and how many frames it has sent.
fn on_a_wire() -> (Kernel, Nic, Rc<Cell<u64>>) {
    let kernel = kernel();
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    let transmit = Box::new(move |_: &[std::io::IoSlice<'_>]| {
        count.set(count.get() + 1);
        Transmit::Taken
    });
    let nic = kernel.add_nic(NicConfig::new(MAC, 65520), transmit).unwrap();
    kernel.interface_up(nic.ifindex).unwrap();
    kernel.add_address(nic.ifindex, "10.0.2.15/24".parse().unwrap()).unwrap();
    kernel.add_address(nic.ifindex, "fd00::15/64".parse().unwrap()).unwrap();
    (kernel, nic, sent)
}

/// splitmix64
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn noise_does_no_harm() {
    let (kernel, nic, _) = on_a_wire();
    let mut state = 1;
    for round in 0..20_000_u64 {
        let length = match random(&mut state) % 4 {
            0 => 14 + random(&mut state) % 65_520,
            _ => 14 + random(&mut state) % 200,
        };
        let mut frame: Vec<u8> = (0..length).map(|_| random(&mut state) as u8).collect();
        frame[..6].copy_from_slice(&MAC);
        // ARP, IPv4, IPv6, VLAN, LLDP, or noise too.
        let types: [u16; 5] = [0x0806, 0x0800, 0x86dd, 0x8100, 0x88cc];
        if let Some(ethertype) = types.get((random(&mut state) % 6) as usize) {
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        }
        if let Some(version) = frame.get_mut(14) {
            *version = if round % 2 == 0 { 0x45 } else { 0x60 };
        }
        match kernel.receive(nic, &frame) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{length} bytes"),
        }
        if round % 64 == 0 {
            kernel.run();
        }
    }
    kernel.run();
    let (_listener, client, served) = pair(&kernel, "127.0.0.1:8000");
    kernel.send(client, b"alive").unwrap();
    assert_eq!(until(&kernel, || now(kernel.recv(served, &mut [0; 8]))), 5);
}

#[test]
fn too_short_and_too_long_are_refused() {
    let (kernel, nic, _) = on_a_wire();
    for length in [0, 13, 65_520 + 19] {
        assert_eq!(errno(kernel.receive(nic, &vec![0; length])), Some(libc::EINVAL), "{length}");
    }
    kernel.receive(nic, &[0; 14]).unwrap();
    kernel.receive(nic, &vec![0; 65_520 + 18]).unwrap();
    kernel.run();
}

#[test]
fn the_queue_has_an_end() {
    let (kernel, nic, sent) = on_a_wire();
    // ARP: who has 10.0.2.15? Tell 10.0.2.2.
    let mut request = vec![0xff; 6];
    request.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend([2, 0, 0, 0, 0, 2, 10, 0, 2, 2]);
    request.extend([0, 0, 0, 0, 0, 0, 10, 0, 2, 15]);
    let before = sent.get();
    let mut taken = 0;
    let error = loop {
        match kernel.receive(nic, &request) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((taken, error.raw_os_error()), (4096, Some(libc::ENOBUFS)));
    kernel.run();
    assert!(sent.get() - before >= 4096, "{} answers", sent.get() - before);
    kernel.receive(nic, &request).unwrap();
}
