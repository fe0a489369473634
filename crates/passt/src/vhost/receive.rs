//! Frames from passt.

use std::mem;
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
pub(super) struct Receive {
    ring: Ring,
    memory: Arc<Memory>,
    plan: Plan,
    /// A frame with its header, in private memory: passt cannot change what the stack looks at.
    frame: Box<[u8]>,
    /// passt was shown buffers when those it had were too few for a frame: it may be waiting for them.
    starved: bool,
}

impl Receive {
    /// A queue that holds every buffer.
    pub(super) fn new(memory: Arc<Memory>, plan: &Plan) -> Self {
        let ring = Ring::new(memory.clone(), plan.receive_ring, Direction::In);
        ring.call(false);
        let frame = vec![0; HEADER + FRAME].into_boxed_slice();
        let mut queue = Receive { ring, memory, plan: plan.clone(), frame, starved: false };
        plan.receive.ids.clone().for_each(|id| queue.give(id));
        queue.ring.publish();
        queue
    }

    /// Delivers the frames that are there, at most as many as there are buffers; whether any was.
    ///
    /// passt is shown the buffers of each before the stack looks at it: it goes on meanwhile, and with none it errs
    /// ([`Sizes`](super::plan::Sizes)).
    pub(super) fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<bool, Broken> {
        let mut arrived = self.ring.arrived()?;
        let any = arrived != 0;
        while arrived != 0 {
            let (len, buffers) = self.assemble(arrived)?;
            arrived -= buffers;
            self.publish();
            deliver(&self.frame[HEADER..len]);
        }
        Ok(any)
    }

    /// Whether passt should be kicked for the buffers given back.
    pub(super) fn flush(&mut self) -> bool {
        mem::take(&mut self.starved) && self.ring.wants_kick()
    }

    fn publish(&mut self) {
        let held = usize::from(self.ring.held() - self.ring.unpublished());
        self.starved |= held * self.plan.receive.size < HEADER + FRAME;
        self.ring.publish();
    }

    /// Buffers that passt has to receive into.
    pub(super) fn held(&self) -> u16 {
        self.ring.held()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::device::Device;
    use super::super::plan::Sizes;
    use super::*;

    /// Buffers for a frame of any size, with one to spare.
    const SIZES: Sizes = Sizes { receive: 32, receive_bytes: 2048 + 256, small: 6, large: 2 };

    fn pair() -> (Receive, Device) {
        let plan = Plan::new(SIZES);
        let memory = Arc::new(Memory::new(plan.bytes).unwrap());
        (Receive::new(memory.clone(), &plan), Device::new(memory, plan.receive_ring))
    }

    fn receive(queue: &mut Receive) -> Result<Vec<Vec<u8>>, Broken> {
        let mut frames = Vec::new();
        let any = queue.receive(&mut |frame| frames.push(frame.to_vec()))?;
        assert_eq!(any, !frames.is_empty());
        queue.flush();
        Ok(frames)
    }

    fn frame(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + len) as u8).collect()
    }

    /// Uses the next buffer for these bytes, header included, whatever they say.
    fn put(device: &mut Device, bytes: &[u8]) {
        let given = device.take().unwrap();
        device.memory.write(given.offset, bytes);
        device.give(given.id.into(), bytes.len() as u32);
    }

    fn header(buffers: u16) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[10..].copy_from_slice(&buffers.to_le_bytes());
        header
    }

    #[test]
    fn frames_of_every_size_arrive_as_they_were_and_in_order() {
        let (mut queue, mut device) = pair();
        for _ in 0..50 {
            let lens = [0, 1, 14, 2291, 2292, 2293, 9014, 20_000];
            assert!(lens.iter().all(|len| device.deliver(&frame(*len))));
            device.show();
            assert_eq!(receive(&mut queue).unwrap(), lens.map(frame));
            assert!(device.deliver(&frame(65_535)));
            device.show();
            assert_eq!(receive(&mut queue).unwrap(), [frame(65_535)]);
        }
        assert!(receive(&mut queue).unwrap().is_empty());
    }

    #[test]
    fn a_frame_used_while_falling_asleep_is_not_slept_over() {
        let (mut queue, mut device) = pair();
        assert!(!queue.sleep().unwrap());
        assert!(device.wants_call());
        queue.wake();
        assert!(!device.wants_call());
        assert!(device.deliver(&frame(60)));
        device.show();
        assert!(queue.sleep().unwrap());
    }

    #[test]
    fn a_kick_only_for_a_device_that_has_starved() {
        let (mut queue, mut device) = pair();
        assert!(device.deliver(&frame(60)));
        device.show();
        queue.receive(&mut |_| ()).unwrap();
        assert!(!queue.flush(), "it has buffers for a frame of any size");
        assert!(device.deliver(&frame(20_000)));
        device.show();
        queue.receive(&mut |_| ()).unwrap();
        assert!(queue.flush());
        assert!(!queue.flush(), "told already");
    }

    #[test]
    fn passt_has_the_buffers_back_before_the_stack_looks_at_a_frame() {
        let (mut queue, mut device) = pair();
        let largest = frame(65_535);
        for _ in 0..3 {
            assert!(device.deliver(&largest));
            device.show();
            let mut next = 0;
            queue.receive(&mut |_| next += u32::from(device.deliver(&largest))).unwrap();
            assert_eq!(next, 1, "it can send the next meanwhile");
            device.show();
            assert_eq!(receive(&mut queue).unwrap(), [&largest[..]]);
        }
    }

    #[test]
    fn a_count_of_buffers_that_cannot_be() {
        for buffers in [0, 3, 33, u16::MAX] {
            let (mut queue, mut device) = pair();
            put(&mut device, &header(buffers));
            put(&mut device, &[0; 20]);
            device.show();
            assert_eq!(receive(&mut queue), Err(Broken::Parts { buffers, arrived: 2 }));
        }
    }

    #[test]
    fn a_frame_shorter_than_its_header() {
        let (mut queue, mut device) = pair();
        put(&mut device, &header(1)[..11]);
        device.show();
        assert_eq!(receive(&mut queue), Err(Broken::Size { len: 11 }));
    }

    #[test]
    fn a_frame_larger_than_ethernet_has() {
        let (mut queue, mut device) = pair();
        put(&mut device, &[&header(29)[..], &frame(2292)].concat());
        (0..28).for_each(|_| put(&mut device, &frame(2304)));
        device.show();
        assert_eq!(receive(&mut queue), Err(Broken::Size { len: 29 * 2304 }));
    }

    #[test]
    fn a_buffer_overrun() {
        let (mut queue, mut device) = pair();
        let given = device.take().unwrap();
        device.give(given.id.into(), 2305);
        device.show();
        let broken = ring::Broken::Length { id: given.id, len: 2305 };
        assert_eq!(receive(&mut queue), Err(broken.into()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deliver(usize),
        Index(u16),
        Receive,
        Scribble(usize, Vec<u8>),
        Use(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // The rings are in the first page; half of what is written hits them.
        let offset = prop_oneof![0..2048_usize, 0..70_000_usize];
        let id = prop_oneof![0..40_u32, any::<u32>()];
        let len = prop_oneof![0..2400_u32, any::<u32>()];
        prop_oneof![
            (0..3000_usize).prop_map(Step::Deliver),
            prop_oneof![0..40_u16, any::<u16>()].prop_map(Step::Index),
            Just(Step::Receive),
            (offset, proptest::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, b)| Step::Scribble(at, b)),
            (id, len).prop_map(|(id, len)| Step::Use(id, len)),
        ]
    }

    proptest! {
        /// Whatever a device writes wherever and whenever, there are at most as many frames as there
        /// are buffers, none larger than a frame, or an error.
        #[test]
        fn a_hostile_device_is_refused_or_harmless(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut queue, mut device) = pair();
            for step in steps {
                match step {
                    Step::Deliver(len) => {
                        // What was scribbled over its own ring may leave it without buffers.
                        let _ = device.deliver(&frame(len));
                        device.show();
                    }
                    Step::Index(index) => device.show_index(index),
                    Step::Receive => {
                        let mut count = 0;
                        let result = queue.receive(&mut |frame| {
                            assert!(frame.len() <= FRAME);
                            count += 1;
                        });
                        assert!(count <= SIZES.receive);
                        if result.is_err() {
                            return Ok(());
                        }
                        queue.flush();
                    }
                    Step::Scribble(at, bytes) => device.memory.write(at, &bytes),
                    Step::Use(id, len) => {
                        device.give(id, len);
                        device.show();
                    }
                }
            }
        }
    }
}
