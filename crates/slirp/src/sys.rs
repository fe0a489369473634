//! libslirp behind a safe type. The only module of this crate with unsafe code: it calls a C library
//! and is called back by it.
//!
//! [`ffi`] declares, [`timers`] keeps what libslirp asks to be woken for, and [`Instance`] owns one
//! `Slirp` together with the [`Host`] that its callbacks reach. [`sockets`] are two calls on the host's
//! sockets, which libslirp knows by number.
#![allow(unsafe_code)]

mod callbacks;
mod ffi;
mod instance;
mod sockets;
mod timers;

pub(crate) use callbacks::Host;
pub(crate) use ffi::{POLL_ERR, POLL_HUP, POLL_IN, POLL_OUT, POLL_PRI};
pub(crate) use instance::{Instance, version};
pub(crate) use sockets::{disconnect, lengthen_queue, take_error};
