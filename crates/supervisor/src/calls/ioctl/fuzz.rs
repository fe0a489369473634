//! Requests of interfaces' names: the list is written as the host's kernel writes it.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::calls::arguments::written::{DATA, length, pointer};
use crate::sys::arena::{Arena, Call, SIZE};

/// All of the host's records.
fn records(arena: &mut Arena, socket: &UdpSocket) -> Vec<u8> {
    let mut memory = vec![0; SIZE];
    memory[..4].copy_from_slice(&2000_i32.to_ne_bytes());
    memory[IFCONF_BUFFER..IFCONF].copy_from_slice(&(arena.base() + DATA).to_ne_bytes());
    let args = [socket.as_raw_fd() as u64, libc::SIOCGIFCONF, arena.base(), 0, 0, 0];
    arena.call(libc::SYS_ioctl, args, &mut memory).unwrap();
    let length = i32::from_ne_bytes(memory[..4].try_into().unwrap()) as usize;
    assert!(length < 2000 && length.is_multiple_of(IFREQ), "more interfaces than this test has room for");
    memory[DATA as usize..][..length].to_vec()
}

fn listed(input: &mut Input<'_>, arena: &mut Arena, socket: &UdpSocket) {
    let records = records(arena, socket);
    let mut memory = vec![0; SIZE];
    let base = arena.base();
    let at = if input.one_in(16) { *input.pick(&[0, 1 << 47, base + SIZE as u64 - 8]) } else { base };
    let room = length(input, records.len() + IFREQ, &[records.len() as u64, IFREQ as u64, 1 << 31]) as i32;
    memory[..4].copy_from_slice(&room.to_ne_bytes());
    memory[IFCONF_BUFFER..IFCONF].copy_from_slice(&pointer(input, base, DATA).to_ne_bytes());
    let args = [socket.as_raw_fd() as u64, libc::SIOCGIFCONF, at, 0, 0, 0];
    let mut seen = memory.clone();
    let call = Call { base, args, memory: RefCell::new(&mut seen) };
    let ours = read_list(&call, TargetAddr(at)).and_then(|asked| {
        let pieces = asked.answer(&records);
        pieces.iter().try_for_each(|(at, bytes)| call.write(*at, bytes).map_err(|_| libc::EFAULT))
    });
    let hosts = arena.call(libc::SYS_ioctl, args, &mut memory).map(|_| ());
    input.reached((ours, room.clamp(-1, 3 * IFREQ as i32)));
    assert_eq!(ours, hosts, "{room} {:x?}", &seen[..16]);
    assert!(ours.is_err() || seen == memory, "{room}");
}

#[test]
fn interfaces_listed() {
    let (socket, arena) = (UdpSocket::bind("127.0.0.1:0").unwrap(), RefCell::new(Arena::new()));
    fuzz("interfaces_listed", |input| listed(input, &mut arena.borrow_mut(), &socket));
}
