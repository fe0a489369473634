//! Messages of netlink(7): a question, and its answers from the host or from the stack. A length is the
//! sender's word: it counts as far as there are bytes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `struct nlmsghdr`, and `struct nlattr`, which is also `struct rtattr` (linux/netlink.h).
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// Where the first has its `nlmsg_seq`.
const NUMBER: usize = 8;
/// The question of sock_diag(7), and the answers' type.
pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The flags of a question to which many messages are the answer.
pub(crate) const DUMP: i32 = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
/// The kernel fills at most this much at a time (net/netlink/af_netlink.c).
const READ: usize = 32 << 10;
/// Reads of one dump at most: some 300 sockets each, far beyond what a host has.
const READS: usize = 16 << 10;

/// A socket to ask the host, of this thread's network namespace. One question at a time.
#[derive(Debug)]
pub(crate) struct Host {
    socket: OwnedFd,
    /// The number of the last question. Its answer has it too: one that was never taken is not the next one's.
    asked: AtomicU32,
}

impl Host {
    pub(crate) fn new(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Host { socket, asked: AtomicU32::new(0) })
    }

    fn put(&self, kind: u16, flags: i32, body: &[u8]) -> io::Result<u32> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut question = question(kind, flags, body);
        question[NUMBER..NUMBER + 4].copy_from_slice(&number.to_ne_bytes());
        again(|| send(self.socket.as_raw_fd(), &question, MsgFlags::empty()))?;
        Ok(number)
    }

    /// The next part of the answer to that question; its length with what did not fit.
    fn hear(&self, number: u32, into: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        loop {
            let length = again(|| recv(self.socket.as_raw_fd(), into, flags | MsgFlags::MSG_TRUNC))?;
            let about = field(&into[..length.min(into.len())], NUMBER)?;
            if u32::from_ne_bytes(about) == number {
                return Ok(length);
            }
        }
    }

    /// The body of the one answer to a question, or the errno of its refusal; a few microseconds.
    ///
    /// # Errors
    /// What netlink(7) gives when there is no answer.
    pub(crate) fn ask(&self, kind: u16, body: &[u8]) -> io::Result<Result<Vec<u8>, i32>> {
        let number = self.put(kind, libc::NLM_F_REQUEST, body)?;
        let mut answer = [0; 4096];
        // The kernel answers within send(2); nobody else can write to this socket.
        let length = self.hear(number, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        let answer = answer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        let (kind, body) = messages(answer).next().ok_or(io::ErrorKind::InvalidData)??;
        match end(kind, body)? {
            None => Ok(Ok(body.to_vec())),
            Some(errno) if errno > 0 => Ok(Err(errno)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Asks for a [`dump()`].
    pub(crate) fn dump(
        &self,
        kind: u16,
        body: &[u8],
        each: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let number = self.put(kind, DUMP, body)?;
        dump(|part| self.hear(number, part, MsgFlags::empty()), each)
    }
}

/// Repeats a call that a signal has interrupted.
fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// A question. Its sequence number and port are 0, which is as good as any where there is one at a time.
pub(crate) fn question(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let (length, flags) = (((HEADER + body.len()) as u32).to_ne_bytes(), (flags as u16).to_ne_bytes());
    [&length[..], &kind.to_ne_bytes(), &flags, &[0; 8], body].concat()
}

/// Hands the messages of a dump to `each`, until its end; `receive` gives the next part of it, and the length
/// also of what did not fit.
///
/// # Errors
/// Those of both, `InvalidData` for what is cut, and the errno with which the kernel refuses.
pub(crate) fn dump(
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    for _ in 0..READS {
        let length = receive(&mut buffer)?;
        for message in messages(buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?) {
            let (kind, body) = message?;
            match end(kind, body)? {
                None => each(kind, body)?,
                Some(0) => return Ok(()),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
    Err(io::Error::other("a dump without an end"))
}

/// The errno of a message that refuses, or 0 for one that ends a dump. `None`: it tells something.
fn end(kind: u16, body: &[u8]) -> io::Result<Option<i32>> {
    let ends = [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&kind.into());
    // Both begin with a negated errno, or zero.
    Ok(if ends { Some(i32::from_ne_bytes(field(body, 0)?).saturating_neg()) } else { None })
}

/// The messages in what was received at once: type and body.
fn messages(bytes: &[u8]) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    items(bytes, HEADER, |head| Ok((u32::from_ne_bytes(field(head, 0)?) as usize, field(head, 4)?)))
}

/// The attributes behind a message's fixed part: type and value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    items(bytes, ATTRIBUTE, |head| Ok((u16::from_ne_bytes(field(head, 0)?).into(), field(head, 2)?)))
}

/// What is behind heads of `size` bytes, in each of which `read` finds how long it is with it, and its type.
/// Nothing follows an error.
fn items(
    mut rest: &[u8],
    size: usize,
    read: impl Fn(&[u8]) -> io::Result<(usize, [u8; 2])>,
) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        let from = std::mem::take(&mut rest);
        (!from.is_empty()).then(|| {
            let (length, kind) = read(from)?;
            let body = from.get(size..length).ok_or(io::ErrorKind::InvalidData)?;
            rest = from.get(length.next_multiple_of(4)..).unwrap_or_default();
            Ok((u16::from_ne_bytes(kind), body))
        })
    })
}

/// The bytes of a number at that place.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    const KIND: u16 = 99;

    fn ended(kind: i32, errno: i32) -> Vec<u8> {
        question(kind as u16, 0, &(-errno).to_ne_bytes())
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The bodies of a dump of such parts.
    fn dumped(parts: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let (mut parts, mut bodies) = (parts.iter(), Vec::new());
        let receive = |into: &mut [u8]| {
            let part = parts.next().ok_or(io::ErrorKind::WouldBlock)?;
            into[..part.len()].copy_from_slice(part);
            Ok(part.len())
        };
        dump(receive, |kind, body| {
            assert_eq!(kind, KIND);
            bodies.push(body.to_vec());
            Ok(())
        })?;
        Ok(bodies)
    }

    #[test]
    fn messages_and_attributes_follow_one_another() {
        let body = [attribute(3, b"even"), attribute(4, &[]), attribute(5, b"odd")].concat();
        // The padding of the last may be missing.
        for bytes in [&body, &body[..body.len() - 1]] {
            let read: Vec<_> = attributes(bytes).map(Result::unwrap).collect();
            assert_eq!(read, [(3, &b"even"[..]), (4, b""), (5, b"odd")]);
        }
        let both = [question(KIND, 0, &body), question(KIND, 0, &[])].concat();
        let read: Vec<_> = messages(&both).map(Result::unwrap).collect();
        assert_eq!(read, [(KIND, &body[..]), (KIND, b"")]);
    }

    #[test]
    fn a_dump_ends_where_the_kernel_says_so_and_fails_as_it_says() {
        let (one, done) = (question(KIND, 0, b"1234"), ended(libc::NLMSG_DONE, 0));
        let bodies = dumped(&[[&one[..], &one].concat(), one.clone(), [&one[..], &done].concat()]).unwrap();
        assert_eq!(bodies, vec![b"1234"; 4]);
        for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR] {
            let refused = dumped(&[one.clone(), ended(kind, libc::ENOENT)]).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        }
        // Cut off, and without an end.
        assert_eq!(dumped(&[one]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(dump(|_| Ok(0), |_, _| Ok(())).unwrap_err().kind(), io::ErrorKind::Other);
        let longer = dump(|part| Ok(part.len() + 1), |_, _| Ok(()));
        assert_eq!(longer.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn lengths_that_are_short_or_lie_are_errors_and_the_end() {
        let (message, attribute) = (question(KIND, 0, b"12345678"), attribute(3, b"1234"));
        assert!((1..message.len()).all(|at| messages(&message[..at]).next().unwrap().is_err()));
        assert!((1..attribute.len()).all(|at| attributes(&attribute[..at]).next().unwrap().is_err()));
        // Another follows, so that there are bytes behind what lies.
        for lie in [0, 1, 4, 15, 49, 0x7fff_ffff, 0xffff_fffd, u32::MAX] {
            let bytes = [&lie.to_ne_bytes(), &message[4..], &message].concat();
            let read: Vec<_> = messages(&bytes).collect();
            assert!(matches!(read[..], [Err(_)]), "{lie}: {read:?}");
        }
        for lie in [0, 1, 3, 17, 0xfffd, u16::MAX] {
            let bytes = [&lie.to_ne_bytes(), &attribute[2..], &attribute].concat();
            let read: Vec<_> = attributes(&bytes).collect();
            assert!(matches!(read[..], [Err(_)]), "{lie}: {read:?}");
        }
        let error = libc::NLMSG_ERROR as u16;
        assert!(end(error, &[0; 3]).is_err(), "it does not say which");
        assert_eq!(end(error, &i32::MIN.to_ne_bytes()).unwrap(), Some(i32::MAX), "which has no negation");
    }

    #[test]
    fn an_answer_that_was_never_taken_is_not_the_next_ones() {
        let host = Host::new(SockProtocol::NetlinkRoute).unwrap();
        let interface = |index: i32| [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
        for _ in 0..3 {
            host.put(libc::RTM_GETLINK, libc::NLM_F_REQUEST, &interface(i32::MAX)).unwrap();
        }
        assert!(host.ask(libc::RTM_GETLINK, &interface(1)).unwrap().is_ok());
        host.put(libc::RTM_GETLINK, libc::NLM_F_REQUEST, &interface(1)).unwrap();
        assert_eq!(host.ask(libc::RTM_GETLINK, &interface(i32::MAX)).unwrap(), Err(libc::ENODEV));
    }

    #[test]
    fn the_host_answers_and_refuses() {
        let host = Host::new(SockProtocol::NetlinkRoute).unwrap();
        // struct ifinfomsg of `lo`, and of an interface that nobody has.
        let interface = |index: i32| [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
        let told = host.ask(libc::RTM_GETLINK, &interface(1)).unwrap().unwrap();
        assert!(attributes(&told[16..]).flatten().any(|a| a == (libc::IFLA_IFNAME, b"lo\0")));
        let refused = host.ask(libc::RTM_GETLINK, &interface(i32::MAX)).unwrap();
        assert_eq!(refused, Err(libc::ENODEV));
    }
}
