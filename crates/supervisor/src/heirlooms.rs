//! The options that an accepted socket has from its listener (sk_clone_lock() in net/core/sock.c), for one that the kernel has not
//! made of it: a P that joins two guests (stack/direct.rs).

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use tracing::debug;

use crate::options::{Side, side};
use crate::sys;

/// Of linux/socket.h, Linux 5.14: which of a socket's sizes were set.
const SO_BUF_LOCK: i32 = 72;
const SIZES: [(i32, i32); 2] = [(1, libc::SO_SNDBUF), (2, libc::SO_RCVBUF)];

/// What guests may set on their own sockets and a listener cannot have (TCP_ULP), what is not a stream's to set, what the kernel
/// keeps up by itself, and the sizes, which grow.
const NOT_HANDED_DOWN: [(i32, i32); 7] = [
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
    (libc::IPPROTO_TCP, libc::TCP_ULP),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
];

/// The others.
fn handed_down() -> impl Iterator<Item = (i32, i32)> {
    let levels = [libc::SOL_SOCKET, libc::IPPROTO_TCP, libc::IPPROTO_IP, libc::IPPROTO_IPV6];
    // No name on the allow-list is higher.
    let all = levels.into_iter().flat_map(|level| (0..128).map(move |name| (level, name)));
    all.filter(|&(level, name)| matches!(side(level, name), Side::Both | Side::Guest))
        .filter(|of| !NOT_HANDED_DOWN.contains(of))
}

/// An option's value; none is longer.
type Value = [u8; 16];

/// An option, and what P has of it.
type Heirloom = ((i32, i32), Value);

/// All of them, by family: the same for every P, so it is asked once.
#[derive(Debug, Default)]
pub(crate) struct Heirlooms([OnceLock<Vec<Heirloom>>; 2]);

impl Heirlooms {
    /// Gives `p` what the kernel has given to `like`, which it has made of the listener.
    pub(crate) fn hand_down(&self, like: BorrowedFd<'_>, p: BorrowedFd<'_>, v6: bool) {
        let all = || handed_down().filter_map(|of| Some((of, value(p, of)?.0))).collect();
        for &(of, own) in self.0[usize::from(v6)].get_or_init(all) {
            if let Some((given, length)) = value(like, of)
                && own != given
            {
                set(p, of, &given[..length]);
            }
        }
        let locked = sys::int_option(like, libc::SOL_SOCKET, SO_BUF_LOCK).unwrap_or(0);
        for (_, name) in SIZES.iter().filter(|(bit, _)| locked & bit != 0) {
            if let Ok(size) = sys::int_option(like, libc::SOL_SOCKET, *name) {
                // It is doubled when it is set (socket(7)).
                set(p, (libc::SOL_SOCKET, *name), &(size / 2).to_ne_bytes());
            }
        }
    }
}

/// An option and its length; `None` if the socket has no such option.
fn value(of: BorrowedFd<'_>, (level, name): (i32, i32)) -> Option<(Value, usize)> {
    let mut value = [0; 16];
    let length = sys::option(of, level, name, &mut value).ok()?;
    Some((value, length))
}

fn set(on: BorrowedFd<'_>, (level, name): (i32, i32), value: &[u8]) {
    if let Err(error) = sys::set_option(on, level, name, value) {
        debug!(level, name, %error, "an option of a listener's is not handed down");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    /// A value that differs from the default and can be set and read back.
    fn another(of: (i32, i32)) -> Vec<u8> {
        match of.1 {
            libc::SO_LINGER if of.0 == libc::SOL_SOCKET => [1i32.to_ne_bytes(), 7i32.to_ne_bytes()].concat(),
            libc::SO_RCVTIMEO | libc::SO_SNDTIMEO if of.0 == libc::SOL_SOCKET => {
                [3i64.to_ne_bytes(), 0i64.to_ne_bytes()].concat()
            }
            _ => 1i32.to_ne_bytes().to_vec(),
        }
    }

    #[test]
    fn what_a_listener_has_is_handed_down_as_the_kernel_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settable: Vec<_> = handed_down()
            .filter(|&(level, name)| {
                sys::set_option(listener.as_fd(), level, name, &another((level, name))).is_ok()
            })
            .collect();
        assert!(settable.len() > 20, "{settable:?}");
        let sizes = [libc::SO_SNDBUF, libc::SO_RCVBUF].map(|name| (libc::SOL_SOCKET, name));
        for (level, name) in sizes {
            sys::set_option(listener.as_fd(), level, name, &20_000i32.to_ne_bytes()).unwrap();
        }
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (like, _) = listener.accept().unwrap();
        let p = sys::tcp_socket().unwrap();
        let heirlooms = Heirlooms::default();
        heirlooms.hand_down(like.as_fd(), p.as_fd(), false);
        for of in settable.into_iter().chain(sizes) {
            assert_eq!(value(p.as_fd(), of), value(like.as_fd(), of), "{of:?}");
        }
    }

    #[test]
    fn what_nobody_has_set_grows_as_it_did() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (like, _) = listener.accept().unwrap();
        let p = sys::tcp_socket().unwrap();
        Heirlooms::default().hand_down(like.as_fd(), p.as_fd(), false);
        assert_eq!(sys::int_option(p.as_fd(), libc::SOL_SOCKET, SO_BUF_LOCK).unwrap(), 0);
    }
}
