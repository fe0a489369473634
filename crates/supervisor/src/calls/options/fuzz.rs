//! Options as guests set them: those that are only checked here are refused as the host's kernel refuses them.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd};

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::calls::arguments::written::{DATA, length, pointer};
use crate::sys::arena::{Arena, Call, SIZE};

/// Of TCP sockets, of every side.
const OPTIONS: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
];

fn set(input: &mut Input<'_>, arena: &mut Arena) {
    let (level, name) = *input.pick(OPTIONS);
    let mut memory = vec![0; SIZE];
    let value =
        if input.one_in(2) { u32::from(input.byte()) } else { input.length(&[127, 128, 6, 7]) as u32 };
    memory[DATA as usize..][..4].copy_from_slice(&value.to_ne_bytes());
    let at = if input.one_in(4) { pointer(input, arena.base(), DATA) } else { arena.base() + DATA };
    let size = if input.one_in(2) { 4 } else { length(input, 20, &[4, 1 << 31, 1024]) };
    let [theirs, mine] = [(); 2].map(|()| sys::tcp_socket().unwrap());
    let args = [theirs.as_raw_fd() as u64, level as u64, name as u64, at, size, 0];
    let mut seen = memory.clone();
    let call = Call { base: arena.base(), args, memory: RefCell::new(&mut seen) };
    let ours = read_option(&call).and_then(|option| match side(level, name) {
        Side::Both | Side::Guest => on_host(mine.as_fd(), &option),
        Side::Ignored => is_sensible(&option),
        Side::Stack if is_deferred(level, name) => is_sensible(&option),
        Side::Stack => is_sensible(&option).and_then(|()| on_host(mine.as_fd(), &option)),
        side => panic!("{side:?}"),
    });
    let hosts = arena.call(libc::SYS_setsockopt, args, &mut memory).map(|_| ());
    input.reached((level, name, ours, size.min(9)));
    match (ours, hosts) {
        // No option that is let through is as long.
        (Err(libc::EINVAL), _) if size > LONGEST as u64 => {}
        // The supervisor may set what a guest may not.
        (Err(libc::EPERM), Ok(())) if nix::unistd::geteuid().is_root() => {}
        // All of a value is read here, of which the kernel reads what it needs.
        (Err(libc::EFAULT), _) if size > 4 => {}
        (ours, hosts) => {
            assert_eq!(ours, hosts, "level {level} option {name} value {value:#x} of {size} at {at:x}");
        }
    }
}

fn on_host(socket: std::os::fd::BorrowedFd<'_>, option: &StackOption) -> Result<(), i32> {
    sys::set_option(socket, option.level, option.name, &option.value)
        .map_err(|error| crate::calls::errno(&error))
}

#[test]
fn options_set() {
    let arena = RefCell::new(Arena::new());
    fuzz("options_set", |input| set(input, &mut arena.borrow_mut()));
}
