//! Which AF_UNIX sockets are bound, under which names and to which files: sock_diag(7),
//! linux/unix_diag.h.
//!
//! Sees the caller's network namespace only; a path name may lead to a socket of another.
//! A dump that takes several reads can miss a socket while others close (net/unix/diag.c counts
//! entries), so whoever must be certain also looks at what was connected.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The kernel fills at most this much at a time (net/netlink/af_netlink.c).
const READ: usize = 32 * 1024;
/// Reads of one dump at most: some 300 sockets each, far beyond what a host has.
const READS: usize = 16 * 1024;

const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
/// The socket's own state is `TCP_ESTABLISHED` (net/tcp_states.h).
const ESTABLISHED: u8 = 1;

/// A bound socket that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`.
    pub(crate) kind: i32,
    /// Its `SO_COOKIE`.
    pub(crate) cookie: u64,
    /// Its `sun_path`; a path name without the final zero byte.
    pub(crate) name: Vec<u8>,
    pub(crate) file: Option<File>,
}

/// What the kernel tells of a socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// The lower half of the inode's number.
    pub(crate) inode: u32,
    /// The file system's device, as [`device`] writes it.
    pub(crate) device: u32,
}

/// A device number in the kernel's own form (linux/kdev_t.h).
pub(crate) fn device(major: u64, minor: u64) -> u32 {
    ((major << 20) | (minor & 0xf_ffff)) as u32
}

/// The bound sockets that `wanted` picks, of all in this thread's network namespace.
///
/// Linux 6.18, from Python: 0.07 ms for a host with little more than a dozen sockets.
///
/// # Errors
///
/// `ENOENT` where the kernel has no unix_diag.
pub(crate) fn find(mut wanted: impl FnMut(&Bound) -> bool) -> io::Result<Vec<Bound>> {
    let diag =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    send(diag.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut buffer = vec![0; READ];
    let mut found = Vec::new();
    for _ in 0..READS {
        let len = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
        let bytes = buffer.get(..len).ok_or(io::ErrorKind::InvalidData)?;
        if !parse(bytes, |bound| found.extend(wanted(&bound).then_some(bound)))? {
            return Ok(found);
        }
    }
    Err(io::Error::other("a dump without an end"))
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 24);
    bytes.extend(40u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    // struct unix_diag_req. All states: a datagram socket is "established" once anybody has
    // connected to it.
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend((UDIAG_SHOW_NAME | UDIAG_SHOW_VFS).to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes
}

/// Reads one datagram of a dump; `false` if it is the last.
fn parse(mut bytes: &[u8], mut each: impl FnMut(Bound)) -> io::Result<bool> {
    while !bytes.is_empty() {
        let len = word(bytes, 0)? as usize;
        let message = bytes.get(..len).ok_or(io::ErrorKind::InvalidData)?;
        let body = message.get(HEADER..).ok_or(io::ErrorKind::InvalidData)?;
        match half(message, 4)? {
            SOCK_DIAG_BY_FAMILY => {
                if let Some(bound) = bound(body)? {
                    each(bound);
                }
            }
            // Both begin with a negated errno, or zero.
            kind if [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(kind)) => {
                return match word(body, 0)?.cast_signed() {
                    0 => Ok(false),
                    errno => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
                };
            }
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// Reads `struct unix_diag_msg` and its attributes.
fn bound(body: &[u8]) -> io::Result<Option<Bound>> {
    let [family, kind, state, _] = word(body, 0)?.to_ne_bytes();
    let cookie = u64::from(word(body, 8)?) | u64::from(word(body, 12)?) << 32;
    let kind = i32::from(kind);
    // An accepted socket bears its listener's name; nobody can connect to it.
    let accepted = state == ESTABLISHED && kind != libc::SOCK_DGRAM;
    if i32::from(family) != libc::AF_UNIX || accepted {
        return Ok(None);
    }
    let mut found = Bound { kind, cookie, name: Vec::new(), file: None };
    let mut rest = &body[16..];
    while !rest.is_empty() {
        let len = usize::from(half(rest, 0)?);
        let value = rest.get(4..len).ok_or(io::ErrorKind::InvalidData)?;
        match half(rest, 2)? {
            UNIX_DIAG_NAME => found.name = value.to_vec(),
            UNIX_DIAG_VFS => found.file = Some(File { inode: word(value, 0)?, device: word(value, 4)? }),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    if found.name.first().is_some_and(|first| *first != 0) && found.name.last() == Some(&0) {
        found.name.pop();
    }
    Ok((!found.name.is_empty()).then_some(found))
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    bytes.map(u32::from_ne_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn half(bytes: &[u8], at: usize) -> io::Result<u16> {
    let bytes = bytes.get(at..at + 2).and_then(|b| b.try_into().ok());
    bytes.map(u16::from_ne_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    /// A listener on `/run/a`, written by hand after linux/unix_diag.h.
    const LISTENER: [u8; 56] = [
        56, 0, 0, 0, 20, 0, 2, 0, 0, 0, 0, 0, 9, 9, 0, 0, // nlmsghdr
        1, 1, 10, 0, 7, 7, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, // unix_diag_msg
        11, 0, 0, 0, b'/', b'r', b'u', b'n', b'/', b'a', 0, 0, // UNIX_DIAG_NAME
        12, 0, 1, 0, 0x71, 0xe0, 0x9a, 0, 0, 0, 0xe0, 0x0f, // UNIX_DIAG_VFS
    ];
    const DONE: [u8; 20] = [20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 9, 9, 0, 0, 0, 0, 0, 0];

    fn read(bytes: &[u8]) -> io::Result<(Vec<Bound>, bool)> {
        let mut found = Vec::new();
        let more = parse(bytes, |bound| found.push(bound))?;
        Ok((found, more))
    }

    #[test]
    fn a_dump_is_read() {
        let (found, more) = read(&[&LISTENER[..], &DONE].concat()).unwrap();
        let file = File { inode: 10_150_001, device: device(254, 0) };
        let name = b"/run/a".to_vec();
        assert_eq!(found, [Bound { kind: libc::SOCK_STREAM, cookie: (1 << 32) + 5, name, file: Some(file) }]);
        assert!(!more);
        assert!(read(&LISTENER).unwrap().1);
    }

    #[test]
    fn accepted_streams_are_left_out_and_connected_datagrams_are_not() {
        let mut message = LISTENER;
        message[18] = ESTABLISHED;
        assert_eq!(read(&message).unwrap().0, []);
        message[17] = libc::SOCK_DGRAM as u8;
        assert_eq!(read(&message).unwrap().0.len(), 1);
    }

    #[test]
    fn cut_or_wrong_bytes_are_an_error_and_so_is_what_the_kernel_calls_one() {
        for len in 1..LISTENER.len() {
            assert!(read(&LISTENER[..len]).is_err(), "{len}");
        }
        for at in 0..LISTENER.len() {
            for value in [0, 1, 3, 0xff] {
                let mut message = LISTENER;
                message[at] = value;
                let _ = read(&message);
            }
        }
        let mut message = DONE;
        message[16..].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&message).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    fn cookie(socket: impl AsFd) -> u64 {
        crate::sys::cookie(socket.as_fd(), libc::SO_COOKIE).unwrap()
    }

    #[test]
    fn a_file_leads_to_its_socket_whatever_it_is_called_now() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let listener = UnixListener::bind(&old).unwrap();
        std::fs::rename(&old, &new).unwrap();
        let stat = std::fs::metadata(&new).unwrap();
        // An accepted socket, and one that waits to be, bear the name as well.
        let _clients = [UnixStream::connect(&new).unwrap(), UnixStream::connect(&new).unwrap()];
        let _accepted = listener.accept().unwrap();
        let found = find(|b| b.file.is_some_and(|f| f.inode == stat.ino() as u32)).unwrap();
        let names: Vec<_> = found.iter().map(|b| (b.cookie, b.name.as_slice())).collect();
        assert_eq!(names, [(cookie(&listener), old.as_os_str().as_bytes())]);
    }

    #[test]
    fn an_abstract_name_leads_to_its_socket_among_thousands() {
        let name = format!("netshunt-unix-diag-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _crowd: Vec<_> = (0..400).map(|_| UnixDatagram::pair().unwrap()).collect();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let wanted = [b"\0", name.as_bytes()].concat();
        let found = find(|b| b.name == wanted).unwrap();
        let bound =
            Bound { kind: libc::SOCK_DGRAM, cookie: cookie(&socket), name: wanted.clone(), file: None };
        assert_eq!(found, [bound]);
        drop(socket);
        assert_eq!(find(|b| b.name == wanted).unwrap(), []);
    }
}
