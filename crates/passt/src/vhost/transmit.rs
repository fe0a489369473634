//! Frames to passt.

use std::io::IoSlice;
use std::sync::Arc;

use netshunt_backend::Sent;
use tracing::trace;

use super::plan::{FRAME, HEADER, Plan};
use super::ring::{Broken, Direction, Ring};
use super::sys::Memory;

/// The transmit queue: each frame is copied into a free buffer, and given back by passt.
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

    /// Frames that passt has not given back.
    pub(super) fn held(&self) -> u16 {
        self.ring.held()
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

#[cfg(test)]
mod tests {
    use super::super::device::Device;
    use super::super::plan::Sizes;
    use super::*;

    const SIZES: Sizes = Sizes { receive: 8, receive_bytes: 4096, small: 6, large: 2 };

    fn pair() -> (Transmit, Device) {
        let plan = Plan::new(SIZES);
        let memory = Arc::new(Memory::new(plan.bytes).unwrap());
        (Transmit::new(memory.clone(), &plan), Device::new(memory, plan.transmit_ring))
    }

    fn send(queue: &mut Transmit, frame: &[u8]) -> Sent {
        let (head, tail) = frame.split_at(frame.len().min(54));
        queue.send(&[IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)]).unwrap()
    }

    fn frame(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + len) as u8).collect()
    }

    #[test]
    fn frames_of_every_size_arrive_as_they_were() {
        let (mut queue, mut device) = pair();
        for len in [0, 1, 54, 1514, 2035, 2036, 2037, 9014, 65_534, 65_535] {
            assert_eq!(send(&mut queue, &frame(len)), Sent::Taken);
            assert_eq!(device.frame(), None, "shown before the flush");
            queue.flush(true);
            assert_eq!(device.frame(), Some(frame(len)), "{len}");
            device.show();
            queue.reclaim().unwrap();
        }
        assert_eq!(send(&mut queue, &frame(65_536)), Sent::Taken);
        queue.flush(true);
        assert_eq!(device.frame(), None, "no Ethernet frame");
    }

    #[test]
    fn a_full_queue_refuses_until_there_is_room() {
        let (mut queue, mut device) = pair();
        (0..2).for_each(|_| assert_eq!(send(&mut queue, &frame(60_000)), Sent::Taken));
        assert_eq!(send(&mut queue, &frame(60_000)), Sent::Busy);
        // Small ones have buffers of their own.
        (0..6).for_each(|_| assert_eq!(send(&mut queue, &frame(60)), Sent::Taken));
        assert_eq!(send(&mut queue, &frame(60)), Sent::Busy);
        queue.flush(true);
        assert!(!queue.sleep().unwrap());
        assert!(device.wants_call());
        for len in [60_000, 60_000, 60] {
            assert_eq!(device.frame(), Some(frame(len)));
        }
        device.show();
        assert!(queue.sleep().unwrap(), "used before it could be called");
        queue.wake();
        // Found without being told: a small frame may have a large buffer.
        (0..3).for_each(|_| assert_eq!(send(&mut queue, &frame(60)), Sent::Taken));
        assert_eq!(send(&mut queue, &frame(60)), Sent::Busy);
    }

    #[test]
    fn room_is_not_called_for_while_nobody_waits() {
        let (mut queue, mut device) = pair();
        assert_eq!(send(&mut queue, &frame(60)), Sent::Taken);
        queue.flush(true);
        assert_eq!(device.frame(), Some(frame(60)));
        device.show();
        assert!(!queue.sleep().unwrap());
        assert!(!device.wants_call());
    }

    #[test]
    fn one_kick_for_many_frames_and_none_while_the_device_works() {
        let (mut queue, mut device) = pair();
        assert!(!queue.flush(true), "nothing to tell");
        (0..3).for_each(|_| assert_eq!(send(&mut queue, &frame(60)), Sent::Taken));
        assert!(queue.flush(false));
        assert!(!queue.flush(true), "told already");
        assert_eq!(device.frame(), Some(frame(60)));
        assert_eq!(send(&mut queue, &frame(61)), Sent::Taken);
        assert!(!queue.flush(false), "it works at the three");
        assert_eq!(device.frame(), Some(frame(60)));
        assert_eq!(device.frame(), Some(frame(60)));
        device.show();
        queue.reclaim().unwrap();
        assert!(queue.flush(false), "it may have stopped before it saw the fourth");
        assert_eq!(send(&mut queue, &frame(62)), Sent::Taken);
        assert!(queue.flush(true), "nobody looks while we sleep");
    }

    #[test]
    fn a_device_that_looks_by_itself_is_not_kicked() {
        let (mut queue, mut device) = pair();
        device.want_kicks(false);
        assert_eq!(send(&mut queue, &frame(60)), Sent::Taken);
        assert!(!queue.flush(true));
        assert_eq!(device.frame(), Some(frame(60)));
    }
}
