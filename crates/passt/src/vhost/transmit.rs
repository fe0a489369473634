//! Frames to passt.

use std::io::IoSlice;
use std::sync::Arc;

use netshunt_backend::Sent;
use tracing::trace;

use super::plan::{FRAME, HEADER, Plan};
use super::ring::{Broken, Direction, Ring};
use super::sys::Memory;

/// The transmit queue: each frame is copied into a free buffer, and given back by passt.
#[derive(Debug)]
pub(super) struct Transmit {
    ring: Ring,
    memory: Arc<Memory>,
    plan: Plan,
    /// Free buffers, the one used last on top: its memory is the likeliest to be cached.
    small: Vec<u16>,
    large: Vec<u16>,
    /// A frame was refused, and its sender waits for room.
    full: bool,
    /// How many frames passt was shown before the last kick; wraps, as the ring's indices do.
    kicked: u16,
}

impl Transmit {
    pub(super) fn new(memory: Arc<Memory>, plan: &Plan) -> Self {
        let ring = Ring::new(memory.clone(), plan.transmit_ring, Direction::Out);
        // passt calls only when somebody waits for room.
        ring.call(false);
        let [small, large] = [&plan.small, &plan.large].map(|buffers| buffers.ids.clone().rev().collect());
        Transmit { ring, memory, plan: plan.clone(), small, large, full: false, kicked: 0 }
    }

    /// Copies a frame into the queue. passt sees it with the next [`flush`](Self::flush).
    pub(super) fn send(&mut self, frame: &[IoSlice<'_>]) -> Result<Sent, Broken> {
        let len: usize = frame.iter().map(|piece| piece.len()).sum();
        if len > FRAME {
            trace!(len, "no Ethernet frame");
            return Ok(Sent::Taken);
        }
        let id = match self.free(HEADER + len) {
            Some(id) => id,
            None => {
                self.reclaim()?;
                let Some(id) = self.free(HEADER + len) else {
                    self.full = true;
                    return Ok(Sent::Busy);
                };
                id
            }
        };
        let buffers = self.buffers(id);
        let (mut at, address) = (buffers.offset(id), buffers.address(id));
        // No checksum to complete, no segments to cut: a header of zeroes.
        self.memory.write(at, &[0; HEADER]);
        at += HEADER;
        for piece in frame {
            self.memory.write(at, piece);
            at += piece.len();
        }
        self.ring.offer(id, address, (HEADER + len) as u32);
        Ok(Sent::Taken)
    }

    /// Takes back what passt has sent.
    pub(super) fn reclaim(&mut self) -> Result<(), Broken> {
        self.ring.arrived()?;
        while let Some(used) = self.ring.take()? {
            self.full = false;
            if self.plan.small.contains(used.id) { &mut self.small } else { &mut self.large }.push(used.id);
        }
        Ok(())
    }

    /// Shows passt the frames sent so far; whether it should be kicked.
    ///
    /// passt takes everything that is there before it gives anything back. So while it works at frames
    /// that it was kicked for, and we do not sleep, a kick can wait until it has given those back.
    pub(super) fn flush(&mut self, sleeping: bool) -> bool {
        self.ring.publish();
        let shown = self.ring.published();
        let working = (self.kicked.wrapping_sub(self.ring.taken()) as i16) > 0;
        if shown == self.kicked || (working && !sleeping) {
            return false;
        }
        self.kicked = shown;
        self.ring.wants_kick()
    }

    /// Asks to be called when there is room again, if anybody waits for it; whether there is already.
    pub(super) fn sleep(&mut self) -> Result<bool, Broken> {
        if !self.full {
            return Ok(false);
        }
        self.ring.call(true);
        Ok(self.ring.arrived()? != 0)
    }

    /// Calls are not wanted any more.
    pub(super) fn wake(&mut self) {
        self.ring.call(false);
    }

    fn free(&mut self, bytes: usize) -> Option<u16> {
        let small = if bytes <= self.plan.small.size { self.small.pop() } else { None };
        small.or_else(|| self.large.pop())
    }

    fn buffers(&self, id: u16) -> &super::plan::Buffers {
        if self.plan.small.contains(id) { &self.plan.small } else { &self.plan.large }
    }
}
