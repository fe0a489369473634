//! The pump between a guest's socket and the stack's: bytes, urgent ones too, half-close, reset and
//! back-pressure.
//!
//! An urgent byte (RFC 6093) is read in its place: the sockets that we read have SO_OOBINLINE, a read of theirs
//! stops before it, and then SIOCATMARK says so. It is sent on as it came, by itself.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netshunt_lkl::{Kernel, Socket};
use nix::sys::epoll::EpollFlags;
use tracing::warn;

use crate::sys;

/// Bytes moved in one direction before another relay gets its turn.
const BUDGET: usize = 1 << 20;

/// The size of the buffer that all relays share. What is in it is in a near cache still when it is written,
/// and a guest that receives begins while the rest is on its way: less costs more calls, more was slower.
pub(crate) const SCRATCH: usize = 32 * 1024;

/// Joins P, the supervisor's end of a guest's socket, with a socket of the stack.
#[derive(Debug)]
pub(crate) struct Relay {
    guest: OwnedFd,
    inlet: Inlet,
    stack: Socket,
    up: Half,
    down: Half,
}

/// Whether there may be something to read from P, whose events come once (EPOLLET, epoll(7)).
#[derive(Clone, Copy, Debug, Default)]
struct Inlet {
    readable: bool,
    /// A read that does not fill the buffer has not found all there is: it stops before the end of the
    /// stream and before an urgent byte, whose events may have come earlier.
    stops: bool,
    /// There has been an urgent byte. The next may be here before its event has been looked at.
    urgent: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// Bytes read and not yet written; empty unless the writing side is full.
    pending: Vec<u8>,
    /// It is one byte, and urgent.
    pressing: bool,
    written: usize,
    /// The reading side has ended.
    ended: bool,
    /// The writing side has been told so.
    closed: bool,
}

/// What a relay wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Both ends are closed, in order or by a reset that has been passed on.
    Done,
    /// Another turn: the budget was used up.
    More,
    /// An event of either end.
    Wait,
}

/// Which end a reset came from.
#[derive(Clone, Copy)]
enum Broken {
    Guest,
    Stack,
}

/// Bytes moved, or why not: `None` means that nothing can be moved now.
type Moved = Result<usize, Option<Broken>>;

/// Bytes read, and whether it is one that is urgent.
type Read = Result<(usize, bool), Option<Broken>>;

impl Relay {
    pub(crate) fn new(guest: OwnedFd, stack: Socket, kernel: &Kernel) -> Self {
        let (level, name, on) = (libc::SOL_SOCKET, libc::SO_OOBINLINE, 1i32.to_ne_bytes());
        let set = sys::set_option(guest.as_fd(), level, name, &on);
        let set = set.and_then(|()| kernel.set_option(stack, level, name, &on));
        if let Err(error) = set {
            warn!(%error, "urgent bytes of a connection are lost");
        }
        // Whatever else ends us, a stop, a fault, SIGKILL, is not to look as if the far side had said all it had to say.
        sys::reset_when_closed(guest.as_fd());
        Relay { guest, inlet: Inlet::default(), stack, up: Half::default(), down: Half::default() }
    }

    /// P has had an event.
    pub(crate) fn noted(&mut self, flags: EpollFlags) {
        self.inlet.noted(flags);
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn step(&mut self, kernel: &Kernel, scratch: &mut [u8]) -> Step {
        let (guest, stack, inlet) = (self.guest.as_fd(), self.stack, &mut self.inlet);
        let up = self.up.pump(
            scratch,
            |buffer| inlet.read(guest, buffer),
            |bytes, urgent| {
                kernel.send_with(stack, bytes, out_of_band(urgent)).map_err(|e| blocked(&e, Broken::Stack))
            },
            || drop(kernel.shutdown(stack, Shutdown::Write)),
        );
        let down = up.and_then(|up| {
            let pri = libc::EPOLLPRI as u32;
            let marked = kernel.readiness(stack) & pri != 0;
            let down = self.down.pump(
                scratch,
                |buffer| {
                    let urgent = marked && at_mark(kernel, stack);
                    let buffer = if urgent { &mut buffer[..1] } else { buffer };
                    let read = kernel.recv(stack, buffer).map_err(|e| blocked(&e, Broken::Stack));
                    read.map(|count| (count, urgent && count > 0))
                },
                |bytes, urgent| {
                    sys::send_with(guest, bytes, out_of_band(urgent)).map_err(|e| blocked(&e, Broken::Guest))
                },
                || drop(sys::end(guest)),
            )?;
            Ok(up || down)
        });
        match down.and_then(|more| self.late_reset(kernel).map_or(Ok(more), Err)) {
            Ok(_) if self.up.closed && self.down.closed => {
                sys::end_when_closed(self.guest.as_fd());
                kernel.close(stack);
                Step::Done
            }
            Ok(true) => Step::More,
            Ok(false) => Step::Wait,
            Err(Broken::Guest) => {
                kernel.abort(stack);
                Step::Done
            }
            Err(Broken::Stack) => {
                kernel.close(stack);
                Step::Done
            }
        }
    }

    /// A reset of an end that will send no more is found by nobody who reads from it: bytes have come to where
    /// nobody reads them.
    fn late_reset(&self, kernel: &Kernel) -> Option<Broken> {
        let guest = || sys::poll_now(self.guest.as_fd(), 0) & libc::POLLERR != 0;
        if self.up.ended && !self.down.closed && self.inlet.stops && guest() {
            return Some(Broken::Guest);
        }
        let stack = || kernel.readiness(self.stack) & libc::EPOLLERR as u32 != 0;
        (self.down.ended && !self.up.closed && stack()).then_some(Broken::Stack)
    }

    /// Whether the guest has closed its end, or will send no more.
    pub(crate) fn guest_has_closed(&self) -> bool {
        self.up.ended
            || sys::poll_now(self.guest.as_fd(), libc::POLLRDHUP) & (libc::POLLRDHUP | libc::POLLHUP) != 0
    }

    /// Bytes from the guest that the stack does not have yet, and one for their end.
    pub(crate) fn unsent(&self) -> u64 {
        let waiting = self.up.pending.len() - self.up.written;
        let unread = if self.up.ended { 0 } else { sys::unread_by_us(self.guest.as_fd()).unwrap_or(0) };
        waiting as u64 + u64::try_from(unread).unwrap_or(0) + u64::from(!self.up.closed)
    }

    /// Resets both ends, the guest's when it is dropped.
    pub(crate) fn cut(&self, kernel: &Kernel) {
        kernel.abort(self.stack);
    }
}

impl Inlet {
    fn noted(&mut self, flags: EpollFlags) {
        let stops =
            EpollFlags::EPOLLPRI | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        self.stops |= flags.intersects(stops);
        self.readable |= flags.intersects(stops | EpollFlags::EPOLLIN);
        self.urgent |= flags.contains(EpollFlags::EPOLLPRI);
    }

    /// Asks the kernel only if there may be something.
    fn read(&mut self, guest: BorrowedFd<'_>, buffer: &mut [u8]) -> Read {
        if !self.readable {
            return Err(None);
        }
        let urgent = self.urgent && sys::at_mark(guest);
        let buffer = if urgent { &mut buffer[..1] } else { buffer };
        let read = sys::recv(guest, buffer);
        match &read {
            Ok(count) => self.readable = self.stops || *count == buffer.len(),
            Err(error) => self.readable = error.kind() != io::ErrorKind::WouldBlock,
        }
        read.map(|count| (count, urgent && count > 0)).map_err(|error| blocked(&error, Broken::Guest))
    }
}

/// The flags of send(2) for a byte that came as urgent.
fn out_of_band(urgent: bool) -> i32 {
    if urgent { libc::MSG_OOB } else { 0 }
}

/// sockatmark(3) of a stack's socket.
fn at_mark(kernel: &Kernel, stack: Socket) -> bool {
    let mut answer = [0; 4];
    kernel.ioctl(stack, sys::SIOCATMARK, &mut answer).is_ok() && answer != [0; 4]
}

/// `None`: nothing to be done now.
fn blocked(error: &io::Error, end: Broken) -> Option<Broken> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => None,
        // The stack may be short of memory for a moment (net/ipv4/tcp.c): its write edge returns.
        _ if matches!(end, Broken::Stack) && error.raw_os_error() == Some(libc::ENOMEM) => None,
        _ => Some(end),
    }
}

impl Half {
    /// Reads and writes until one side would block (`Ok(false)`) or the budget is used (`Ok(true)`).
    fn pump(
        &mut self,
        scratch: &mut [u8],
        read: impl FnMut(&mut [u8]) -> Read,
        write: impl FnMut(&[u8], bool) -> Moved,
        close: impl FnOnce(),
    ) -> Result<bool, Broken> {
        match self.try_pump(scratch, read, write, close) {
            Ok(more) => Ok(more),
            Err(None) => Ok(false),
            Err(Some(broken)) => Err(broken),
        }
    }

    fn try_pump(
        &mut self,
        scratch: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> Read,
        mut write: impl FnMut(&[u8], bool) -> Moved,
        close: impl FnOnce(),
    ) -> Result<bool, Option<Broken>> {
        let mut moved = 0;
        while moved < BUDGET {
            while self.written < self.pending.len() {
                self.written += write(&self.pending[self.written..], self.pressing)?;
            }
            self.pending.clear();
            self.written = 0;
            if self.ended {
                if !std::mem::replace(&mut self.closed, true) {
                    close();
                }
                return Ok(false);
            }
            let (count, urgent) = read(scratch)?;
            self.ended = count == 0;
            moved += count;
            let mut bytes = &scratch[..count];
            while !bytes.is_empty() {
                match write(bytes, urgent) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(stopped) => {
                        self.pending.extend_from_slice(bytes);
                        self.pressing = urgent;
                        return Err(stopped);
                    }
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
    use nix::sys::socket::{MsgFlags, send};

    use super::*;
    use crate::stack::connections::EDGES;

    /// A guest's socket, and P with what watches it.
    struct Pair {
        guest: TcpStream,
        p: TcpStream,
        epoll: Epoll,
        inlet: Inlet,
    }

    impl Pair {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let guest = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (p, _) = listener.accept().unwrap();
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            epoll.add(&p, EpollEvent::new(EDGES, 0)).unwrap();
            Pair { guest, p, epoll, inlet: Inlet::default() }
        }

        /// Waits for an event and notes it.
        fn wait(&mut self) {
            let mut events = [EpollEvent::empty()];
            assert_eq!(self.epoll.wait(&mut events, EpollTimeout::from(5000_u16)).unwrap(), 1);
            self.inlet.noted(events[0].events());
        }

        /// Reads until there is nothing more; all of it, and whether the end was found.
        fn read(&mut self) -> (Vec<u8>, bool) {
            let (mut all, mut buffer) = (Vec::new(), [0; 16]);
            while let Ok((count, _)) = self.inlet.read(self.p.as_fd(), &mut buffer) {
                if count == 0 {
                    return (all, true);
                }
                all.extend_from_slice(&buffer[..count]);
            }
            (all, false)
        }
    }

    #[test]
    fn a_short_read_has_found_everything_and_the_next_waits_for_an_event() {
        let mut pair = Pair::new();
        assert_eq!(pair.read(), (Vec::new(), false));
        pair.guest.write_all(b"one").unwrap();
        pair.wait();
        assert!(pair.inlet.readable);
        assert_eq!(pair.read(), (b"one".to_vec(), false));
        assert!(!pair.inlet.readable);
        pair.guest.write_all(&[7; 16]).unwrap();
        pair.wait();
        assert_eq!(pair.inlet.read(pair.p.as_fd(), &mut [0; 16]).map_err(drop), Ok((16, false)));
        assert!(pair.inlet.readable, "a full buffer says nothing");
        assert_eq!(pair.read(), (Vec::new(), false));
    }

    #[test]
    fn the_end_is_found_behind_the_last_bytes_whose_event_it_shared() {
        let mut pair = Pair::new();
        pair.guest.write_all(b"last").unwrap();
        pair.guest.shutdown(Shutdown::Write).unwrap();
        while !pair.inlet.stops {
            pair.wait();
        }
        assert_eq!(pair.read(), (b"last".to_vec(), true));
    }

    #[test]
    fn an_urgent_byte_is_found_in_its_place_and_the_bytes_behind_it_too() {
        let mut pair = Pair::new();
        sys::set_option(pair.p.as_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, &1i32.to_ne_bytes()).unwrap();
        pair.guest.write_all(b"before").unwrap();
        send(pair.guest.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        pair.guest.write_all(b"behind").unwrap();
        while !pair.inlet.stops {
            pair.wait();
        }
        let mut buffer = [0; 16];
        for (expected, urgent) in [("before", false), ("!", true), ("behind", false)] {
            let read = pair.inlet.read(pair.p.as_fd(), &mut buffer).map_err(drop);
            assert_eq!(read, Ok((expected.len(), urgent)));
            assert_eq!(&buffer[..expected.len()], expected.as_bytes());
        }
        assert_eq!(pair.read(), (Vec::new(), false));
    }

    #[test]
    fn an_urgent_byte_is_urgent_before_its_event_has_been_looked_at() {
        let mut pair = Pair::new();
        sys::set_option(pair.p.as_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, &1i32.to_ne_bytes()).unwrap();
        let urgent = |pair: &Pair| send(pair.guest.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        urgent(&pair);
        while !pair.inlet.urgent {
            pair.wait();
        }
        assert_eq!(pair.inlet.read(pair.p.as_fd(), &mut [0; 16]).map_err(drop), Ok((1, true)));
        assert_eq!(pair.read(), (Vec::new(), false));
        pair.guest.write_all(b"at").unwrap();
        pair.wait();
        urgent(&pair);
        for expected in [(2, false), (1, true)] {
            assert_eq!(pair.inlet.read(pair.p.as_fd(), &mut [0; 16]).map_err(drop), Ok(expected));
        }
    }

    /// A source with `data` left to give and a sink with room for `room` bytes.
    fn pump(
        half: &mut Half,
        data: &mut Vec<u8>,
        room: &mut usize,
        out: &mut Vec<u8>,
    ) -> (Result<bool, ()>, bool) {
        let mut scratch = [0; 16];
        let mut closed = false;
        let result = half.pump(
            &mut scratch,
            |buffer| {
                let n = data.len().min(buffer.len());
                buffer[..n].copy_from_slice(&data[..n]);
                data.drain(..n);
                Ok((n, false))
            },
            |bytes, _| {
                let n = bytes.len().min(*room);
                if n == 0 {
                    return Err(None);
                }
                *room -= n;
                out.extend_from_slice(&bytes[..n]);
                Ok(n)
            },
            || closed = true,
        );
        (result.map_err(|_| ()), closed)
    }

    #[test]
    fn back_pressure_keeps_every_byte_and_closes_after_the_last() {
        let wanted: Vec<u8> = (0..100).collect();
        let (mut half, mut data, mut out) = (Half::default(), wanted.clone(), Vec::new());
        for _ in 0..14 {
            assert_eq!(pump(&mut half, &mut data, &mut 7, &mut out), (Ok(false), false));
        }
        assert_eq!(pump(&mut half, &mut data, &mut 7, &mut out), (Ok(false), true));
        assert_eq!(out, wanted);
        assert!(half.pending.is_empty() && half.closed);
    }

    #[test]
    fn an_urgent_byte_that_has_to_wait_is_urgent_then() {
        let (mut half, mut source) = (Half::default(), vec![(1, false), (1, true), (2, false)].into_iter());
        let (mut room, mut sent) = (1, Vec::new());
        for _ in 0..4 {
            let read = |_: &mut [u8]| source.next().ok_or(None);
            let write = |bytes: &[u8], urgent| match std::mem::take(&mut room) {
                0 => Err(None),
                _ => {
                    sent.push((bytes.len(), urgent));
                    Ok(bytes.len())
                }
            };
            assert_eq!(half.pump(&mut [0; 4], read, write, || {}).map_err(drop), Ok(false));
            room = 1;
        }
        assert_eq!(sent, [(1, false), (1, true), (2, false)]);
    }

    #[test]
    fn an_end_is_passed_on_once() {
        let mut half = Half::default();
        assert_eq!(pump(&mut half, &mut Vec::new(), &mut 9, &mut Vec::new()), (Ok(false), true));
        assert_eq!(pump(&mut half, &mut Vec::new(), &mut 9, &mut Vec::new()), (Ok(false), false));
    }
}
