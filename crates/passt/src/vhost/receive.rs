//! Frames from passt.

use std::sync::Arc;

use super::plan::{FRAME, HEADER, Plan};
use super::ring::{self, Direction, Ring, Used};
use super::sys::Memory;

/// Why passt is not believed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Ring(#[from] ring::Broken),
    #[error("a frame in {buffers} buffers, of which {arrived} have arrived")]
    Parts { buffers: u16, arrived: u16 },
    #[error("a frame of {len} bytes with its header")]
    Size { len: usize },
}

/// The receive queue: passt writes each frame into as many buffers as it takes.
#[derive(Debug)]
pub(super) struct Receive {
    ring: Ring,
    memory: Arc<Memory>,
    plan: Plan,
    /// A frame with its header, in private memory: passt cannot change what the stack looks at.
    frame: Box<[u8]>,
}

impl Receive {
    /// A queue that holds every buffer.
    pub(super) fn new(memory: Arc<Memory>, plan: &Plan) -> Self {
        let ring = Ring::new(memory.clone(), plan.receive_ring, Direction::In);
        ring.call(false);
        let frame = vec![0; HEADER + FRAME].into_boxed_slice();
        let mut queue = Receive { ring, memory, plan: plan.clone(), frame };
        plan.receive.ids.clone().for_each(|id| queue.give(id));
        queue.ring.publish();
        queue
    }

    /// Delivers the frames that are there, at most as many as there are buffers; whether any was.
    pub(super) fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<bool, Broken> {
        let mut arrived = self.ring.arrived()?;
        let any = arrived != 0;
        while arrived != 0 {
            let (len, buffers) = self.assemble(arrived)?;
            arrived -= buffers;
            deliver(&self.frame[HEADER..len]);
        }
        Ok(any)
    }

    /// Shows passt the buffers given back; whether it should be kicked.
    ///
    /// It may be waiting only if what it held was too little for a frame.
    pub(super) fn flush(&mut self) -> bool {
        let held = usize::from(self.ring.held() - self.ring.unpublished());
        let starved = held * self.plan.receive.size < HEADER + FRAME;
        self.ring.publish() != 0 && starved && self.ring.wants_kick()
    }

    /// Asks to be called when a frame has arrived; whether one has already.
    pub(super) fn sleep(&mut self) -> Result<bool, Broken> {
        self.ring.call(true);
        Ok(self.ring.arrived()? != 0)
    }

    /// Calls are not wanted any more.
    pub(super) fn wake(&mut self) {
        self.ring.call(false);
    }

    /// Copies the oldest frame out of its buffers, and gives them back; its bytes with the header, and
    /// how many buffers it was in.
    fn assemble(&mut self, arrived: u16) -> Result<(usize, u16), Broken> {
        let mut len = self.append(0)?;
        if len < HEADER {
            return Err(Broken::Size { len });
        }
        let buffers = u16::from_le_bytes([self.frame[10], self.frame[11]]);
        if buffers == 0 || buffers > arrived {
            return Err(Broken::Parts { buffers, arrived });
        }
        for _ in 1..buffers {
            len = self.append(len)?;
        }
        Ok((len, buffers))
    }

    /// Copies the next buffer behind the first `len` bytes.
    fn append(&mut self, len: usize) -> Result<usize, Broken> {
        let Some(Used { id, len: more }) = self.ring.take()? else {
            return Err(Broken::Parts { buffers: 1, arrived: 0 });
        };
        let end = len + more as usize;
        let Some(room) = self.frame.get_mut(len..end) else { return Err(Broken::Size { len: end }) };
        self.memory.read(self.plan.receive.offset(id), room);
        self.give(id);
        Ok(end)
    }

    fn give(&mut self, id: u16) {
        let buffers = &self.plan.receive;
        self.ring.offer(id, buffers.address(id), buffers.size as u32);
    }
}
