//! Names and the values of options, written as the host's kernel writes them.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::calls::arguments::written::{DATA, LENGTHS, length, pointer};
use crate::calls::options::{read_room, write_value};
use crate::sys::arena::{Arena, Call, SIZE};

/// getsockname(2), and getsockopt(2) of a number: the same bytes in the same places, or the same errno.
fn written(input: &mut Input<'_>, arena: &mut Arena, socket: &UdpSocket) {
    let mut memory = vec![0xff; SIZE];
    let base = arena.base();
    // The room, and around it what must stay.
    let (at, room) = (pointer(input, base, DATA), pointer(input, base, LENGTHS));
    if let Some(place) = room.checked_sub(base).filter(|place| *place < DATA) {
        let length = length(input, 40, &[16, 4, 1 << 31]) as u32;
        memory[place as usize..][..4].copy_from_slice(&length.to_ne_bytes());
    }
    let mut seen = memory.clone();
    let fd = socket.as_raw_fd() as u64;
    let name = input.one_in(2);
    let (number, args) = match name {
        true => (libc::SYS_getsockname, [fd, at, room, 0, 0, 0]),
        false => (libc::SYS_getsockopt, [fd, libc::SOL_SOCKET as u64, libc::SO_TYPE as u64, at, room, 0]),
    };
    let call = Call { base, args, memory: RefCell::new(&mut seen) };
    let ours = match name {
        true => {
            let name = encode(socket.local_addr().unwrap(), false);
            write_sized(&call, 1, 2, &name, name.len())
        }
        // As Calls::read_on_stack() does before.
        false => read_room(&call).and_then(|_| write_value(&call, &libc::SOCK_DGRAM.to_ne_bytes())),
    };
    let hosts = arena.call(number, args, &mut memory).map(|_| ());
    input.reached((number, ours, at == room));
    assert_eq!(ours, hosts, "{args:x?}");
    assert!(ours.is_err() || at == room || seen == memory, "{args:x?}");
}

#[test]
fn names_and_values() {
    let (socket, arena) = (UdpSocket::bind("127.0.0.1:0").unwrap(), RefCell::new(Arena::new()));
    fuzz("names_and_values", |input| written(input, &mut arena.borrow_mut(), &socket));
}
