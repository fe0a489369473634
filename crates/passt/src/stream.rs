//! The wire of every passt: frames in a row over a stream socket.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libc::{POLLIN, POLLOUT};
use netshunt_backend::{PollFd, Sent};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, sendmsg};
use tracing::trace;

use crate::frames::{Decoder, LONGEST, PREFIX, SHORTEST, prefix};
use crate::mend::{Fate, Mend};
use crate::sys;
use crate::wire::{Lost, Wire};

/// Frames up to this many bytes are collected and sent together; a longer one goes out at once, with
/// what has been collected, and is not copied.
const SMALL: usize = 8 << 10;
/// As much is collected before it is sent.
const FULL: usize = 64 << 10;
/// As many pieces as one call takes without a copy.
const PIECES: usize = 24;

/// Our end of the socket.
#[derive(Debug)]
pub(crate) struct StreamWire {
    socket: UnixStream,
    inbox: Decoder,
    /// What is still to be sent: whole frames, but for the first, of which a part may be gone.
    outbox: Vec<u8>,
    /// For a passt that needs it.
    mend: Option<Mend>,
    /// The socket was full when last tried.
    full: bool,
    /// The last read found all there was: poll(2) tells of more.
    dry: bool,
    /// Found while sending, told at the next occasion.
    lost: Option<Lost>,
}

impl StreamWire {
    /// `old`: passt is of before 2025, and its mistakes are mended.
    pub(crate) fn new(socket: OwnedFd, old: bool) -> Self {
        StreamWire {
            socket: UnixStream::from(socket),
            inbox: Decoder::new(),
            outbox: Vec::with_capacity(FULL + 2 * LONGEST),
            mend: old.then(Mend::new),
            full: false,
            dry: false,
            lost: None,
        }
    }

    /// Sends what has been collected, and then `pieces`; keeps what the socket has no room for.
    fn push(&mut self, pieces: &[IoSlice<'_>]) {
        let collected = self.outbox.len();
        let total = collected + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let mut slices = [IoSlice::new(&[]); PIECES + 2];
        slices[0] = IoSlice::new(&self.outbox);
        slices[1..=pieces.len()].copy_from_slice(pieces);
        let sent = self.write(&slices[..=pieces.len()]);
        let mut sent = match sent {
            Ok(sent) => sent,
            Err(lost) => {
                self.lost = Some(lost);
                self.outbox.clear();
                return;
            }
        };
        self.full = sent < total;
        self.outbox.drain(..sent.min(collected));
        sent = sent.saturating_sub(collected);
        for piece in pieces {
            let gone = sent.min(piece.len());
            self.outbox.extend_from_slice(&piece[gone..]);
            sent -= gone;
        }
    }

    /// One write; 0 if the socket is full.
    fn write(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Lost> {
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), pieces, &[], flags, None) {
                Ok(sent) => return Ok(sent),
                // Short of memory for a moment, it has room still: the next turn tries again.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Lost::Closed),
                Err(errno) => return Err(Lost::Io { doing: "send frames", source: errno.into() }),
            }
        }
    }

    /// Sends what waits for passt to have read everything, if it has.
    fn release(&mut self) {
        if let Some(mend) = &mut self.mend
            && mend.batches.unsent() != 0
            && self.outbox.is_empty()
            && matches!(sys::unread(self.socket.as_fd()), Ok(0))
        {
            mend.batches.read(&mut self.outbox);
        }
    }

    fn flush(&mut self) -> Result<(), Lost> {
        self.release();
        if !self.outbox.is_empty() {
            self.push(&[]);
        }
        self.lost.take().map_or(Ok(()), Err)
    }

    /// One read into the buffer; whether it brought anything.
    fn fill(&mut self) -> Result<bool, Lost> {
        loop {
            let room = self.inbox.room();
            let size = room.len();
            match recv(self.socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Err(Lost::Closed),
                Ok(count) => {
                    self.inbox.filled(count);
                    self.dry = count < size;
                    return Ok(true);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.dry = true;
                    return Ok(false);
                }
                Err(errno) => return Err(Lost::Io { doing: "receive frames", source: errno.into() }),
            }
        }
    }
}

impl Wire for StreamWire {
    fn send(&mut self, frame: &[IoSlice<'_>]) -> Sent {
        let length: usize = frame.iter().map(|piece| piece.len()).sum();
        if self.lost.is_some() || !(SHORTEST..=LONGEST).contains(&length) {
            trace!(length, "a frame that this wire cannot carry");
            return Sent::Taken;
        }
        if self.full {
            return Sent::Busy;
        }
        let prefix = prefix(length);
        let whole = || frame.iter().fold(prefix.to_vec(), |whole, piece| [&whole, &**piece].concat());
        if let Some(mend) = &mut self.mend
            && let Some(start) = frame.first()
        {
            match mend.sends(start) {
                Fate::Goes => {}
                Fate::Stays => return Sent::Taken,
                Fate::Waits(peers) => {
                    mend.batches.keep(peers, whole());
                    self.release();
                    return Sent::Taken;
                }
            }
        }
        if length > SMALL && frame.len() < PIECES {
            let mut pieces = [IoSlice::new(&[]); PIECES + 1];
            pieces[0] = IoSlice::new(&prefix);
            pieces[1..=frame.len()].copy_from_slice(frame);
            self.push(&pieces[..=frame.len()]);
            return Sent::Taken;
        }
        self.outbox.extend_from_slice(&prefix);
        frame.iter().for_each(|piece| self.outbox.extend_from_slice(piece));
        if self.outbox.len() >= FULL {
            self.push(&[]);
        }
        Sent::Taken
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<bool, Lost> {
        if !self.full {
            self.flush()?;
        }
        if self.dry || !self.fill()? {
            return Ok(false);
        }
        let mut any = false;
        while let Some(frame) = self.inbox.next().map_err(Lost::Protocol)? {
            any = true;
            if let Some(mend) = &mut self.mend {
                mend.received(frame);
            }
            deliver(frame);
        }
        Ok(any)
    }

    fn interests(&mut self, fds: &mut Vec<PollFd>) -> Option<Duration> {
        self.release();
        if !self.full && !self.outbox.is_empty() {
            // What it finds is told by `turn`.
            self.push(&[]);
        }
        let out = if self.full || self.lost.is_some() { POLLOUT } else { 0 };
        fds.push(PollFd { fd: self.socket.as_raw_fd(), events: POLLIN | out, revents: 0 });
        self.mend.as_mut().and_then(|mend| mend.batches.look())
    }

    fn unsent(&mut self) -> u64 {
        if !self.full {
            self.release();
            // What it finds is told by `turn`.
            self.push(&[]);
        }
        let waiting = self.mend.as_ref().map_or(0, |mend| mend.batches.unsent());
        (self.outbox.len() + waiting) as u64 + sys::unread(self.socket.as_fd()).unwrap_or(0)
    }

    fn turn(&mut self, fds: &[PollFd]) -> Result<(), Lost> {
        if fds.iter().any(|entry| entry.revents & !POLLIN != 0) {
            self.full = false;
        }
        if fds.iter().any(|entry| entry.revents != 0) {
            self.dry = false;
        }
        if self.full { Ok(()) } else { self.flush() }
    }
}

const _: () = assert!(PREFIX == size_of::<u32>());

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

    use super::*;

    fn pair() -> (StreamWire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (StreamWire::new(ours.into(), true), theirs)
    }

    fn encoded(frame: &[u8]) -> Vec<u8> {
        [&prefix(frame.len())[..], frame].concat()
    }

    /// A turn after poll(2).
    fn turn(wire: &mut StreamWire) -> Result<(), Lost> {
        let mut fds = Vec::new();
        wire.interests(&mut fds);
        sys::poll(&mut fds, Duration::from_secs(5)).unwrap();
        wire.turn(&fds)
    }

    /// Receives until the wire is lost.
    fn end(wire: &mut StreamWire) -> (usize, Lost) {
        let mut count = 0;
        loop {
            match turn(wire).and_then(|()| wire.receive(&mut |_| count += 1)) {
                Ok(_) => {}
                Err(lost) => return (count, lost),
            }
        }
    }

    #[test]
    fn small_frames_go_out_together_and_large_ones_at_once() {
        let (mut wire, mut peer) = pair();
        let mut expected = Vec::new();
        for length in [14, 60, 100] {
            let frame = vec![length as u8; length];
            assert_eq!(wire.send(&[IoSlice::new(&frame[..7]), IoSlice::new(&frame[7..])]), Sent::Taken);
            expected.extend(encoded(&frame));
        }
        peer.set_nonblocking(true).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let large = vec![9; 20_000];
        assert_eq!(wire.send(&[IoSlice::new(&large)]), Sent::Taken);
        expected.extend(encoded(&large));
        let mut got = vec![0; expected.len()];
        peer.set_nonblocking(false).unwrap();
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
        assert_eq!(wire.send(&[IoSlice::new(&[1; 14])]), Sent::Taken);
        wire.interests(&mut Vec::new());
        peer.read_exact(&mut got[..18]).unwrap();
        assert_eq!(got[..18], encoded(&[1; 14])[..]);
    }

    #[test]
    fn a_peer_that_never_reads_makes_it_busy_and_loses_nothing() {
        for length in [60, 9000, LONGEST] {
            let (mut wire, mut peer) = pair();
            let (mut sent, frame) = (0_u64, vec![5; length]);
            while wire.send(&[IoSlice::new(&frame)]) == Sent::Taken {
                sent += 1;
                assert!(sent < 100_000, "no end of room");
                assert!(wire.outbox.len() < FULL + 2 * LONGEST, "{wire:?}");
            }
            let mut fds = Vec::new();
            wire.interests(&mut fds);
            assert_eq!(fds[0].events, POLLIN | POLLOUT);
            let reader = std::thread::spawn(move || {
                let (mut total, mut buffer) = (0_u64, vec![0; 1 << 16]);
                loop {
                    match peer.read(&mut buffer).unwrap() {
                        0 => return total,
                        count => total += count as u64,
                    }
                }
            });
            while wire.full {
                fds[0].revents = POLLOUT;
                wire.turn(&fds).unwrap();
                std::thread::yield_now();
            }
            drop(wire);
            assert_eq!(reader.join().unwrap(), sent * (length + PREFIX) as u64);
        }
    }

    #[test]
    fn old_passt_never_reads_two_segments_of_a_closing_connection_at_once() {
        let (mut wire, mut peer) = pair();
        let packet = || PacketBuilder::ethernet2([4; 6], [2; 6]).ipv4([10, 0, 2, 15], [192, 0, 2, 10], 64);
        let written = |step: PacketBuilderStep<TcpHeader>| {
            let mut frame = Vec::new();
            step.write(&mut frame, &[]).unwrap();
            frame
        };
        let tcp = || packet().tcp(40_000, 80, 1, 65_535);
        let segments = [tcp().ack(1).fin(), tcp().ack(2), tcp().ack(3), tcp().rst()].map(written);
        for segment in &segments {
            assert_eq!(wire.send(&[IoSlice::new(segment)]), Sent::Taken);
        }
        let mut buffer = [0; 1 << 10];
        for segment in &segments {
            assert_ne!(wire.unsent(), 0);
            turn(&mut wire).unwrap();
            let count = peer.read(&mut buffer).unwrap();
            assert_eq!(buffer[..count], encoded(segment));
        }
        assert_eq!(wire.unsent(), 0);
    }

    #[test]
    fn a_wire_that_gave_all_is_not_asked_again_before_poll() {
        let (mut wire, mut peer) = pair();
        let mut count = 0;
        let mut receive = |wire: &mut StreamWire| wire.receive(&mut |_| count += 1).unwrap();
        peer.write_all(&encoded(&[7; 60])).unwrap();
        assert!(receive(&mut wire));
        peer.write_all(&encoded(&[7; 60])).unwrap();
        assert!(!receive(&mut wire), "dry");
        turn(&mut wire).unwrap();
        assert!(receive(&mut wire));
        assert_eq!(count, 2);
    }

    #[test]
    fn an_end_in_mid_frame_is_an_end() {
        let (mut wire, mut peer) = pair();
        peer.write_all(&encoded(&[7; 60])).unwrap();
        peer.write_all(&encoded(&[7; 60])[..30]).unwrap();
        drop(peer);
        let (count, lost) = end(&mut wire);
        assert!(matches!(lost, Lost::Closed), "{lost}");
        assert_eq!(count, 1);
    }

    #[test]
    fn lengths_of_no_frame_lose_the_wire() {
        for length in [0_u32, 1, 13, 65_536, u32::MAX] {
            let (mut wire, mut peer) = pair();
            peer.write_all(&length.to_be_bytes()).unwrap();
            let (_, lost) = end(&mut wire);
            assert!(matches!(&lost, Lost::Protocol(why) if why.contains("bytes")), "{lost}");
        }
    }

    #[test]
    fn endless_small_frames_are_taken_a_bounded_number_at_a_time() {
        let (mut wire, mut peer) = pair();
        let many = encoded(&[7; 14]).repeat(4096);
        let writer = std::thread::spawn(move || while peer.write_all(&many).is_ok() {});
        let (mut all, mut most) = (0, 0);
        while all < 1_000_000 {
            let mut count = 0;
            turn(&mut wire).unwrap();
            wire.receive(&mut |_| count += 1).unwrap();
            (all, most) = (all + count, most.max(count));
        }
        assert!(most <= (512 << 10) / 18, "{most}");
        drop(wire);
        writer.join().unwrap();
    }

    #[test]
    fn a_peer_that_is_gone_is_found_by_sending_too() {
        let (mut wire, peer) = pair();
        drop(peer);
        assert_eq!(wire.send(&[IoSlice::new(&[1; 14])]), Sent::Taken);
        assert!(matches!(wire.turn(&[]), Err(Lost::Closed)));
    }
}
