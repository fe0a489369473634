//! A started kernel: its C calls, made safe. Those about sockets are next door.

use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::answer::{answer, call, count, done};
use super::api::{Api, NicCfg};
use super::host::{self, Inside, Wire};
use super::memory::Memory;
use crate::nic::TransmitFn;
use crate::{Clock, Error};

/// A kernel between its start and its shutdown.
pub(crate) struct Instance {
    pub(super) api: Api,
    pub(super) clock: Clock,
    memory: Memory,
    /// From `Box::into_raw`. The kernel holds these pointers until it is down.
    wires: RefCell<Vec<*mut Wire>>,
    /// All calls come from the thread that started the kernel.
    _one_thread: PhantomData<*const ()>,
}

/// What a network device is made of.
pub(crate) struct Link {
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) flags: u16,
    pub(crate) transmit: TransmitFn,
}

impl Instance {
    /// Starts the library's kernel.
    pub(crate) fn start(api: Api, memory: usize, cmdline: &CStr, clock: Clock) -> Result<Self, Error> {
        /// Two threads must not start one library at the same time.
        static STARTING: Mutex<()> = Mutex::new(());

        let bank = Memory::reserve(memory).map_err(|source| Error::Memory { bytes: memory, source })?;
        let started = {
            let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            let _inside = Inside::enter(&clock);
            // SAFETY: the memory is reserved, writable and never unmapped; the operations are
            // static; the command line is copied. The library checks that this is its first start.
            unsafe { (api.lk_start)(&host::OPERATIONS, bank.start(), bank.len(), cmdline.as_ptr()) }
        };
        match done(started) {
            Ok(()) => {
                Ok(Self { api, clock, memory: bank, wires: RefCell::default(), _one_thread: PhantomData })
            }
            // Nothing was touched of the memory that this attempt leaves reserved.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Err(Error::AlreadyBooted),
            Err(source) => Err(Error::Boot { memory, source }),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn run(&self) -> io::Result<u64> {
        let mut deadline = 0;
        done(call!(self.lk_run(&mut deadline)))?;
        Ok(deadline)
    }

    pub(crate) fn poll(&self) -> io::Result<()> {
        done(call!(self.lk_poll()))
    }

    pub(crate) fn panic(&self, message: &CStr) -> io::Result<()> {
        done(call!(self.lk_panic(message.as_ptr())))
    }

    pub(crate) fn stat(&self, what: c_int) -> io::Result<u64> {
        answer(call!(self.lk_stat(what)))
    }

    /// Adds a network device; returns its handle and its interface index.
    pub(crate) fn add_nic(&self, link: Link) -> io::Result<(u64, u32)> {
        let wire = Box::into_raw(Box::new(Wire(link.transmit)));
        let config = NicCfg {
            mac: link.mac,
            flags: link.flags,
            mtu: link.mtu,
            pad: 0,
            opaque: wire.cast(),
            xmit: host::transmit,
        };
        // Kept also when the kernel refuses: it may have copied the address by then.
        self.wires.borrow_mut().push(wire);
        let mut index = 0;
        let handle = answer(call!(self.lk_nic_add(&config, &mut index)))?;
        Ok((handle, u32::try_from(index).unwrap_or(0)))
    }

    pub(crate) fn receive(&self, nic: u64, frame: &[u8]) -> io::Result<()> {
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        done(call!(self.lk_nic_rx(nic, frame.as_ptr().cast(), len)))
    }

    pub(crate) fn wake(&self, nic: u64) -> io::Result<()> {
        done(call!(self.lk_nic_wake(nic)))
    }

    pub(crate) fn interface_up(&self, index: u32) -> io::Result<()> {
        done(call!(self.lk_if_up(interface(index)?)))
    }

    /// `address` is in network order, 4 or 16 bytes as the family says.
    pub(crate) fn add_address(&self, index: u32, address: &[u8], prefix: u8) -> io::Result<()> {
        let index = interface(index)?;
        let family = family(address)?;
        done(call!(self.lk_addr_add(index, family, address.as_ptr(), prefix.into())))
    }

    /// As [`Self::add_address`]; both addresses are of one family.
    pub(crate) fn add_route(&self, index: u32, to: &[u8], prefix: u8, via: Option<&[u8]>) -> io::Result<()> {
        let index = interface(index)?;
        let family = family(to)?;
        if via.is_some_and(|via| via.len() != to.len()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let via = via.map_or(ptr::null(), <[u8]>::as_ptr);
        done(call!(self.lk_route_add(index, family, to.as_ptr(), prefix.into(), via)))
    }

    pub(crate) fn read_file(&self, path: &CStr, into: &mut [u8]) -> io::Result<usize> {
        count(call!(self.lk_read_file(path.as_ptr(), into.as_mut_ptr().cast(), into.len())))
    }

    pub(crate) fn write_file(&self, path: &CStr, text: &[u8]) -> io::Result<usize> {
        count(call!(self.lk_write_file(path.as_ptr(), text.as_ptr().cast(), text.len())))
    }
}

impl Drop for Instance {
    /// Shuts the kernel down. If it would not go, what it may use stays for ever.
    fn drop(&mut self) {
        if let Err(error) = done(call!(self.lk_shutdown())) {
            tracing::error!(%error, "the kernel does not shut down");
            return;
        }
        self.memory.release();
        for wire in self.wires.take() {
            // SAFETY: made by `add_nic`, and the kernel is down: it calls nothing any more.
            drop(unsafe { Box::from_raw(wire) });
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { clock, memory, wires, .. } = self;
        let nics = wires.try_borrow().map(|wires| wires.len()).ok();
        f.debug_struct("Instance")
            .field("clock", clock)
            .field("memory", memory)
            .field("nics", &nics)
            .finish_non_exhaustive()
    }
}

fn interface(index: u32) -> io::Result<c_int> {
    c_int::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

fn family(address: &[u8]) -> io::Result<c_int> {
    match address.len() {
        4 => Ok(libc::AF_INET),
        16 => Ok(libc::AF_INET6),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}
