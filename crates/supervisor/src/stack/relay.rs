//! The pump between a guest's socket and the stack's: bytes, half-close, reset and back-pressure.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use netshunt_lkl::{Kernel, Socket};

use crate::sys;

/// Bytes moved in one direction before another relay gets its turn.
const BUDGET: usize = 1 << 20;

/// The size of the buffer that all relays share.
pub(crate) const SCRATCH: usize = 256 * 1024;

/// Joins P, the supervisor's end of a guest's socket, with a socket of the stack.
#[derive(Debug)]
pub(crate) struct Relay {
    guest: OwnedFd,
    stack: Socket,
    up: Half,
    down: Half,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// Bytes read and not yet written; empty unless the writing side is full.
    pending: Vec<u8>,
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

impl Relay {
    pub(crate) fn new(guest: OwnedFd, stack: Socket) -> Self {
        Relay { guest, stack, up: Half::default(), down: Half::default() }
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn step(&mut self, kernel: &Kernel, scratch: &mut [u8]) -> Step {
        let (guest, stack) = (self.guest.as_fd(), self.stack);
        let up = self.up.pump(
            scratch,
            |buffer| sys::recv(guest, buffer).map_err(|e| blocked(&e, Broken::Guest)),
            |bytes| kernel.send(stack, bytes).map_err(|e| blocked(&e, Broken::Stack)),
            || drop(kernel.shutdown(stack, Shutdown::Write)),
        );
        let down = up.and_then(|up| {
            let down = self.down.pump(
                scratch,
                |buffer| kernel.recv(stack, buffer).map_err(|e| blocked(&e, Broken::Stack)),
                |bytes| sys::send(guest, bytes).map_err(|e| blocked(&e, Broken::Guest)),
                || drop(sys::end(guest)),
            )?;
            Ok(up || down)
        });
        match down {
            Ok(_) if self.up.closed && self.down.closed => {
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
                self.reset_guest();
                kernel.close(stack);
                Step::Done
            }
        }
    }

    /// Resets both ends.
    pub(crate) fn cut(&self, kernel: &Kernel) {
        self.reset_guest();
        kernel.abort(self.stack);
    }

    /// Closing P now sends a reset to the guest (SO_LINGER with time 0, socket(7)).
    fn reset_guest(&self) {
        let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        let set = sys::set_option(self.guest.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger);
        debug_assert!(set.is_ok(), "SO_LINGER is always to be had");
    }
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
        read: impl FnMut(&mut [u8]) -> Moved,
        write: impl FnMut(&[u8]) -> Moved,
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
        mut read: impl FnMut(&mut [u8]) -> Moved,
        mut write: impl FnMut(&[u8]) -> Moved,
        close: impl FnOnce(),
    ) -> Result<bool, Option<Broken>> {
        let mut moved = 0;
        while moved < BUDGET {
            while self.written < self.pending.len() {
                self.written += write(&self.pending[self.written..])?;
            }
            self.pending.clear();
            self.written = 0;
            if self.ended {
                if !std::mem::replace(&mut self.closed, true) {
                    close();
                }
                return Ok(false);
            }
            let count = read(scratch)?;
            self.ended = count == 0;
            moved += count;
            let mut bytes = &scratch[..count];
            while !bytes.is_empty() {
                match write(bytes) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(stopped) => {
                        self.pending.extend_from_slice(bytes);
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
    use super::*;

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
                Ok(n)
            },
            |bytes| {
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
    fn an_end_is_passed_on_once() {
        let mut half = Half::default();
        assert_eq!(pump(&mut half, &mut Vec::new(), &mut 9, &mut Vec::new()), (Ok(false), true));
        assert_eq!(pump(&mut half, &mut Vec::new(), &mut 9, &mut Vec::new()), (Ok(false), false));
    }
}
