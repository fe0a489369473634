//! Messages as guests write them: `struct msghdr` and `struct mmsghdr` (sendmsg(2), sendmmsg(2)),
//! copied once. The checks and their errno are those of net/socket.c.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use netshunt_notify::{Notification, TargetAddr};

use super::attached::{Attached, Control, MOST_DESCRIPTORS};
use crate::address::STORAGE;
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

/// What is copied for one call. More of a stream is a short count; more messages are not counted.
const BUDGET: usize = 4 << 20;

/// `net.core.optmem_max` of Linux 6.6, the largest default so far.
const MOST_CONTROL: usize = 128 << 10;

/// How much a socket sends at a time.
#[derive(Debug)]
pub(super) struct Limits {
    /// Of a datagram; a stream takes any part.
    datagram: Option<usize>,
}

impl Limits {
    pub(super) fn of(subject: &Subject, kind: i32) -> Self {
        let buffer = || {
            let size = sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap_or_default();
            usize::try_from(size).unwrap_or_default()
        };
        let datagram = match (kind, subject.kind) {
            (libc::SOCK_STREAM, _) => None,
            // unix_dgram_sendmsg().
            (_, Kind::Unix) => Some(buffer().saturating_sub(32)),
            // Other families have limits of their own below this.
            _ => Some(buffer().max(1 << 16)),
        };
        Limits { datagram }
    }

    /// The stack knows the limits of its own: this is only what is copied.
    pub(super) fn of_end(subject: &Subject, end: &End) -> Self {
        match end.is_netlink() {
            true => Self::of(subject, libc::SOCK_RAW),
            false => Limits { datagram: Some(MOST_DATAGRAM) },
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
    notification: &Notification,
    limits: &Limits,
    attached: &Attached<'_>,
) -> Result<VecDeque<Message>, i32> {
    let address = read_address(notification, 4, 5)?;
    let mut left = BUDGET;
    let (data, cut) =
        read_data(notification, &[(notification.arg(1), notification.arg(2))], limits, &mut left)?;
    let control = attached.nothing()?;
    Ok(VecDeque::from([Message { address, data, control, cut, length: TargetAddr(0) }]))
}

/// The message of a sendmsg(2).
pub(super) fn one(
    notification: &Notification,
    limits: &Limits,
    attached: &Attached<'_>,
) -> Result<VecDeque<Message>, i32> {
    let message = read(notification, notification.addr_arg(1), limits, attached, &mut { BUDGET })?;
    Ok(VecDeque::from([message]))
}

/// The messages of a sendmmsg(2), up to the first that is wrong: it is told by the next call.
pub(super) fn many(
    notification: &Notification,
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
    notification: &Notification,
    at: TargetAddr,
    limits: &Limits,
    attached: &Attached<'_>,
    left: &mut usize,
) -> Result<Message, i32> {
    let mut header = [0; HEADER];
    notification.read(at, &mut header).map_err(|_| libc::EFAULT)?;
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| header[at + n]));
    let address = match (long(0), long(8) as u32 as i32) {
        (_, ..0) => return Err(libc::EINVAL),
        (0, _) | (_, 0) => Vec::new(),
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
    let control = usize::try_from(long(40)).ok().filter(|&n| n <= MOST_CONTROL).ok_or(libc::ENOBUFS)?;
    let control = attached.take(&copy(notification, long(32), control)?)?;
    let (data, cut) = read_data(notification, &buffers, limits, left)?;
    *left = left.saturating_sub(control.bytes.len() + buffers.len() * 16);
    let length = at.plus(LENGTH).ok_or(libc::EFAULT)?;
    Ok(Message { address, data, control, cut, length })
}

fn copy(notification: &Notification, at: u64, len: usize) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0; len];
    if len > 0 {
        notification.read(TargetAddr(at), &mut bytes).map_err(|_| libc::EFAULT)?;
    }
    Ok(bytes)
}

/// Copies the data, and says whether that is not all of it.
fn read_data(
    notification: &Notification,
    buffers: &[(u64, u64)],
    limits: &Limits,
    left: &mut usize,
) -> Result<(Vec<u8>, bool), i32> {
    let mut total = 0usize;
    for &(_, len) in buffers {
        let len = isize::try_from(len).map_err(|_| libc::EINVAL)?;
        total = total.saturating_add(len.unsigned_abs());
    }
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
            notification.read(TargetAddr(at), part).map_err(|_| libc::EFAULT)?;
        }
    }
    Ok((data, size < total))
}
