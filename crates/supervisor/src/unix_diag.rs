//! Which AF_UNIX sockets are bound, under which names and to which files: sock_diag(7),
//! linux/unix_diag.h.
//!
//! Sees the caller's network namespace only; a path name may lead to a socket of another.
//! A dump that takes several reads can miss a socket while others close (net/unix/diag.c counts
//! entries), so whoever must be certain also looks at what was connected.

use std::io;

use nix::sys::socket::SockProtocol;

use crate::netlink::{Host, SOCK_DIAG_BY_FAMILY, attributes, field};

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
    let mut found = Vec::new();
    Host::new(SockProtocol::NetlinkSockDiag)?.dump(SOCK_DIAG_BY_FAMILY, &question(), |kind, body| {
        if kind == SOCK_DIAG_BY_FAMILY {
            found.extend(bound(body)?.filter(&mut wanted));
        }
        Ok(())
    })?;
    Ok(found)
}

/// `struct unix_diag_req`. All states: a datagram socket is "established" once anybody has connected to it.
fn question() -> Vec<u8> {
    let words = [libc::AF_UNIX as u32, u32::MAX, 0, UDIAG_SHOW_NAME | UDIAG_SHOW_VFS, u32::MAX, u32::MAX];
    words.map(u32::to_ne_bytes).concat()
}

/// Reads `struct unix_diag_msg` and its attributes.
fn bound(body: &[u8]) -> io::Result<Option<Bound>> {
    let [family, kind, state, _] = field(body, 0)?;
    // Two words, the lower first.
    let cookie = u64::from_le_bytes(field(body, 8)?);
    let kind = i32::from(kind);
    // An accepted socket bears its listener's name; nobody can connect to it.
    let accepted = state == ESTABLISHED && kind != libc::SOCK_DGRAM;
    if i32::from(family) != libc::AF_UNIX || accepted {
        return Ok(None);
    }
    let mut found = Bound { kind, cookie, name: Vec::new(), file: None };
    for attribute in attributes(&body[16..]) {
        match attribute? {
            (UNIX_DIAG_NAME, value) => found.name = value.to_vec(),
            (UNIX_DIAG_VFS, value) => {
                let [inode, device] = [field(value, 0)?, field(value, 4)?].map(u32::from_ne_bytes);
                found.file = Some(File { inode, device });
            }
            _ => {}
        }
    }
    if found.name.first().is_some_and(|first| *first != 0) && found.name.last() == Some(&0) {
        found.name.pop();
    }
    Ok((!found.name.is_empty()).then_some(found))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    /// A listener on `/run/a`, written by hand after linux/unix_diag.h.
    const LISTENER: [u8; 40] = [
        1, 1, 10, 0, 7, 7, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, // unix_diag_msg
        11, 0, 0, 0, b'/', b'r', b'u', b'n', b'/', b'a', 0, 0, // UNIX_DIAG_NAME
        12, 0, 1, 0, 0x71, 0xe0, 0x9a, 0, 0, 0, 0xe0, 0x0f, // UNIX_DIAG_VFS
    ];

    #[test]
    fn a_socket_is_read() {
        let file = File { inode: 10_150_001, device: device(254, 0) };
        let name = b"/run/a".to_vec();
        let expected = Bound { kind: libc::SOCK_STREAM, cookie: (1 << 32) + 5, name, file: Some(file) };
        assert_eq!(bound(&LISTENER).unwrap(), Some(expected));
    }

    #[test]
    fn accepted_streams_are_left_out_and_connected_datagrams_are_not() {
        let mut message = LISTENER;
        message[2] = ESTABLISHED;
        assert_eq!(bound(&message).unwrap(), None);
        message[1] = libc::SOCK_DGRAM as u8;
        assert!(bound(&message).unwrap().is_some());
    }

    #[test]
    fn cut_or_wrong_bytes_are_an_error() {
        for len in 0..LISTENER.len() {
            // Between two attributes one ends well; without a name it is nobody's.
            let whole = [16, 27, 28].contains(&len);
            assert_eq!(bound(&LISTENER[..len]).is_ok(), whole, "{len}");
        }
        for at in 0..LISTENER.len() {
            for value in [0, 1, 3, 0xff] {
                let mut message = LISTENER;
                message[at] = value;
                let _ = bound(&message);
            }
        }
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
