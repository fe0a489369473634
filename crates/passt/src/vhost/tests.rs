//! The whole wire against a peer in a thread: the handshake, and traffic between two that sleep.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, recvmsg};

use super::device::Device;
use super::*;

const SIZES: Sizes = Sizes { receive: 32, receive_bytes: 4096, small: 6, large: 2 };
const LIMIT: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// A message as a peer reads it, with at most one descriptor; `None` at the end.
fn message(socket: &UnixStream) -> Option<(u32, u32, Vec<u8>, Option<OwnedFd>)> {
    let mut header = [0; 12];
    let (len, fd) = {
        let mut pieces = [IoSliceMut::new(&mut header)];
        let mut space = cmsg_space!([i32; 4]);
        let fd = socket.as_raw_fd();
        let got = recvmsg::<()>(fd, &mut pieces, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).ok()?;
        let fds = got.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        // SAFETY: just received, and nobody else's.
        #[allow(unsafe_code)]
        let fd = fds.map(|fds| unsafe { OwnedFd::from_raw_fd(fds[0]) });
        (got.bytes, fd)
    };
    if len == 0 {
        return None;
    }
    assert_eq!(len, 12);
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; word(8) as usize];
    (&*socket).read_exact(&mut payload).unwrap();
    Some((word(0), word(4), payload, fd))
}

fn reply(socket: &UnixStream, request: u32, value: u64) {
    let mut bytes: Vec<u8> = [request, 1 | 4, 8].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(value.to_ne_bytes());
    (&*socket).write_all(&bytes).unwrap();
}

/// What a peer has been told.
struct Peer {
    socket: UnixStream,
    receive: Device,
    transmit: Device,
    kick: File,
    call: File,
}

impl Peer {
    /// Answers until both queues run.
    fn accept(socket: UnixStream, features: u64, protocol: u64) -> Option<Peer> {
        let mut memory = None;
        let (mut kicks, mut calls) = ([None, None], [None, None]);
        let mut addresses = [[0; 4]; 2];
        let mut sizes = [0; 2];
        loop {
            let (request, flags, payload, fd) = message(&socket)?;
            let number = |at: usize| u64::from_ne_bytes(payload[8 * at..8 * at + 8].try_into().unwrap());
            let queue = || usize::from(payload[0]);
            let value = || u32::from_ne_bytes(payload[4..8].try_into().unwrap());
            assert_eq!(flags & 3, 1, "the protocol's version");
            match request {
                1 => reply(&socket, 1, features),
                15 => reply(&socket, 15, protocol),
                2 => assert_eq!(number(0) & !features, 0, "not offered"),
                5 => {
                    assert_eq!((number(0), number(1), number(3), number(4)), (1, BASE, BASE, 0));
                    let len = NonZeroUsize::new(number(2) as usize).unwrap();
                    memory = Some(Arc::new(Memory::map(File::from(fd.unwrap()), len).unwrap()));
                }
                8 => sizes[queue()] = value() as u16,
                9 => addresses[queue()] = [1, 2, 3, 4].map(number),
                12 => kicks[queue()] = fd,
                13 => calls[queue()] = fd,
                3 | 10 | 16 => {}
                18 => assert_eq!(value(), 1),
                other => panic!("request {other}"),
            }
            if flags & 8 != 0 {
                assert_ne!(protocol & REPLY_ACK, 0, "an answer that was not agreed");
                reply(&socket, request, 0);
            }
            if request == 18 && payload[0] == 1 {
                let memory: Arc<Memory> = memory.unwrap();
                let layout = |queue: usize| {
                    let [descriptors, used, available, _] = addresses[queue].map(|at| at.wrapping_sub(BASE));
                    let [descriptors, used, available] = [descriptors, used, available].map(|at| at as usize);
                    Layout { size: sizes[queue], descriptors, used, available }
                };
                let [_, kick] = kicks.map(|fd| File::from(fd.unwrap()));
                let [call, _] = calls.map(|fd| File::from(fd.unwrap()));
                let receive = Device::new(memory.clone(), layout(0));
                let transmit = Device::new(memory, layout(1));
                return Some(Peer { socket, receive, transmit, kick, call });
            }
        }
    }

    /// Sends every frame back, as long as the driver is there. Sleeps when there is none.
    fn echo(mut self) {
        let mut back = std::collections::VecDeque::new();
        loop {
            let mut any = false;
            while let Some(frame) = self.transmit.frame() {
                back.push_back(frame);
                any = true;
            }
            self.transmit.show();
            while let Some(frame) = back.front()
                && self.receive.deliver(frame)
            {
                back.pop_front();
                any = true;
            }
            self.receive.show();
            if any && (self.receive.wants_call() || self.transmit.wants_call()) {
                let _ = self.call.write(&1_u64.to_ne_bytes());
            }
            if any {
                continue;
            }
            // It is kicked for frames to send, not for buffers to receive into: with some left to
            // deliver, it looks again by itself.
            let wait = if back.is_empty() { LIMIT } else { Duration::from_millis(1) };
            let entry = |fd| PollFd { fd, events: POLLIN, revents: 0 };
            let mut fds = [entry(self.kick.as_raw_fd()), entry(self.socket.as_raw_fd())];
            crate::sys::poll(&mut fds, wait).unwrap();
            if fds[1].revents != 0 || fds[0].revents & libc::POLLHUP != 0 {
                return;
            }
            if fds[0].revents != 0 {
                let _ = self.kick.read(&mut [0; 8]);
            }
        }
    }
}

/// A wire, and what a thread at the other end made of it.
fn with<T: Send + 'static>(
    peer: impl FnOnce(UnixStream) -> T + Send + 'static,
    deadline: Instant,
) -> (Result<VhostWire, Lost>, thread::JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = thread::spawn(move || peer(theirs));
    (VhostWire::with(ours, deadline, SIZES), peer)
}

fn accepted() -> (VhostWire, Peer) {
    let (wire, peer) = with(|socket| Peer::accept(socket, FEATURES, REPLY_ACK).unwrap(), soon());
    (wire.unwrap(), peer.join().unwrap())
}

/// One sleep of at most `wait`, as the stack's thread would; whether anything was ready.
fn turn(wire: &mut VhostWire, wait: Duration) -> Result<bool, Lost> {
    let mut fds = Vec::new();
    wire.interests(&mut fds);
    crate::sys::poll(&mut fds, wait).unwrap();
    wire.turn(&fds)?;
    Ok(fds.iter().any(|fd| fd.revents != 0))
}

fn frame(number: usize) -> Vec<u8> {
    let len = [60, 1514, 3, 9014, 65_535, 0][number % 6];
    (0..len).map(|i| (i + number) as u8).collect()
}

/// Two sides that both sleep whenever they can: a wake-up that is lost ends in a time-out.
fn exchange(features: u64, protocol: u64) {
    const COUNT: usize = 1200;
    let accept = move |socket| Peer::accept(socket, features, protocol).unwrap().echo();
    let (wire, peer) = with(accept, soon());
    let mut wire = wire.unwrap();
    let (mut sent, mut back) = (0, 0);
    while back < COUNT {
        // Few at a time, now and then, so that both fall asleep.
        let burst = 1 + back % 13;
        while sent < COUNT && sent - back < burst {
            let whole = frame(sent);
            let (head, tail) = whole.split_at(whole.len() / 2);
            match wire.send(&[IoSlice::new(head), IoSlice::new(tail)]) {
                Sent::Busy => break,
                Sent::Taken => sent += 1,
            }
        }
        let mut received = |got: &[u8]| {
            assert!(got == frame(back), "frame {back}");
            back += 1;
        };
        if !wire.receive(&mut received).unwrap() && back < COUNT {
            assert!(turn(&mut wire, LIMIT).unwrap(), "nothing comes after {sent} sent and {back} received");
        }
    }
    drop(wire);
    peer.join().unwrap();
}

#[test]
fn frames_go_both_ways_between_two_that_sleep() {
    exchange(FEATURES | 1 << 26, REPLY_ACK | 1 << 19);
}

#[test]
fn a_peer_need_not_confirm() {
    exchange(FEATURES, 0);
}

#[test]
fn a_peer_that_offers_too_little() {
    for missing in [GUEST_CSUM, MRG_RXBUF, PROTOCOL_FEATURES, VERSION_1] {
        let (wire, peer) = with(move |socket| Peer::accept(socket, FEATURES & !missing, 0).is_none(), soon());
        let lost = wire.unwrap_err();
        assert!(matches!(&lost, Lost::Protocol(why) if why.contains("offers")), "{lost}");
        assert!(peer.join().unwrap());
    }
}

#[test]
fn a_peer_that_goes_away() {
    for answered in 0..3 {
        let leave = move |socket| {
            for request in [1, 15].iter().take(answered) {
                assert_eq!(message(&socket).unwrap().0, *request);
                reply(&socket, *request, FEATURES | REPLY_ACK);
            }
        };
        let (wire, peer) = with(leave, soon());
        let lost = wire.unwrap_err();
        assert!(matches!(lost, Lost::Closed), "{lost}");
        peer.join().unwrap();
    }
}

#[test]
fn a_peer_that_never_answers() {
    let (over, wait) = std::sync::mpsc::channel::<()>();
    let silent = move |socket: UnixStream| {
        // One byte of an answer, to be waited for in vain.
        (&socket).write_all(&[1]).unwrap();
        let _ = wait.recv();
    };
    let (wire, peer) = with(silent, Instant::now() + Duration::from_millis(50));
    let lost = wire.unwrap_err();
    assert!(matches!(&lost, Lost::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut), "{lost}");
    drop(over);
    peer.join().unwrap();
}

#[test]
fn a_peer_that_answers_something_else() {
    for answer in [[2_u32, 5, 8], [1, 1, 8], [1, 6, 8], [1, 5, 9], [1, 5, u32::MAX]] {
        let wrong = move |socket: UnixStream| {
            message(&socket).unwrap();
            let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_ne_bytes()).chain([0; 8]).collect();
            (&socket).write_all(&bytes).unwrap();
            let _ = message(&socket);
        };
        let (wire, peer) = with(wrong, soon());
        let lost = wire.unwrap_err();
        assert!(matches!(lost, Lost::Protocol(_)), "{answer:?}: {lost}");
        peer.join().unwrap();
    }
}

#[test]
fn a_peer_that_refuses() {
    let refuse = |socket: UnixStream| {
        for request in [1, 15] {
            assert_eq!(message(&socket).unwrap().0, request);
            reply(&socket, request, FEATURES | REPLY_ACK);
        }
        while let Some((request, flags, ..)) = message(&socket) {
            if flags & 8 != 0 {
                reply(&socket, request, 1);
            }
        }
    };
    let (wire, peer) = with(refuse, soon());
    let lost = wire.unwrap_err();
    assert!(matches!(&lost, Lost::Protocol(why) if why.contains("SetOwner")), "{lost}");
    peer.join().unwrap();
}

#[test]
fn the_end_of_the_socket_is_the_end() {
    let (mut wire, peer) = accepted();
    assert!(!turn(&mut wire, Duration::ZERO).unwrap());
    drop(peer);
    assert!(matches!(turn(&mut wire, LIMIT), Err(Lost::Closed)));
}

#[test]
fn a_peer_that_speaks_unasked() {
    let (mut wire, peer) = accepted();
    reply(&peer.socket, 1, 0);
    assert!(matches!(turn(&mut wire, LIMIT), Err(Lost::Protocol(_))));
}

#[test]
fn a_broken_ring_is_told_by_the_next_turn() {
    let (mut wire, peer) = accepted();
    peer.transmit.show_index(9);
    peer.receive.show_index(33);
    assert!(matches!(turn(&mut wire, LIMIT), Err(Lost::Protocol(_))));
    let (mut wire, peer) = accepted();
    (0..2).for_each(|_| assert_eq!(wire.send(&[IoSlice::new(&[0; 3000])]), Sent::Taken));
    peer.transmit.show_index(9);
    assert_eq!(wire.send(&[IoSlice::new(&[0; 3000])]), Sent::Busy);
    assert!(matches!(turn(&mut wire, LIMIT), Err(Lost::Protocol(_))));
}

#[test]
fn a_peer_that_neither_reads_nor_stops_calling() {
    let (mut wire, mut peer) = accepted();
    // It rings until the pipe is full, and takes what it is sent without ever hearing the kick.
    while peer.call.write(&[0; 4096]).is_ok() {}
    for number in 0..20_000 {
        assert_eq!(wire.send(&[IoSlice::new(&frame(0))]), Sent::Taken, "{number}");
        assert!(turn(&mut wire, Duration::ZERO).unwrap() || number > 15);
        while peer.transmit.frame().is_some() {}
        peer.transmit.show();
    }
}

#[test]
fn a_peer_that_takes_nothing_holds_nobody_up() {
    let (mut wire, _peer) = accepted();
    let taken = (0..100).filter(|_| wire.send(&[IoSlice::new(&frame(0))]) == Sent::Taken).count();
    assert_eq!(taken, 8, "as many as there are buffers");
    assert!(!turn(&mut wire, Duration::ZERO).unwrap());
}
