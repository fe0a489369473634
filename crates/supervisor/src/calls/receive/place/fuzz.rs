//! Where guests want messages, read and written here and by the host's kernel.

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::address;
use crate::calls::arguments::written::{
    DATA, LENGTHS, NAMES, leads_beyond, length, messages, pointer, words,
};
use crate::sys;
use crate::sys::arena::{Arena, Call, SIZE};

/// Two sockets of the host's loopback.
struct Pair {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    from: SocketAddr,
}

/// What there may be told beside a datagram, of sizes that need padding and that do not.
const TOLD: &[(i32, i32)] = &[
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IP, libc::IP_RECVTTL),
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR),
];

impl Pair {
    fn new() -> Self {
        let [sender, receiver] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let (from, to) = (sender.local_addr().unwrap(), receiver.local_addr().unwrap());
        receiver.set_nonblocking(true).unwrap();
        Pair { sender, receiver, to, from }
    }

    /// Sends a datagram, and looks at what comes with it.
    fn send(&self, input: &mut Input<'_>) -> (Vec<u8>, Run) {
        for (level, name) in TOLD {
            let on = i32::from(input.one_in(2));
            sys::set_option(self.receiver.as_fd(), *level, *name, &on.to_ne_bytes()).unwrap();
        }
        let data: Vec<u8> = (0..input.up_to(400)).map(|n| n as u8).collect();
        self.sender.send_to(&data, self.to).unwrap();
        let mut control = vec![0; 512];
        let got = sys::receive(self.receiver.as_fd(), &mut [0; 512], &mut control, libc::MSG_PEEK).unwrap();
        control.truncate(got.control);
        (data, Run { from: address::encode(self.from, false), control })
    }
}

/// A datagram is received as the kernel does it: the same bytes in the same places, or the same errno.
fn received(input: &mut Input<'_>, arena: &mut Arena, pair: &Pair) {
    let (data, run) = pair.send(input);
    let number = *input.pick(&[libc::SYS_recvmsg, libc::SYS_recvmmsg, libc::SYS_recvfrom]);
    let size = if number == libc::SYS_recvmmsg { ENTRY } else { HEADER };
    let mut memory = messages(input, arena.base(), size as u64);
    // The kernel says nothing of control messages that it cannot write (put_cmsg()); here the call fails.
    for control in memory[..4 * size].chunks_exact_mut(size).map(|header| &mut header[32..40]) {
        let at = u64::from_ne_bytes(control.try_into().unwrap());
        if !(arena.base()..arena.base() + DATA).contains(&at) {
            control.fill(0);
        }
    }
    let flags = libc::MSG_DONTWAIT | *input.pick(&[0, libc::MSG_TRUNC, libc::MSG_CMSG_CLOEXEC]);
    let (fd, raw_flags) = (pair.receiver.as_raw_fd() as u64, flags as u64);
    let at = if input.one_in(16) {
        *input.pick(&[0, 1 << 47, arena.base() + SIZE as u64 - 40])
    } else {
        arena.base()
    };
    let args = match number {
        libc::SYS_recvmsg => [fd, at, raw_flags, 0, 0, 0],
        libc::SYS_recvmmsg => [fd, at, 1 + input.up_to(3) as u64, raw_flags, 0, 0],
        _ => {
            let buffer = [pointer(input, arena.base(), DATA), length(input, 500, &[1 << 63, 0x7fff_f000])];
            let name = if input.one_in(2) { pointer(input, arena.base(), NAMES) } else { 0 };
            let name_length = pointer(input, arena.base(), LENGTHS);
            if let Some(at) = name_length.checked_sub(arena.base()).filter(|at| *at < DATA) {
                let room = length(input, 40, &[128, 1 << 31]) as u32;
                memory[at as usize..][..4].copy_from_slice(&room.to_ne_bytes());
            }
            // Both in one place: which of them stays there is nobody's business.
            let name = if name_length == name { 0 } else { name };
            [fd, buffer[0], buffer[1], raw_flags, name, name_length]
        }
    };
    let mut seen = memory.clone();
    let call = Call { base: arena.base(), args, memory: RefCell::new(&mut seen) };
    let ours = ours(&call, number, flags, &data, &run);
    let hosts = arena.call(number, args, &mut memory);
    // It may still be there.
    while pair.receiver.recv(&mut [0; 1]).is_ok() {}
    input.reached((number, ours.map(|n| n.min(1)), run.control.is_empty(), flags));
    // Of two mistakes the kernel finds that in the data first, here it is that in the length of the name.
    let two = number == libc::SYS_recvfrom && ours == Err(libc::EINVAL);
    if hosts == Err(libc::EFAULT) && (two || leads_beyond(&seen, &args)) {
        return;
    }
    assert_eq!(ours, hosts, "{run:x?} {args:x?} {}", words(&seen));
    let differ = || seen.iter().zip(&memory).position(|(ours, hosts)| ours != hosts);
    if ours.is_ok()
        && seen != memory
        && let Some(at) = differ()
    {
        let around = at / 8 * 8..at / 8 * 8 + 8;
        panic!("at {at}: {:x?}, natively {:x?}; {run:x?}", &seen[around.clone()], &memory[around]);
    }
}

/// As `Call::read` and `Calls::attempt` put the pieces together.
fn ours(call: &Call<'_>, number: i64, flags: i32, data: &[u8], run: &Run) -> Result<usize, i32> {
    let place = match number {
        libc::SYS_recvmsg => Place::message(call, call.addr_arg(1))?,
        libc::SYS_recvmmsg => Place::messages(call)?.swap_remove(0),
        _ => Place::beside(call),
    };
    let part = &data[..data.len().min(place.room())];
    let (pieces, value) = place.fill(call, part, data.len(), run, flags, 0)?;
    for (at, bytes) in pieces {
        call.write(at, &bytes).map_err(|_| libc::EFAULT)?;
    }
    Ok(if number == libc::SYS_recvmmsg { 1 } else { value as usize })
}

/// Control messages are cut as the kernel cuts them, and it is told when something is missing.
fn cut(input: &mut Input<'_>, pair: &Pair) {
    let (_, run) = pair.send(input);
    let room = input.up_to(run.control.len() + 20);
    let mut control = vec![0; room];
    let got = sys::receive(pair.receiver.as_fd(), &mut [0; 512], &mut control, 0).unwrap();
    control.truncate(got.control);
    input.reached((run.control.len(), room.abs_diff(run.control.len()).min(9)));
    assert_eq!(
        cut_control(&run.control, room),
        (control, got.flags & libc::MSG_CTRUNC == 0),
        "{room} of {run:x?}"
    );
}

#[test]
fn messages_received() {
    let (pair, arena) = (Pair::new(), RefCell::new(Arena::new()));
    fuzz("messages_received", |input| received(input, &mut arena.borrow_mut(), &pair));
}

#[test]
fn control_messages_cut() {
    let pair = Pair::new();
    fuzz("control_messages_cut", |input| cut(input, &pair));
}
