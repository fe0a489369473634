//! Messages as guests write them, read here and by the host's kernel.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netshunt_fuzz::{Input, fuzz};
use netshunt_notify::{Features, GuestThread, Tid};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::calls::arguments::written::{
    DATA, MESSAGES, NAMES, leads_beyond, length, messages, pointer, words,
};
use crate::sys::arena::{Arena, Call, SIZE};

fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 18];
    let length = sys::recv(socket.as_fd(), &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).unwrap()
}

/// What is read of a call is what the kernel sends, and what is refused it refuses with the same errno.
fn sent(input: &mut Input<'_>, arena: &mut Arena, thread: &GuestThread) {
    let stream = input.one_in(2);
    let (sender, receiver) = pair(if stream { SockType::Stream } else { SockType::Datagram });
    let buffer = sys::int_option(sender.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap() as usize;
    let limits = Limits { datagram: if stream { None } else { Some(buffer - 32) } };
    let attached = Attached::for_test(thread, Kind::Unix);
    let number = *input.pick(&[libc::SYS_sendmsg, libc::SYS_sendmmsg, libc::SYS_sendto]);
    let mut memory = messages(
        input,
        arena.base(),
        if number == libc::SYS_sendmmsg { ENTRY as u64 } else { HEADER as u64 },
    );
    let (fd, flags) = (sender.as_raw_fd() as u64, (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64);
    let at = if input.one_in(16) {
        *input.pick(&[0, 1 << 47, arena.base() + SIZE as u64 - 40])
    } else {
        arena.base()
    };
    let args = match number {
        libc::SYS_sendmsg => [fd, at, flags, 0, 0, 0],
        libc::SYS_sendmmsg => [fd, at, length(input, MESSAGES, &[]).min(MESSAGES as u64), flags, 0, 0],
        _ => {
            let buffer =
                [pointer(input, arena.base(), DATA), length(input, 300, &[208 << 10, 1 << 63, 0x7fff_f000])];
            let (mut name, mut name_length) = (0, 0);
            if input.one_in(4) {
                (name, name_length) =
                    (pointer(input, arena.base(), NAMES), length(input, 140, &[128, 1 << 31]) & 0xffff_ffff);
            }
            [
                fd,
                buffer[0],
                buffer[1],
                flags,
                name,
                if name_length >= 1 << 16 { u64::MAX } else { name_length },
            ]
        }
    };
    let named = if number == libc::SYS_sendto { args[4] != 0 } else { memory[..8] != [0; 8] };
    let mut seen = memory.clone();
    let call = Call { base: arena.base(), args, memory: RefCell::new(&mut seen) };
    let ours = match number {
        libc::SYS_sendmsg => one(&call, &limits, &attached),
        libc::SYS_sendmmsg => many(&call, &limits, &attached),
        _ => beside(&call, &limits, &attached),
    };
    let hosts = arena.call(number, args, &mut memory);
    let counts =
        ours.as_ref().map(|all| (all.len(), all.iter().any(Message::is_addressed))).map_err(|errno| *errno);
    input.reached((number, counts, hosts.map(|n| n.min(3)), stream));
    if hosts == Err(libc::EFAULT) && leads_beyond(&seen, &args) {
        return;
    }
    let all = match ours {
        // Of many, those before it are sent.
        Ok(mut all) if number == libc::SYS_sendmmsg && leads_beyond(&seen, &args) => {
            all.truncate(hosts.unwrap_or(all.len()));
            all
        }
        Ok(all) => all,
        // What has a name may be refused for that, before its data is looked at (unix_validate_addr()).
        Err(_) if [libc::EINVAL, libc::EISCONN].map(Err).contains(&hosts) && named => return,
        Err(errno) => return assert_eq!(hosts, Err(errno), "{args:x?} {}", words(&seen)),
    };
    assert!(all.iter().all(|message| !message.cut && message.control.descriptors() == 0));
    if let Some(n) = all.iter().position(Message::is_addressed) {
        // It has no address of any family: AF_UNIX refuses it, or is connected and does not look at it.
        let refused = [libc::EINVAL, libc::EISCONN, libc::EOPNOTSUPP].map(Err);
        assert!(n > 0 || refused.contains(&hosts), "{hosts:?} {args:x?} {}", words(&seen));
        return;
    }
    let datagrams = std::iter::from_fn(|| receive(&receiver));
    if stream {
        assert_eq!(
            datagrams.take_while(|part| !part.is_empty()).collect::<Vec<_>>().concat(),
            data(&all).concat()
        );
    } else {
        assert_eq!(datagrams.collect::<Vec<_>>(), data(&all), "{hosts:?} {args:x?} {}", words(&seen));
    }
    match number {
        libc::SYS_sendmmsg => assert_eq!(hosts, Ok(all.len())),
        _ => assert_eq!(hosts, Ok(all[0].data.len())),
    }
}

fn data(messages: &VecDeque<Message>) -> Vec<Vec<u8>> {
    messages.iter().map(|message| message.data.clone()).collect()
}

#[test]
fn messages_sent() {
    let thread =
        GuestThread::open(Tid(nix::unistd::gettid().as_raw()), &Features::detect().unwrap()).unwrap();
    let arena = RefCell::new(Arena::new());
    fuzz("messages_sent", |input| sent(input, &mut arena.borrow_mut(), &thread));
}
