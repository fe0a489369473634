//! Where a guest wants a message: `struct msghdr` and `struct mmsghdr` (recvmsg(2), recvmmsg(2)), or
//! the arguments of recvfrom(2). The checks and their errno are those of net/socket.c.

use netshunt_notify::{Fault, TargetAddr};

use crate::calls::arguments::Arguments;
use crate::ends::Run;

/// `struct msghdr`, and that with `msg_len` behind it.
const HEADER: usize = 56;
const ENTRY: usize = 64;
const _: () = assert!(size_of::<libc::msghdr>() == HEADER, "linux/socket.h");
const _: () = assert!(size_of::<libc::mmsghdr>() == ENTRY, "linux/socket.h");

/// What follows within them.
const NAME_LENGTH: u64 = 8;
const CONTROL_LENGTH: u64 = 40;
const FLAGS: u64 = 48;
const LENGTH: u64 = 56;

/// `UIO_MAXIOV` of linux/uio.h: buffers of a message. As many are remembered for one recvmmsg(2), which may
/// return with less than was asked for: natively nobody remembers them, here they cost memory while it waits.
const MOST: usize = 1024;

/// `struct cmsghdr`, and what it is aligned to.
const CONTROL: usize = 16;
const ALIGN: usize = 8;

/// What is to be written, and where.
pub(super) type Pieces = Vec<(TargetAddr, Vec<u8>)>;

/// Where one message goes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    buffers: Vec<(TargetAddr, usize)>,
    name: TargetAddr,
    header: Header,
}

#[derive(Clone, Debug)]
enum Header {
    /// recvfrom(2): the length of the name is elsewhere.
    Beside {
        length: TargetAddr,
    },
    Message {
        at: TargetAddr,
        name_room: usize,
        control: TargetAddr,
        control_room: usize,
        many: bool,
    },
}

impl Place {
    pub(super) fn beside(notification: &impl Arguments) -> Self {
        let room = usize::try_from(notification.arg(2)).unwrap_or(usize::MAX);
        Place {
            buffers: vec![(notification.addr_arg(1), room)],
            name: notification.addr_arg(4),
            header: Header::Beside { length: notification.addr_arg(5) },
        }
    }

    pub(super) fn message(notification: &impl Arguments, at: TargetAddr) -> Result<Self, i32> {
        Self::read(notification, at, false)
    }

    /// Those of a recvmmsg(2), up to the first that is wrong.
    pub(super) fn messages(notification: &impl Arguments) -> Result<Vec<Self>, i32> {
        let count = (notification.arg(2) as u32 as usize).min(MOST);
        let mut places: Vec<Self> = Vec::new();
        let mut buffers = 0;
        for n in 0..count {
            let at = notification.addr_arg(1).plus((n * ENTRY) as u64).ok_or(libc::EFAULT);
            match at.and_then(|at| Self::read(notification, at, true)) {
                Ok(place) => {
                    buffers += place.buffers.len();
                    if buffers > MOST && !places.is_empty() {
                        break;
                    }
                    places.push(place);
                }
                Err(errno) if places.is_empty() => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(places)
    }

    fn read(notification: &impl Arguments, at: TargetAddr, many: bool) -> Result<Self, i32> {
        let mut header = [0; HEADER];
        notification.read(at, &mut header).map_err(Fault::errno)?;
        let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| header[at + n]));
        // Without a name its length means nothing (__copy_msghdr() in net/socket.c).
        let name = TargetAddr(long(0));
        let name_room = if name.is_null() { 0 } else { long(8) as u32 as i32 };
        let name_room = usize::try_from(name_room).map_err(|_| libc::EINVAL)?;
        let count = usize::try_from(long(24)).ok().filter(|&n| n <= MOST).ok_or(libc::EMSGSIZE)?;
        let mut list = vec![0; count * 16];
        if count > 0 {
            notification.read(TargetAddr(long(16)), &mut list).map_err(Fault::errno)?;
        }
        let buffers = list.chunks_exact(16).map(|entry| {
            let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| entry[at + n]));
            let length = isize::try_from(half(8)).map_err(|_| libc::EINVAL)?;
            Ok((TargetAddr(half(0)), length.unsigned_abs()))
        });
        // There may be a length without a place: it has room for nothing (put_cmsg() in net/core/scm.c).
        let control = TargetAddr(long(32));
        let control_room =
            if control.is_null() { 0 } else { usize::try_from(long(40)).unwrap_or(usize::MAX) };
        Ok(Place {
            buffers: buffers.collect::<Result<_, i32>>()?,
            name,
            header: Header::Message { at, name_room, control, control_room, many },
        })
    }

    /// Bytes of data that it takes.
    pub(super) fn room(&self) -> usize {
        self.buffers.iter().fold(0, |sum, &(_, room)| sum.saturating_add(room))
    }

    /// What to write for a datagram of `length` bytes, of which `data` was received; and what the call
    /// returns. `asked` are the call's flags, `told` what else is to be told in `msg_flags`.
    pub(super) fn fill(
        &self,
        notification: &impl Arguments,
        data: &[u8],
        length: usize,
        run: &Run,
        asked: i32,
        told: i32,
    ) -> Result<(Pieces, i64), i32> {
        let mut pieces = Vec::new();
        let mut rest = data;
        for &(at, room) in &self.buffers {
            let (part, further) = rest.split_at(rest.len().min(room));
            rest = further;
            if !part.is_empty() {
                pieces.push((at, part.to_vec()));
            }
        }
        let returned = if asked & libc::MSG_TRUNC != 0 { length } else { data.len() };
        match &self.header {
            Header::Beside { .. } if self.name.is_null() => {}
            Header::Beside { length: at } => {
                let mut room = [0; 4];
                notification.read(*at, &mut room).map_err(Fault::errno)?;
                let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| libc::EINVAL)?;
                self.name(&mut pieces, run, room, *at);
            }
            Header::Message { at, name_room, control, control_room, many } => {
                let part = |offset: u64| at.plus(offset).ok_or(libc::EFAULT);
                self.name(&mut pieces, run, *name_room, part(NAME_LENGTH)?);
                let (bytes, whole) = cut_control(&run.control, *control_room);
                let mut flags = told & !(libc::MSG_TRUNC | libc::MSG_CTRUNC);
                flags |= asked & libc::MSG_CMSG_CLOEXEC;
                flags |= if length > data.len() { libc::MSG_TRUNC } else { 0 };
                flags |= if whole { 0 } else { libc::MSG_CTRUNC };
                pieces.push((part(CONTROL_LENGTH)?, (bytes.len() as u64).to_ne_bytes().to_vec()));
                pieces.push((part(FLAGS)?, flags.to_ne_bytes().to_vec()));
                if !bytes.is_empty() {
                    pieces.push((*control, bytes));
                }
                if *many {
                    pieces.push((part(LENGTH)?, (returned as u32).to_ne_bytes().to_vec()));
                }
            }
        }
        Ok((pieces, returned as i64))
    }

    /// move_addr_to_user(): the name cut to its room, its whole length reported.
    fn name(&self, pieces: &mut Pieces, run: &Run, room: usize, length: TargetAddr) {
        if self.name.is_null() {
            return;
        }
        let name = &run.from[..run.from.len().min(room)];
        if !name.is_empty() {
            pieces.push((self.name, name.to_vec()));
        }
        pieces.push((length, (run.from.len() as u32).to_ne_bytes().to_vec()));
    }
}

/// The control messages that have room, the last of them perhaps cut (put_cmsg() in net/core/scm.c); and
/// whether that is all of them. Of the last one the padding need not have room.
fn cut_control(control: &[u8], room: usize) -> (Vec<u8>, bool) {
    if control.len() <= room {
        return (control.to_vec(), true);
    }
    let mut kept = Vec::new();
    let mut rest = control;
    while let Some(length) = rest.first_chunk::<8>() {
        let length = usize::try_from(u64::from_ne_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
        let left = room - kept.len();
        if left < CONTROL {
            return (kept, false);
        }
        if length > left {
            kept.extend((left as u64).to_ne_bytes());
            kept.extend(&rest[8..left]);
            return (kept, false);
        }
        let whole = length.max(CONTROL).next_multiple_of(ALIGN).min(rest.len());
        kept.extend(&rest[..whole.min(left)]);
        rest = &rest[whole..];
    }
    (kept, true)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::sys::arena::{Call, SIZE};

    fn message(length: u64, fill: u8) -> Vec<u8> {
        let mut bytes = [&length.to_ne_bytes()[..], &[fill; 8]].concat();
        bytes.resize(16 + (length as usize - 16).next_multiple_of(ALIGN), fill);
        bytes
    }

    #[test]
    fn control_messages_are_cut_as_the_kernel_cuts_them() {
        let two = [message(20, 1), message(28, 2)].concat();
        assert_eq!(two.len(), 56);
        assert_eq!(cut_control(&two, 56), (two.clone(), true));
        assert_eq!(cut_control(&two, 0), (vec![], false));
        assert_eq!(cut_control(&two, 15), (vec![], false));
        // The second has room for its head and no more.
        let (kept, whole) = cut_control(&two, 40);
        assert!(!whole);
        assert_eq!(kept[..24], two[..24]);
        assert_eq!(kept[24..32], 16_u64.to_ne_bytes());
        assert_eq!(kept.len(), 40);
    }

    /// What is written for a datagram of one byte, in memory that begins with this header.
    fn filled(header: [u64; 7], run: &Run) -> Result<[u64; 7], i32> {
        const BASE: u64 = 1 << 20;
        let mut memory = vec![0; SIZE];
        memory[..HEADER].copy_from_slice(header.map(u64::to_ne_bytes).as_flattened());
        let args = [0, BASE, 0, 0, 0, 0];
        let call = Call { base: BASE, args, memory: RefCell::new(&mut memory) };
        let (pieces, _) = Place::message(&call, TargetAddr(BASE))?.fill(&call, &[], 1, run, 0, 0)?;
        for (at, bytes) in pieces {
            call.write(at, &bytes).map_err(|_| libc::EFAULT)?;
        }
        let words = memory[..HEADER].chunks_exact(8);
        let words: Vec<u64> = words.map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        Ok(words.try_into().unwrap())
    }

    #[test]
    fn a_length_without_a_place_has_room_for_nothing() {
        let run = Run { from: vec![2; 16], control: message(20, 1) };
        let minus_one = u64::from(u32::MAX);
        let flags = (libc::MSG_TRUNC | libc::MSG_CTRUNC) as u64;
        // No name, of a length below zero; and no control messages, of 24 bytes.
        let expected = [0, minus_one, 0, 0, 0, 0, flags];
        assert_eq!(filled([0, minus_one, 0, 0, 0, 24, 0], &run), Ok(expected));
        assert_eq!(filled([1 << 20, minus_one, 0, 0, 0, 0, 0], &run), Err(libc::EINVAL));
    }

    #[test]
    fn a_message_without_its_padding_is_whole() {
        // As much as CMSG_LEN() says, where CMSG_SPACE() would be 24.
        let one = message(20, 1);
        assert_eq!(cut_control(&one, 20), (one[..20].to_vec(), true));
        assert!(!cut_control(&one, 19).1);
        let two = [message(20, 1), message(28, 2)].concat();
        assert_eq!(cut_control(&two, 52), (two[..52].to_vec(), true));
        // The first is whole, and for the second there is no room.
        assert_eq!(cut_control(&two, 20), (two[..20].to_vec(), false));
    }
}
