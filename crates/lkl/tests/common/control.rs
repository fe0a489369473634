//! Control messages, and messages whole.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;

use netshunt_lkl::{Kernel, Message, MessageRoom, Name, Received, Socket};

/// One control message (`struct cmsghdr`), padded as the next one wants it.
pub(crate) fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend((16 + data.len()).to_ne_bytes());
    message.extend(level.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(data);
    message.resize(message.len().next_multiple_of(8), 0);
    message
}

/// A message that was received.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) data: Vec<u8>,
    pub(crate) from: Vec<u8>,
    pub(crate) control: Vec<u8>,
    pub(crate) received: Received,
}

impl Got {
    /// The data of a control message.
    pub(crate) fn find(&self, level: i32, kind: i32) -> Option<&[u8]> {
        let mut rest = &self.control[..];
        while !rest.is_empty() {
            let length = usize::from_ne_bytes(rest[..8].try_into().unwrap());
            let number = |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
            if (number(8), number(12)) == (level, kind) {
                return Some(&rest[16..length]);
            }
            rest = &rest[length.next_multiple_of(8).min(rest.len())..];
        }
        None
    }

    pub(crate) fn number(&self, level: i32, kind: i32) -> Option<i32> {
        self.find(level, kind).map(|data| i32::from_ne_bytes(data[..4].try_into().unwrap()))
    }
}

pub(crate) fn send(
    kernel: &Kernel,
    s: Socket,
    data: &[u8],
    to: SocketAddr,
    control: &[u8],
) -> io::Result<usize> {
    let (left, right) = data.split_at(data.len() / 2);
    let data = &[IoSlice::new(left), IoSlice::new(right)];
    kernel.send_message(s, &Message { data, to: Name::from(to).bytes(), control }, 0)
}

/// Receives with enough room for everything.
pub(crate) fn receive(kernel: &Kernel, s: Socket, flags: i32) -> io::Result<Got> {
    receive_into(kernel, s, flags, 70_000, 512)
}

pub(crate) fn receive_into(
    kernel: &Kernel,
    s: Socket,
    flags: i32,
    data: usize,
    ctl: usize,
) -> io::Result<Got> {
    let (mut data, mut from, mut control) = (vec![0; data], vec![0; 128], vec![0; ctl]);
    let pieces = &mut [IoSliceMut::new(&mut data)];
    let mut room = MessageRoom { data: pieces, from: &mut from, control: &mut control };
    let received = kernel.receive_message(s, &mut room, flags)?;
    data.truncate(received.data);
    from.truncate(received.from);
    control.truncate(received.control);
    Ok(Got { data, from, control, received })
}

pub(crate) fn switch_on(kernel: &Kernel, s: Socket, level: i32, name: i32) {
    kernel.set_option(s, level, name, &1_i32.to_ne_bytes()).unwrap();
}
