//! Control messages (cmsg(3), unix(7)): descriptors and credentials that go with a message.
//!
//! The kernel would take both for the supervisor's. Descriptors are fetched from the guest, so that
//! it can pass on what it has and nothing else. Credentials are the guest's own or refused.

use std::os::fd::AsRawFd;

use netshunt_notify::{Duplicate, GuestThread, TargetFd};

use crate::calls::{Kind, Subject, or_shortage};
use crate::control::{self, ControlMessage};

/// `SCM_MAX_FD` of include/net/scm.h.
pub(super) const MOST_DESCRIPTORS: usize = 253;
const SCM_CREDENTIALS: i32 = libc::SCM_CREDENTIALS;

/// Of what a datagram socket looks at.
const DATAGRAM_LEVELS: [i32; 4] = [libc::IPPROTO_IP, libc::IPPROTO_IPV6, libc::IPPROTO_UDP, libc::SOL_SOCKET];

/// Reads the control messages of one socket's sends.
#[derive(Debug)]
pub(super) struct Attached<'a> {
    thread: &'a GuestThread,
    kind: Kind,
}

/// What is sent beside the data.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) bytes: Vec<u8>,
    /// Where the sender's process id stands, if it is told.
    process_at: Option<usize>,
    /// Those whose numbers stand in `bytes`.
    descriptors: Vec<Duplicate>,
}

impl Control {
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// The kernel lets only a privileged supervisor name its guest's process: it then names its own,
    /// as it is in SO_PEERCRED. Whether there is something to change.
    pub(super) fn name_ourselves(&mut self) -> bool {
        let Some(at) = self.process_at.take() else { return false };
        self.bytes[at..at + 4].copy_from_slice(&std::process::id().to_ne_bytes());
        true
    }
}

impl<'a> Attached<'a> {
    pub(super) fn of(subject: &'a Subject) -> Self {
        Attached { thread: &subject.thread, kind: subject.kind }
    }

    #[cfg(test)]
    pub(super) fn for_test(thread: &'a GuestThread, kind: Kind) -> Self {
        Attached { thread, kind }
    }

    /// What goes with a message without control messages of its own.
    pub(super) fn nothing(&self) -> Result<Control, i32> {
        self.take(&[])
    }

    /// Reads a message's control messages as __scm_send() does (net/core/scm.c).
    pub(super) fn take(&self, bytes: &[u8]) -> Result<Control, i32> {
        let mut control = Control::default();
        for message in control::messages(bytes) {
            let ControlMessage { level, kind, value } = message?;
            match (level, kind, self.kind) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS, Kind::Unix) => self.descriptors(&mut control, value)?,
                (libc::SOL_SOCKET, SCM_CREDENTIALS, Kind::Unix) => {
                    let claim = <[u8; 12]>::try_from(value).map_err(|_| libc::EINVAL)?;
                    Sender::of(self.thread)?.claim(&mut control, claim)?;
                }
                // A namespace of the guest's own: but what names descriptors or processes would
                // name ours.
                (level, _, Kind::Foreign) if level != libc::SOL_SOCKET => {
                    control.push(level, kind, value);
                }
                // The way that a packet takes is not the guest's to say.
                (level, kind, Kind::End) if redirects(level, kind) => return Err(libc::EPERM),
                // These sockets pass over what is not meant for them, and the stack's end checks the rest.
                (libc::SOL_SOCKET, libc::SCM_RIGHTS | SCM_CREDENTIALS, Kind::End) => {}
                (level, _, Kind::End) if DATAGRAM_LEVELS.contains(&level) => control.push(level, kind, value),
                (_, _, Kind::End) => {}
                // AF_UNIX passes over what is not meant for it.
                (level, _, Kind::Unix) if level != libc::SOL_SOCKET => {}
                _ => return Err(libc::EINVAL),
            }
        }
        // A guest that gave up being root must not send as root.
        if self.kind == Kind::Unix && control.process_at.is_none() && nix::unistd::geteuid().is_root() {
            Sender::of(self.thread)?.tell(&mut control);
        }
        Ok(control)
    }

    fn descriptors(&self, control: &mut Control, value: &[u8]) -> Result<(), i32> {
        let numbers = value.chunks_exact(4).map(|n| i32::from_ne_bytes([n[0], n[1], n[2], n[3]]));
        if control.descriptors.len() + numbers.len() > MOST_DESCRIPTORS {
            return Err(libc::EINVAL);
        }
        let mut ours = Vec::with_capacity(value.len());
        for number in numbers {
            let descriptor = self.thread.descriptor(TargetFd(number));
            let descriptor = descriptor.map_err(|error| match error.raw_os_error() {
                // We are short of them: what a sender is told who has too many in flight.
                Some(libc::EMFILE | libc::ENFILE) => libc::ETOOMANYREFS,
                _ => libc::EBADF,
            })?;
            ours.extend(descriptor.as_raw_fd().to_ne_bytes());
            control.descriptors.push(descriptor);
        }
        if !ours.is_empty() {
            control.push(libc::SOL_SOCKET, libc::SCM_RIGHTS, &ours);
        }
        Ok(())
    }
}

/// Source routes, and IPv6 headers that may hold one (ip(7), RFC 3542).
fn redirects(level: i32, kind: i32) -> bool {
    match level {
        libc::IPPROTO_IP => kind == libc::IP_RETOPTS,
        libc::IPPROTO_IPV6 => matches!(
            kind,
            libc::IPV6_DSTOPTS
                | libc::IPV6_HOPOPTS
                | libc::IPV6_RTHDR
                | libc::IPV6_RTHDRDSTOPTS
                | libc::IPV6_2292DSTOPTS
                | libc::IPV6_2292HOPOPTS
                | libc::IPV6_2292RTHDR
        ),
        _ => false,
    }
}

impl Control {
    fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        control::push(&mut self.bytes, level, kind, value);
    }
}

/// Who sends, as proc_pid_status(5) has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sender {
    process: u32,
    /// The same in its own pid namespace.
    own_process: u32,
    /// Real, effective, saved, of the file system.
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Sender {
    fn of(thread: &GuestThread) -> Result<Self, i32> {
        let status = thread.status().map_err(|error| or_shortage(&error, libc::EPERM))?;
        Sender::parse(&status).ok_or(libc::EPERM)
    }

    fn parse(status: &str) -> Option<Self> {
        let numbers = |key: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        Some(Sender {
            process: *numbers("Tgid:")?.first()?,
            own_process: *numbers("NStgid:")?.last()?,
            users: numbers("Uid:").filter(|ids| ids.len() == 4)?,
            groups: numbers("Gid:").filter(|ids| ids.len() == 4)?,
        })
    }

    /// Takes a `struct ucred` that says what is so (scm_check_creds()); who may say more natively
    /// may not here.
    fn claim(&self, control: &mut Control, claim: [u8; 12]) -> Result<(), i32> {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|n| claim[at + n]));
        let (process, user, group) = (word(0), word(4), word(8));
        // No user and no group: uid_valid() comes first.
        if user == u32::MAX || group == u32::MAX {
            return Err(libc::EINVAL);
        }
        let own = process == self.own_process
            && self.users[..3].contains(&user)
            && self.groups[..3].contains(&group);
        if !own {
            return Err(libc::EPERM);
        }
        self.push(control, user, group);
        Ok(())
    }

    /// What the kernel tells of a sender that claims nothing.
    fn tell(&self, control: &mut Control) {
        self.push(control, self.users[0], self.groups[0]);
    }

    fn push(&self, control: &mut Control, user: u32, group: u32) {
        control.process_at = Some(control::next_value(&control.bytes));
        let words = [self.process, user, group].map(u32::to_ne_bytes);
        control.push(libc::SOL_SOCKET, SCM_CREDENTIALS, words.as_flattened());
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use netshunt_notify::{Features, Tid};

    use super::*;

    fn ourselves() -> GuestThread {
        GuestThread::open(Tid(nix::unistd::gettid().as_raw()), &Features::detect().unwrap()).unwrap()
    }

    fn message(level: i32, kind: i32, value: &[u8]) -> Vec<u8> {
        let mut control = Control::default();
        control.push(level, kind, value);
        control.bytes
    }

    fn take(kind: Kind, bytes: &[u8]) -> Result<Control, i32> {
        Attached { thread: &ourselves(), kind }.take(bytes)
    }

    #[test]
    fn descriptors_are_the_senders() {
        let file = tempfile::tempfile().unwrap();
        let numbers = [file.as_raw_fd(), 0].map(i32::to_ne_bytes);
        let bytes = message(libc::SOL_SOCKET, libc::SCM_RIGHTS, numbers.as_flattened());
        let control = take(Kind::Unix, &bytes).unwrap();
        assert_eq!(control.descriptors.len(), 2);
        assert_ne!(control.descriptors[0].as_raw_fd(), file.as_raw_fd());
        let inode = |fd: &dyn std::os::fd::AsFd| nix::sys::stat::fstat(fd.as_fd()).unwrap().st_ino;
        assert_eq!(inode(&control.descriptors[0]), inode(&file));
        for (wrong, errno) in [(-1i32, libc::EBADF), (i32::MAX, libc::EBADF)] {
            let bytes = message(libc::SOL_SOCKET, libc::SCM_RIGHTS, &wrong.to_ne_bytes());
            assert_eq!(take(Kind::Unix, &bytes).unwrap_err(), errno);
        }
        let many = vec![0; 4 * (MOST_DESCRIPTORS + 1)];
        let bytes = message(libc::SOL_SOCKET, libc::SCM_RIGHTS, &many);
        assert_eq!(take(Kind::Unix, &bytes).unwrap_err(), libc::EINVAL);
        // In another family the kernel would look the numbers up among ours.
        for kind in [Kind::Foreign, Kind::Other, Kind::Tcp { v6: false }] {
            assert_eq!(take(kind, &bytes).unwrap_err(), libc::EINVAL);
        }
    }

    #[test]
    fn credentials_are_the_senders_own_or_refused() {
        let (user, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let claim = |process: u32, user: u32, group: u32| {
            let words = [process, user, group].map(u32::to_ne_bytes);
            take(Kind::Unix, &message(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, words.as_flattened()))
        };
        let mut own = claim(std::process::id(), user, group).unwrap();
        assert!(own.name_ourselves() && !own.name_ourselves());
        for (process, user, group) in [(1, user, group), (std::process::id(), user + 1, group)] {
            assert_eq!(claim(process, user, group).unwrap_err(), libc::EPERM);
        }
        assert_eq!(claim(std::process::id(), user, group + 1).unwrap_err(), libc::EPERM);
        for (user, group) in [(u32::MAX, group), (user, u32::MAX)] {
            assert_eq!(claim(std::process::id(), user, group).unwrap_err(), libc::EINVAL);
        }
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused_as_the_kernel_does() {
        let mut bytes = message(libc::SOL_SOCKET, libc::SCM_RIGHTS, &0i32.to_ne_bytes());
        bytes[0] = 200;
        assert_eq!(take(Kind::Unix, &bytes).unwrap_err(), libc::EINVAL);
        bytes[0] = 8;
        assert_eq!(take(Kind::Unix, &bytes).unwrap_err(), libc::EINVAL);
        for kind in [0, 3, 4, 61] {
            assert_eq!(
                take(Kind::Unix, &message(libc::SOL_SOCKET, kind, &[0; 4])).unwrap_err(),
                libc::EINVAL
            );
        }
        // Not its own level; a header that does not fit any more ends the list.
        assert!(take(Kind::Unix, &message(libc::IPPROTO_IP, 8, &[0; 12])).is_ok());
        assert!(take(Kind::Unix, &[1; 15]).is_ok());
        let packet = message(libc::IPPROTO_IP, 8, &[7; 12]);
        assert_eq!(take(Kind::Foreign, &packet).unwrap().bytes, packet);
    }

    #[test]
    fn a_status_file_is_read() {
        let status = "Name:\tx\nTgid:\t70\nNStgid:\t70\t3\nPid:\t71\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        let sender = Sender::parse(status).unwrap();
        let expected =
            Sender { process: 70, own_process: 3, users: vec![1, 2, 3, 4], groups: vec![5, 6, 7, 8] };
        assert_eq!(sender, expected);
        assert_eq!(Sender::parse(&status.replace("\t1\t2\t3\t4", "\t1")), None);
    }
}
