//! Messages as guests write them: `struct msghdr` and `struct mmsghdr` (sendmsg(2), sendmmsg(2)),
//! copied once. The checks and their errno are those of net/socket.c.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use netshunt_notify::{Fault, TargetAddr};

use super::attached::{Attached, Control, MOST_DESCRIPTORS};
use crate::address::STORAGE;
use crate::calls::arguments::Arguments;
use crate::calls::connect::read_address;
use crate::calls::{Kind, Subject, errno};
use crate::ends::End;
use crate::sys;

/// `struct msghdr`, and that with `msg_len` behind it.
const HEADER: usize = 56;
const ENTRY: usize = 64;
const LENGTH: u64 = 56;
const _: () = assert!(size_of::<libc::msghdr>() == HEADER, "linux/socket.h");
const _: () = assert!(size_of::<libc::mmsghdr>() == ENTRY, "linux/socket.h");

/// `UIO_MAXIOV` of linux/uio.h: buffers in a message, and messages in a call.
const MOST: usize = 1024;

/// `MAX_RW_COUNT` of linux/fs.h: a longer buffer is as long as this (import_ubuf() in lib/iov_iter.c).
const MOST_BYTES: u64 = 0x7fff_f000;

/// What is copied for one call. More of a stream is a short count; more messages are not counted.
const BUDGET: usize = 4 << 20;

/// `net.core.optmem_max` of Linux 6.6, the largest default so far: less than that is taken (sock_kmalloc()).
const MOST_CONTROL: usize = 128 << 10;

/// How much a socket sends at a time.
#[derive(Debug)]
pub(super) struct Limits {
    /// Of a datagram; a stream takes any part.
    datagram: Option<usize>,
}

impl Limits {
    pub(super) fn of(subject: &Subject, kind: i32) -> Result<Self, i32> {
        if kind == libc::SOCK_STREAM {
            return Ok(Limits { datagram: None });
        }
        let buffer =
            sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_SNDBUF).map_err(|e| errno(&e))?;
        let buffer = usize::try_from(buffer).unwrap_or_default();
        let datagram = match subject.kind {
            // unix_dgram_sendmsg().
            Kind::Unix => buffer.saturating_sub(32),
            // Other families have limits of their own below this.
            _ => buffer.max(1 << 16),
        };
        Ok(Limits { datagram: Some(datagram) })
    }

    /// The stack knows the limits of its own: this is only what is copied.
    pub(super) fn of_end(subject: &Subject, end: &End) -> Result<Self, i32> {
        match end.is_netlink() {
            true => Self::of(subject, libc::SOCK_RAW),
            false => Ok(Limits { datagram: Some(MOST_DATAGRAM) }),
        }
    }
}

/// UDP's datagrams, and what netlink(7) takes at a time.
const MOST_DATAGRAM: usize = 1 << 16;

/// One message, as it is sent.
#[derive(Debug)]
pub(super) struct Message {
    /// Empty if it has none.
    pub(super) address: Vec<u8>,
    pub(super) data: Vec<u8>,
    control: Control,
    /// There is more of it than was copied.
    pub(super) cut: bool,
    /// Where its `msg_len` stands.
    pub(super) length: TargetAddr,
}

impl Message {
    pub(super) fn control(&self) -> &[u8] {
        &self.control.bytes
    }

    pub(super) fn is_addressed(&self) -> bool {
        !self.address.is_empty()
    }

    pub(super) fn forget_address(&mut self) {
        self.address.clear();
    }

    /// Takes away a `struct sockaddr_nl` that says what is so without it: the kernel. With an address it
    /// would not ask whether who opened the socket may (NETLINK_SKB_DST), but the sender only, us.
    pub(super) fn forget_kernel(&mut self) -> Result<(), i32> {
        let kernel = self.address.len() >= 12 && self.address[4..12] == [0; 8];
        if self.is_addressed() && !kernel {
            return Err(libc::EPERM);
        }
        self.forget_address();
        Ok(())
    }

    /// The `sun_path` of its address (unix_validate_addr()).
    pub(super) fn unix_name(&self) -> Result<&[u8], i32> {
        let (family, name) = self.address.split_first_chunk::<2>().ok_or(libc::EINVAL)?;
        let right = i32::from(u16::from_ne_bytes(*family)) == libc::AF_UNIX;
        if right && (1..=108).contains(&name.len()) { Ok(name) } else { Err(libc::EINVAL) }
    }

    /// sendmsg(2) of what follows the first `begun` bytes. What is attached goes with the first.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        address: &[u8],
        begun: usize,
        flags: i32,
    ) -> Result<usize, i32> {
        let send = |control: &[u8], data: &[u8]| {
            sys::send_message(socket, address, data, control, flags).map_err(|e| errno(&e))
        };
        if begun > 0 {
            return send(&[], &self.data[begun..]);
        }
        match send(&self.control.bytes, &self.data) {
            Err(libc::EPERM) if self.control.name_ourselves() => send(&self.control.bytes, &self.data),
            result => result,
        }
    }
}

/// The message of a sendto(2).
pub(super) fn beside(
    notification: &impl Arguments,
    limits: &Limits,
    attached: &Attached<'_>,
) -> Result<VecDeque<Message>, i32> {
    // Without a name its length means nothing.
    let named = !notification.addr_arg(4).is_null();
    let address = if named { read_address(notification, 4, 5)? } else { Vec::new() };
    let mut left = BUDGET;
    let length = notification.arg(2).min(MOST_BYTES);
    let (data, cut) = read_data(notification, &[(notification.arg(1), length)], limits, &mut left)?;
    let control = attached.nothing()?;
    Ok(VecDeque::from([Message { address, data, control, cut, length: TargetAddr(0) }]))
}

/// The message of a sendmsg(2).
pub(super) fn one(
    notification: &impl Arguments,
    limits: &Limits,
    attached: &Attached<'_>,
) -> Result<VecDeque<Message>, i32> {
    let message = read(notification, notification.addr_arg(1), limits, attached, &mut { BUDGET })?;
    Ok(VecDeque::from([message]))
}

/// The messages of a sendmmsg(2), up to the first that is wrong: it is told by the next call.
pub(super) fn many(
    notification: &impl Arguments,
    limits: &Limits,
    attached: &Attached<'_>,
) -> Result<VecDeque<Message>, i32> {
    let count = (notification.arg(2) as u32 as usize).min(MOST);
    let mut messages = VecDeque::new();
    let mut left = BUDGET;
    let mut descriptors = 0;
    for n in 0..count {
        let entry = notification.addr_arg(1).plus((n * ENTRY) as u64).ok_or(libc::EFAULT);
        match entry.and_then(|at| read(notification, at, limits, attached, &mut left)) {
            Ok(message) => {
                descriptors += message.control.descriptors();
                messages.push_back(message);
            }
            Err(errno) if messages.is_empty() => return Err(errno),
            Err(_) => break,
        }
        if left == 0 || descriptors >= MOST_DESCRIPTORS || messages.back().is_some_and(|message| message.cut)
        {
            break;
        }
    }
    Ok(messages)
}

fn read(
    notification: &impl Arguments,
    at: TargetAddr,
    limits: &Limits,
    attached: &Attached<'_>,
    left: &mut usize,
) -> Result<Message, i32> {
    let mut header = [0; HEADER];
    notification.read(at, &mut header).map_err(Fault::errno)?;
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| header[at + n]));
    let address = match (long(0), long(8) as u32 as i32) {
        // Without a name its length means nothing (__copy_msghdr() in net/socket.c).
        (0, _) | (_, 0) => Vec::new(),
        (_, ..0) => return Err(libc::EINVAL),
        (name, len) => copy(notification, name, (len as usize).min(STORAGE))?,
    };
    let buffers = usize::try_from(long(24)).ok().filter(|&n| n <= MOST).ok_or(libc::EMSGSIZE)?;
    let buffers = copy(notification, long(16), buffers * 16)?;
    let buffers: Vec<(u64, u64)> = buffers
        .chunks_exact(16)
        .map(|b| {
            let half = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| b[at + n]));
            (half(0), half(8))
        })
        .collect();
    // Before what is attached is looked at (import_iovec() of copy_msghdr_from_user()).
    total(&buffers)?;
    let control = usize::try_from(long(40)).ok().filter(|&n| n < MOST_CONTROL).ok_or(libc::ENOBUFS)?;
    let control = attached.take(&copy(notification, long(32), control)?)?;
    let (data, cut) = read_data(notification, &buffers, limits, left)?;
    *left = left.saturating_sub(control.bytes.len() + buffers.len() * 16);
    let length = at.plus(LENGTH).ok_or(libc::EFAULT)?;
    Ok(Message { address, data, control, cut, length })
}

fn copy(notification: &impl Arguments, at: u64, len: usize) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0; len];
    if len > 0 {
        notification.read(TargetAddr(at), &mut bytes).map_err(Fault::errno)?;
    }
    Ok(bytes)
}

/// Bytes of all buffers.
fn total(buffers: &[(u64, u64)]) -> Result<usize, i32> {
    buffers.iter().try_fold(0usize, |total, &(_, len)| {
        let len = isize::try_from(len).map_err(|_| libc::EINVAL)?;
        Ok(total.saturating_add(len.unsigned_abs()))
    })
}

/// Copies the data, and says whether that is not all of it.
fn read_data(
    notification: &impl Arguments,
    buffers: &[(u64, u64)],
    limits: &Limits,
    left: &mut usize,
) -> Result<(Vec<u8>, bool), i32> {
    let total = total(buffers)?;
    if limits.datagram.is_some_and(|most| total > most.min(BUDGET)) {
        return Err(libc::EMSGSIZE);
    }
    let size = total.min(*left);
    if size < total && limits.datagram.is_some() {
        // Not this time: the caller counts those before it.
        return Err(libc::ENOBUFS);
    }
    *left -= size;
    let mut data = vec![0; size];
    let mut rest = data.as_mut_slice();
    for &(at, len) in buffers {
        let (part, further) = rest.split_at_mut(rest.len().min(len as usize));
        rest = further;
        if !part.is_empty() {
            notification.read(TargetAddr(at), part).map_err(Fault::errno)?;
        }
    }
    Ok((data, size < total))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use netshunt_notify::{Features, GuestThread, Tid};

    use super::*;
    use crate::sockets::Cookie;
    use crate::sys::arena::{Call, SIZE};

    const BASE: u64 = 1 << 20;
    const STREAM: Limits = Limits { datagram: None };
    const DATAGRAM: Limits = Limits { datagram: Some(1000) };

    /// What becomes of a sendmsg(2) with this header, and of a sendto(2) with these arguments.
    fn read(header: [u64; 7], limits: &Limits) -> Result<Message, i32> {
        with(&header, [0, BASE, 0, 0, 0, 0], |call, attached| one(call, limits, attached))
    }

    fn read_beside(args: [u64; 6], limits: &Limits) -> Result<Message, i32> {
        with(&[], args, |call, attached| beside(call, limits, attached))
    }

    fn with(
        words: &[u64],
        args: [u64; 6],
        read: impl FnOnce(&Call<'_>, &Attached<'_>) -> Result<VecDeque<Message>, i32>,
    ) -> Result<Message, i32> {
        let mut memory = vec![0; SIZE];
        for (place, word) in memory.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let call = Call { base: BASE, args, memory: RefCell::new(&mut memory) };
        let thread = thread();
        Ok(read(&call, &Attached::for_test(&thread, Kind::Unix))?.pop_front().unwrap())
    }

    fn thread() -> GuestThread {
        GuestThread::open(Tid(nix::unistd::gettid().as_raw()), &Features::detect().unwrap()).unwrap()
    }

    /// Its datagrams were too long, all of them.
    #[test]
    fn a_limit_that_cannot_be_asked_for_is_an_error() {
        let no_socket = std::fs::File::open("/dev/null").unwrap();
        let fd = std::os::fd::OwnedFd::from(no_socket).into();
        let subject = Subject { fd, thread: thread(), cookie: Cookie(1), kind: Kind::Unix, end: None };
        assert_eq!(Limits::of(&subject, libc::SOCK_DGRAM).unwrap_err(), libc::ENOTSOCK);
    }

    #[test]
    fn a_length_without_a_name_means_nothing() {
        let minus_one = u64::from(u32::MAX);
        assert!(read([0, minus_one, 0, 0, 0, 0, 0], &STREAM).unwrap().address.is_empty());
        assert_eq!(read([BASE, minus_one, 0, 0, 0, 0, 0], &STREAM).unwrap_err(), libc::EINVAL);
        assert!(read_beside([0, BASE, 1, 0, 0, minus_one], &STREAM).unwrap().address.is_empty());
        assert_eq!(read_beside([0, BASE, 1, 0, BASE, minus_one], &STREAM).unwrap_err(), libc::EINVAL);
    }

    #[test]
    fn a_single_buffer_may_claim_any_length() {
        assert_eq!(read_beside([0, BASE, u64::MAX, 0, 0, 0], &DATAGRAM).unwrap_err(), libc::EMSGSIZE);
    }

    #[test]
    fn lengths_of_buffers_are_wrong_before_what_is_attached_is() {
        // The last two words are the list of one buffer, too; control messages of 16 bytes are nowhere.
        let mut words = [0, 0, BASE + 40, 1, 0, 16, 1 << 63];
        assert_eq!(read(words, &STREAM).unwrap_err(), libc::EINVAL);
        words[6] = 0;
        assert_eq!(read(words, &STREAM).unwrap_err(), libc::EFAULT);
    }
}
