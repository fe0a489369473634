//! A peer that answers what it likes, and writes what it likes into the memory that both map.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use netshunt_fuzz::{Input, fuzz};

use super::device::Device;
use super::plan::{FRAME, HEADER};
use super::*;

const SIZES: Sizes = Sizes { receive: 32, receive_bytes: 2048 + 256, small: 6, large: 2 };

/// The answers of a peer that agrees, but for what is wrong with them: agreed is what was answered rightly.
fn answers(input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let confirms = input.one_in(2);
    let mut rest = vec![3, 2, 5];
    (0..2).for_each(|_| rest.extend([8, 10, 9, 13, 12, 18]));
    let requests = [1, 15].into_iter().chain(rest).take(if confirms { 17 } else { 2 });
    // Whether the features were answered rightly, and by these is to be confirmed what follows.
    let (mut bytes, mut agreed, mut says) = (Vec::new(), true, confirms);
    for request in requests {
        let mut words = [request, 1 | 4, 8];
        let mut value = match request {
            1 => FEATURES | 1 << 26,
            15 if confirms => REPLY_ACK | 1 << 19,
            15 => 1 << 19,
            _ => 0,
        };
        if input.one_in(40) {
            let word = input.up_to(2);
            words[word] = *input.pick(&[0, 1, 4, 5, 6, 8, 9, 13, u32::MAX, request + 1]);
        }
        if input.one_in(40) {
            value ^= 1 << (input.byte() % 64);
        }
        let features = [1, 15].contains(&request);
        let mut right = words[0] == request && words[1] & 7 == 5 && words[2] == 8;
        match request {
            1 => right &= value & FEATURES == FEATURES,
            15 => says = value & REPLY_ACK != 0,
            _ => right &= value == 0,
        }
        // What need not be confirmed is not read.
        agreed &= right || (!features && !says);
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()).chain(value.to_ne_bytes()));
        if input.one_in(60) {
            bytes.truncate(bytes.len() - 1 - input.up_to(18));
            agreed &= !features && !says;
            break;
        }
    }
    (bytes, agreed && (confirms || !says))
}

/// Nothing but what was answered rightly makes a wire, and nothing takes longer than it may.
fn spoken(input: &mut Input<'_>) {
    let (bytes, agreed) = answers(input);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&bytes).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let result = VhostWire::with(ours, Instant::now() + Duration::from_secs(5), SIZES);
    let how = match &result {
        Ok(_) => 0,
        Err(Lost::Closed) => 1,
        Err(Lost::Io { .. }) => 2,
        Err(Lost::Protocol(_)) => 3,
    };
    input.reached((how, bytes.len() / 20));
    assert_eq!(result.is_ok(), agreed, "{result:?}");
    assert_ne!(how, 2, "nothing was waited for: {result:?}");
}

/// Both queues of a wire, and the peer's hands on the memory.
struct Sides {
    receive: Receive,
    transmit: Transmit,
    memory: Arc<Memory>,
    deliver: Device,
    take: Device,
}

impl Sides {
    fn new() -> Self {
        let plan = Plan::new(SIZES);
        let memory = Arc::new(Memory::new(plan.bytes).unwrap());
        Sides {
            receive: Receive::new(memory.clone(), &plan),
            transmit: Transmit::new(memory.clone(), &plan),
            deliver: Device::new(memory.clone(), plan.receive_ring),
            take: Device::new(memory.clone(), plan.transmit_ring),
            memory,
        }
    }
}

fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![length as u8; length];
    // Each of its buffers holds something else.
    frame.iter_mut().step_by(1000).enumerate().for_each(|(n, byte)| *byte ^= 1 + n as u8);
    frame
}

/// Bytes somewhere in the memory: in the rings more often than elsewhere.
fn scribble(input: &mut Input<'_>, memory: &Memory) {
    let at = match input.up_to(3) {
        0 => input.up_to(memory.len() - 64),
        1 => 4096 + input.up_to(512),
        _ => input.up_to(1024),
    };
    memory.write(at, &input.bytes(32));
}

/// Whatever a peer writes, wherever and whenever: frames that are none are not delivered, what is looked at is not
/// changed meanwhile, no buffer is given twice. A peer that writes nothing but what it should gets every frame across.
fn written(input: &mut Input<'_>) {
    let mut sides = Sides::new();
    let (mut honest, mut sent, mut coming) = (true, Vec::new(), Vec::new());
    for _ in 0..input.up_to(40) {
        match input.up_to(9) {
            0 | 1 => {
                let length = *input.pick(&[60, 0, 1514, 3000, 2292, 65_535, 65_536]);
                let frame = frame(length);
                let taken = sides.transmit.send(&[IoSlice::new(&frame)]);
                assert!(taken.is_ok() || !honest);
                if matches!(taken, Ok(Sent::Taken)) && length <= FRAME {
                    sent.push(frame);
                }
            }
            2 => {
                sides.transmit.flush(input.one_in(2));
                if honest {
                    while let Some(got) = sides.take.frame() {
                        assert!(got == sent.remove(0), "sent as it was");
                    }
                    sides.take.show();
                }
            }
            3 => {
                let result = sides.transmit.reclaim();
                assert!(result.is_ok() || !honest);
                if result.is_err() {
                    return input.reached(("transmit", honest));
                }
            }
            4 | 5 => {
                let length = *input.pick(&[60, 0, 14, 2293, 9000, 65_535, 20_000, 65_536, 70_000]);
                honest &= length <= FRAME;
                let frame = frame(length);
                let times = if input.one_in(2) { 1 + input.up_to(31) } else { 1 };
                for _ in 0..times {
                    if sides.deliver.deliver(&frame) {
                        coming.push(frame.clone());
                    }
                }
                sides.deliver.show();
            }
            6 | 7 => {
                let (mut count, meanwhile) = (0, input.one_in(3));
                let memory = sides.memory.clone();
                honest &= !meanwhile;
                let result = sides.receive.receive(&mut |got| {
                    assert!(got.len() <= FRAME);
                    count += 1;
                    if honest {
                        assert!(got == coming.remove(0), "received as it was");
                    }
                    if meanwhile {
                        let before = got.to_vec();
                        memory.write(0, &vec![input.byte(); memory.len()]);
                        assert!(got == before, "it is ours while we look at it");
                    }
                });
                assert!(count <= SIZES.receive);
                assert!(result.is_ok() || !honest, "{result:?}");
                input.reached((
                    result.map_err(|broken| std::mem::discriminant(&broken)),
                    usize::from(count).min(3),
                    honest,
                ));
                if result.is_err() {
                    return;
                }
                sides.receive.flush();
            }
            8 => {
                honest = false;
                scribble(input, &sides.memory);
            }
            _ => {
                honest = false;
                let device = if input.one_in(2) { &mut sides.deliver } else { &mut sides.take };
                if input.one_in(3) {
                    device.show_ahead(input.byte().into());
                    continue;
                }
                device.give(input.up_to(40) as u32, input.length(&[2304, HEADER as u64]) as u32);
                match input.one_in(4) {
                    true => device.show_index(input.short()),
                    false => device.show(),
                }
            }
        }
        assert!(sides.receive.held() <= SIZES.receive && sides.transmit.held() <= SIZES.small + SIZES.large);
    }
}

#[test]
fn answers_of_a_peer() {
    fuzz("answers_of_a_peer", spoken);
}

#[test]
fn rings_of_a_peer() {
    fuzz("rings_of_a_peer", written);
}
