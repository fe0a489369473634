//! The stack's neighbours: what is sent to one waits while its hardware address is asked for.

use std::io;

use netshunt_lkl::{Kernel, Socket};

/// `struct nlmsghdr` (linux/netlink.h), and where its `nlmsg_type` is.
const HEADER: usize = 16;
const KIND: usize = 4;
/// `struct ndmsg`, 12 bytes (linux/neighbour.h), and where its `ndm_state` is after the header.
const QUESTION: usize = HEADER + 12;
const STATE: usize = HEADER + 8;
/// `NUD_INCOMPLETE`: asked for, and datagrams wait (neigh_probe() of net/core/neighbour.c).
const INCOMPLETE: u16 = 1;
/// The kernel fills at most this much at a time (net/netlink/af_netlink.c).
const READ: usize = 32 << 10;

/// How many neighbours are being asked for, by ARP (RFC 826) or neighbour discovery (RFC 4861).
///
/// # Errors
/// As socket(2), and what netlink(7) gives.
pub(super) fn sought(kernel: &Kernel) -> io::Result<usize> {
    let socket = kernel.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, 0)?;
    let count = dump(kernel, socket);
    kernel.close(socket);
    count
}

fn dump(kernel: &Kernel, socket: Socket) -> io::Result<usize> {
    let mut question = [0; QUESTION];
    question[..4].copy_from_slice(&(QUESTION as u32).to_ne_bytes());
    question[KIND..KIND + 2].copy_from_slice(&libc::RTM_GETNEIGH.to_ne_bytes());
    question[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    kernel.send(socket, &question)?;
    let mut buffer = vec![0; READ];
    let mut count = 0;
    loop {
        let length = kernel.recv(socket, &mut buffer)?;
        match tally(&buffer[..length]) {
            Some((more, false)) => count += more,
            Some((last, true)) => return Ok(count + last),
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The neighbours asked for in one part of a dump, and whether it is the last. `None` if it is no such part.
fn tally(mut part: &[u8]) -> Option<(usize, bool)> {
    let mut count = 0;
    while !part.is_empty() {
        let length = u32::from_ne_bytes(part.get(..4)?.try_into().ok()?) as usize;
        let message = part.get(..length).filter(|_| length >= HEADER)?;
        match u16::from_ne_bytes(message[KIND..KIND + 2].try_into().ok()?) {
            libc::RTM_NEWNEIGH => {
                let state = u16::from_ne_bytes(message.get(STATE..STATE + 2)?.try_into().ok()?);
                count += usize::from(state & INCOMPLETE != 0);
            }
            kind if i32::from(kind) == libc::NLMSG_DONE => return Some((count, true)),
            _ => return None,
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((count, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, state: u16) -> Vec<u8> {
        let mut bytes = vec![0; QUESTION];
        bytes[..4].copy_from_slice(&(QUESTION as u32).to_ne_bytes());
        bytes[KIND..KIND + 2].copy_from_slice(&kind.to_ne_bytes());
        bytes[STATE..STATE + 2].copy_from_slice(&state.to_ne_bytes());
        bytes
    }

    #[test]
    fn those_asked_for_are_counted() {
        let reachable = message(libc::RTM_NEWNEIGH, 2);
        let asked = message(libc::RTM_NEWNEIGH, INCOMPLETE);
        let done = message(libc::NLMSG_DONE as u16, 0);
        assert_eq!(tally(&[asked.clone(), reachable, asked.clone()].concat()), Some((2, false)));
        assert_eq!(tally(&[asked, done].concat()), Some((1, true)));
    }

    #[test]
    fn what_is_no_dump_is_none() {
        assert_eq!(tally(&[0; 40]), None);
        assert_eq!(tally(&message(libc::NLMSG_ERROR as u16, 0)), None);
        assert_eq!(tally(&message(libc::RTM_NEWNEIGH, 0)[..20]), None);
    }
}
