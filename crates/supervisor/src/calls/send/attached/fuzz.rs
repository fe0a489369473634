//! Control messages as guests write them, against sendmsg(2) of the host's kernel.

use std::os::fd::{AsFd, OwnedFd};

use netshunt_fuzz::{Input, fuzz};
use netshunt_notify::{Features, Tid};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::sys;

const LEVELS: &[i32] =
    &[libc::SOL_SOCKET, libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_IPV6, libc::IPPROTO_UDP];
const KINDS: &[i32] = &[
    libc::SCM_RIGHTS,
    libc::SCM_CREDENTIALS,
    libc::SCM_RIGHTS,
    libc::IP_RETOPTS,
    libc::IPV6_RTHDR,
    libc::IPV6_HOPOPTS,
    libc::IPV6_2292RTHDR,
    libc::UDP_SEGMENT,
    libc::IP_TTL,
    libc::SO_TXTIME,
];

/// Some control messages, most of them well formed.
fn written(input: &mut Input<'_>, file: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..input.up_to(3) {
        let level = if input.one_in(16) { input.word() as i32 } else { *input.pick(LEVELS) };
        let kind = if input.one_in(16) { input.word() as i32 } else { *input.pick(KINDS) };
        let value = match input.up_to(3) {
            0 => input.bytes(40),
            1 => credentials(input),
            _ => descriptors(input, file),
        };
        let at = bytes.len();
        control::push(&mut bytes, level, kind, &value);
        if input.one_in(8) {
            let rest = (bytes.len() - at) as u64;
            bytes[at..at + 8].copy_from_slice(&input.length(&[rest, 16, 20]).to_ne_bytes());
        }
    }
    if input.one_in(8) {
        input.spoil(&mut bytes);
    }
    bytes
}

fn descriptors(input: &mut Input<'_>, file: i32) -> Vec<u8> {
    let count = if input.one_in(16) { 250 + input.up_to(6) } else { input.up_to(3) };
    let all = [file, file, file, file, -1, i32::MAX, i32::MIN, 1 << 20];
    let numbers: Vec<i32> =
        (0..count).map(|_| *input.pick(&all[..if count > 9 { 1 } else { all.len() }])).collect();
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    // A part of one more.
    bytes.extend(input.bytes(3));
    bytes
}

fn credentials(input: &mut Input<'_>) -> Vec<u8> {
    let own = [std::process::id(), nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()];
    own.map(|own| if input.one_in(6) { *input.pick(&[u32::MAX, 1, own + 1, 0]) } else { own })
        .iter()
        .flat_map(|id| id.to_ne_bytes())
        .collect()
}

/// Whether it names a descriptor that may be open or not: this thread is the guest, and has others beside it.
fn is_doubtful(message: ControlMessage<'_>, file: i32) -> bool {
    let mut numbers = message.value.chunks_exact(4).map(|n| i32::from_ne_bytes([n[0], n[1], n[2], n[3]]));
    message.kind == libc::SCM_RIGHTS && numbers.any(|number| number != file && (0..1 << 16).contains(&number))
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::Unix,
        SockType::Datagram,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )
    .unwrap()
}

fn messages(bytes: &[u8]) -> Vec<ControlMessage<'_>> {
    control::messages(bytes).collect::<Result<_, _>>().expect("what we write is well formed")
}

/// AF_UNIX takes what the host's kernel takes, refuses what it refuses with the same errno, and is given no descriptor
/// and no name of ours.
fn local(input: &mut Input<'_>, thread: &GuestThread, file: i32) {
    let bytes = written(input, file);
    if control::messages(&bytes).flatten().any(|message| is_doubtful(message, file)) {
        return;
    }
    let (sender, _receiver) = pair();
    let ours = Attached { thread, kind: Kind::Unix }.take(&bytes);
    let send = |control: &[u8]| {
        let sent = sys::send_message(sender.as_fd(), &[], b"x", control, 0);
        sent.map(|_| ()).map_err(|error| error.raw_os_error().unwrap())
    };
    let hosts = send(&bytes);
    input.reached((
        hosts,
        bytes.len() > 200,
        ours.as_ref().map(|control| control.descriptors.len().min(3)).ok(),
    ));
    match &ours {
        Ok(control) => {
            assert_eq!(hosts, Ok(()), "{bytes:x?}");
            let kept = messages(&control.bytes);
            let rights = kept.iter().filter(|message| message.kind == libc::SCM_RIGHTS);
            let numbers: Vec<u8> = rights.flat_map(|message| message.value).copied().collect();
            let held: Vec<u8> =
                control.descriptors.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()).collect();
            assert_eq!(numbers, held, "descriptors that we hold, and no others");
            assert!(control.descriptors.len() <= MOST_DESCRIPTORS);
            assert!(control.descriptors.iter().all(|fd| fd.as_raw_fd() != file));
            assert_eq!(send(&control.bytes), Ok(()), "what is made of it is what can be sent");
        }
        // Who may say more natively may not here.
        Err(libc::EPERM) if nix::unistd::geteuid().is_root() => {}
        Err(errno) => assert_eq!(hosts, Err(*errno), "{bytes:x?}"),
    }
}

/// Of other sockets' nothing is passed on that names descriptors or processes, and for a guest's datagrams nothing that
/// leads a packet elsewhere; what is passed on is as it was written.
fn others(input: &mut Input<'_>, thread: &GuestThread, file: i32) {
    const WAYS: &[(i32, i32)] = &[
        (libc::IPPROTO_IP, 7),
        (libc::IPPROTO_IPV6, 54),
        (libc::IPPROTO_IPV6, 55),
        (libc::IPPROTO_IPV6, 57),
        (libc::IPPROTO_IPV6, 59),
        (libc::IPPROTO_IPV6, 3),
        (libc::IPPROTO_IPV6, 4),
        (libc::IPPROTO_IPV6, 5),
    ];
    let bytes = written(input, file);
    let kind = *input.pick(&[Kind::End, Kind::Foreign, Kind::Other, Kind::Tcp { v6: false }]);
    let taken = Attached { thread, kind }.take(&bytes);
    let given: Result<Vec<_>, i32> = control::messages(&bytes).collect();
    input.reached((
        kind == Kind::End,
        kind == Kind::Foreign,
        taken.as_ref().map(|c| c.bytes.len().min(3)).map_err(|e| *e),
    ));
    let Ok(control) = taken else { return };
    let (given, kept) = (given.expect("what is not well formed is refused"), messages(&control.bytes));
    assert!(control.descriptors.is_empty() && control.process_at.is_none());
    for message in &kept {
        assert!(given.contains(message), "{message:?}");
        let names = [libc::SCM_RIGHTS, libc::SCM_CREDENTIALS].contains(&message.kind);
        assert!(!(message.level == libc::SOL_SOCKET && names), "{message:?}");
        assert!(kind != Kind::End || !WAYS.contains(&(message.level, message.kind)), "{message:?}");
    }
    assert!(kept.is_empty() || matches!(kind, Kind::End | Kind::Foreign));
}

/// This thread in the guest's place, and a file of its own.
fn with(body: impl Fn(&mut Input<'_>, &GuestThread, i32), name: &str) {
    let tid = Tid(nix::unistd::gettid().as_raw());
    let thread = GuestThread::open(tid, &Features::detect().unwrap()).unwrap();
    let file = tempfile::tempfile().unwrap();
    fuzz(name, |input| body(input, &thread, file.as_raw_fd()));
}

#[test]
fn control_messages_of_unix_sockets() {
    with(local, "control_messages_of_unix_sockets");
}

#[test]
fn control_messages_of_other_sockets() {
    with(others, "control_messages_of_other_sockets");
}
