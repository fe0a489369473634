//! The C calls about sockets, made safe.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;

use super::answer::{answer, call, count, done, length};
use super::api::{Event, Msg, SOCK_USER};
use super::instance::Instance;
use crate::address::ROOM;
use crate::{Message, MessageRoom, Received};

impl Instance {
    pub(crate) fn socket(
        &self,
        domain: c_int,
        kind: c_int,
        protocol: c_int,
        user: bool,
        cookie: u64,
    ) -> io::Result<u64> {
        let user = if user { SOCK_USER } else { 0 };
        answer(call!(self.lk_socket(domain, kind, protocol, user, cookie)))
    }

    pub(crate) fn bind(&self, socket: u64, to: &[u8]) -> io::Result<()> {
        done(call!(self.lk_bind(socket, to.as_ptr().cast(), length(to.len()))))
    }

    pub(crate) fn connect(&self, socket: u64, to: &[u8]) -> io::Result<()> {
        done(call!(self.lk_connect(socket, to.as_ptr().cast(), length(to.len()))))
    }

    pub(crate) fn listen(&self, socket: u64, backlog: c_int) -> io::Result<()> {
        done(call!(self.lk_listen(socket, backlog)))
    }

    pub(crate) fn accept(&self, socket: u64, cookie: u64) -> io::Result<u64> {
        answer(call!(self.lk_accept(socket, cookie, ptr::null_mut(), ptr::null_mut())))
    }

    /// Also the peer's address: in the buffer, and its length.
    pub(crate) fn accept_from(
        &self,
        socket: u64,
        cookie: u64,
        from: &mut [u8; ROOM],
    ) -> io::Result<(u64, usize)> {
        let mut len = 0;
        let accepted = answer(call!(self.lk_accept(socket, cookie, from.as_mut_ptr().cast(), &mut len)))?;
        Ok((accepted, usize::try_from(len).unwrap_or(0).min(ROOM)))
    }

    pub(crate) fn send(&self, socket: u64, data: &[u8], flags: c_int) -> io::Result<usize> {
        count(call!(self.lk_send(socket, data.as_ptr().cast(), data.len(), flags)))
    }

    pub(crate) fn recv(&self, socket: u64, into: &mut [u8], flags: c_int) -> io::Result<usize> {
        let (buffer, room) = (into.as_mut_ptr().cast(), into.len());
        count(call!(self.lk_recv(socket, buffer, room, flags)))
            // MSG_TRUNC answers the datagram's whole length.
            .map(|n| if flags & libc::MSG_TRUNC == 0 { n.min(room) } else { n })
    }

    pub(crate) fn send_message(&self, socket: u64, message: &Message<'_>, flags: c_int) -> io::Result<usize> {
        let Message { data, to, control } = message;
        // The kernel writes to none of them.
        let message = Msg {
            name: to.as_ptr().cast_mut().cast(),
            control: control.as_ptr().cast_mut().cast(),
            // `IoSlice` is a `struct iovec`, as `Iov`.
            iov: data.as_ptr().cast(),
            n: size(data.len()),
            name_len: size(to.len()),
            control_len: size(control.len()),
            flags: 0,
        };
        count(call!(self.lk_sendmsg(socket, &message, flags)))
    }

    pub(crate) fn receive_message(
        &self,
        socket: u64,
        room: &mut MessageRoom<'_, '_>,
        flags: c_int,
    ) -> io::Result<Received> {
        let MessageRoom { data, from, control } = room;
        let mut message = Msg {
            name: from.as_mut_ptr().cast(),
            control: control.as_mut_ptr().cast(),
            // `IoSliceMut` too is a `struct iovec`.
            iov: data.as_mut_ptr().cast_const().cast(),
            n: size(data.len()),
            name_len: size(from.len()),
            control_len: size(control.len()),
            flags: 0,
        };
        let n = count(call!(self.lk_recvmsg(socket, &mut message, flags)))?;
        Ok(Received {
            data: n,
            from: message.name_len as usize,
            control: (message.control_len as usize).min(control.len()),
            flags: message.flags.cast_signed(),
        })
    }

    pub(crate) fn shutdown(&self, socket: u64, how: c_int) -> io::Result<()> {
        done(call!(self.lk_sock_shutdown(socket, how)))
    }

    pub(crate) fn close(&self, socket: u64) -> io::Result<()> {
        done(call!(self.lk_close(socket)))
    }

    pub(crate) fn abort(&self, socket: u64) -> io::Result<()> {
        done(call!(self.lk_abort(socket)))
    }

    pub(crate) fn set_option(&self, socket: u64, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
        let (data, len) = (value.as_ptr().cast(), length(value.len()));
        done(call!(self.lk_setsockopt(socket, level, name, data, len)))
    }

    pub(crate) fn option(
        &self,
        socket: u64,
        level: c_int,
        name: c_int,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let mut len = length(into.len());
        let room = into.as_mut_ptr().cast();
        done(call!(self.lk_getsockopt(socket, level, name, room, &mut len)))?;
        Ok(usize::try_from(len).unwrap_or(0).min(into.len()))
    }

    /// The socket's own address, or its peer's: in the buffer, and its length.
    pub(crate) fn name(&self, socket: u64, peer: bool, into: &mut [u8; ROOM]) -> io::Result<usize> {
        let code = call!(self.lk_getname(socket, into.as_mut_ptr().cast(), peer.into()));
        count(code.into()).map(|n| n.min(ROOM))
    }

    pub(crate) fn readiness(&self, socket: u64) -> io::Result<u32> {
        answer(call!(self.lk_pollmask(socket))).map(|mask| mask as u32)
    }

    /// Fills in the next events; returns how many.
    pub(crate) fn events(&self, into: &mut [Event]) -> io::Result<usize> {
        count(call!(self.lk_events(into.as_mut_ptr(), length(into.len()))).into())
    }

    pub(crate) fn ioctl(&self, socket: u64, request: u32, argument: &mut [u8]) -> io::Result<()> {
        let (data, len) = (argument.as_mut_ptr().cast(), size(argument.len()));
        done(call!(self.lk_ioctl(socket, request, data, len)))
    }

    /// Fills in as many records as there is room for; without room, says how many bytes they take.
    pub(crate) fn interface_records(&self, socket: u64, into: &mut [u8]) -> io::Result<usize> {
        let room = if into.is_empty() { ptr::null_mut::<c_void>() } else { into.as_mut_ptr().cast() };
        count(call!(self.lk_ifconf(socket, room, length(into.len()))).into())
    }
}

/// A length in a message. Of longer buffers than 4 GiB the first are used.
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
