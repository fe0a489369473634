//! The stack's neighbours: what is sent to one waits while its hardware address is asked for.

use std::io;

use netshunt_lkl::{Kernel, Socket};

use crate::netlink::{self, field};

/// `struct ndmsg`, 12 bytes (linux/neighbour.h), and where its `ndm_state` is.
const NEIGHBOUR: usize = 12;
const STATE: usize = 8;
/// `NUD_INCOMPLETE`: asked for, and datagrams wait (neigh_probe() of net/core/neighbour.c).
const INCOMPLETE: u16 = 1;

/// How many neighbours are being asked for, by ARP (RFC 826) or neighbour discovery (RFC 4861).
///
/// # Errors
/// As socket(2), and what netlink(7) gives.
pub(super) fn sought(kernel: &Kernel) -> io::Result<usize> {
    let socket = kernel.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, 0)?;
    let count = count(kernel, socket);
    kernel.close(socket);
    count
}

fn count(kernel: &Kernel, socket: Socket) -> io::Result<usize> {
    kernel.send(socket, &netlink::question(libc::RTM_GETNEIGH, netlink::DUMP, &[0; NEIGHBOUR]))?;
    let mut count = 0;
    netlink::dump(
        |part| kernel.recv(socket, part),
        |kind, body| {
            count += usize::from(is_sought(kind, body)?);
            Ok(())
        },
    )?;
    Ok(count)
}

/// Whether a message of the dump is of one that is being asked for.
fn is_sought(kind: u16, body: &[u8]) -> io::Result<bool> {
    if kind != libc::RTM_NEWNEIGH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(u16::from_ne_bytes(field(body, STATE)?) & INCOMPLETE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(state: u16) -> [u8; NEIGHBOUR] {
        let mut body = [0; NEIGHBOUR];
        body[STATE..STATE + 2].copy_from_slice(&state.to_ne_bytes());
        body
    }

    #[test]
    fn those_asked_for_are_told_from_others_and_from_what_is_no_neighbour() {
        assert!(is_sought(libc::RTM_NEWNEIGH, &neighbour(INCOMPLETE)).unwrap());
        assert!(!is_sought(libc::RTM_NEWNEIGH, &neighbour(2)).unwrap());
        assert!(is_sought(libc::RTM_NEWLINK, &neighbour(INCOMPLETE)).is_err());
        assert!(is_sought(libc::RTM_NEWNEIGH, &neighbour(INCOMPLETE)[..STATE + 1]).is_err());
    }
}
