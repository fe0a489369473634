//! Declarations, as in `lk.h` at [`Api::VERSION`].

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::path::Path;

/// `struct lk_iov`; `std::io::IoSlice` has the same layout (it is a `struct iovec`).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Iov {
    pub(crate) base: *const c_void,
    pub(crate) len: usize,
}

/// `struct lk_host_ops`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct HostOps {
    pub(crate) print: extern "C" fn(*const c_char, u32),
    pub(crate) panic: extern "C" fn(*const c_char, u32),
    pub(crate) time_ns: extern "C" fn() -> u64,
    pub(crate) realtime_ns: extern "C" fn() -> u64,
    pub(crate) random: extern "C" fn(*mut c_void, usize) -> c_long,
    pub(crate) block: extern "C" fn(u64),
    pub(crate) memcpy: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void,
    pub(crate) memmove: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void,
    pub(crate) memset: unsafe extern "C" fn(*mut c_void, c_int, usize) -> *mut c_void,
    pub(crate) memcmp: unsafe extern "C" fn(*const c_void, *const c_void, usize) -> c_int,
    pub(crate) protect: extern "C" fn(*mut c_void, usize, c_int),
    pub(crate) discard: extern "C" fn(*mut c_void, usize),
}

/// `struct lk_nic_cfg`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct NicCfg {
    pub(crate) mac: [u8; 6],
    pub(crate) flags: u16,
    pub(crate) mtu: u32,
    pub(crate) pad: u32,
    pub(crate) opaque: *mut c_void,
    pub(crate) xmit: extern "C" fn(*mut c_void, *const Iov, c_int, u32) -> c_int,
}

/// `LK_NIC_TXCSUM`: the wire takes partial checksums.
pub(crate) const NIC_TXCSUM: u16 = 1;
/// `LK_NIC_RXCSUM`: received checksums need no verification.
pub(crate) const NIC_RXCSUM: u16 = 2;
/// `LK_NIC_GRO`: received segments are merged.
pub(crate) const NIC_GRO: u16 = 4;

/// `struct lk_msg`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Msg {
    pub(crate) name: *mut c_void,
    pub(crate) control: *mut c_void,
    pub(crate) iov: *const Iov,
    pub(crate) n: u32,
    pub(crate) name_len: u32,
    pub(crate) control_len: u32,
    pub(crate) flags: u32,
}

/// `LK_SOCK_USER`: an ordinary user's socket.
pub(crate) const SOCK_USER: c_int = 1;

/// `struct lk_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Event {
    pub(crate) cookie: u64,
    pub(crate) mask: u32,
    pub(crate) pad: u32,
}

const _: () = {
    assert!(size_of::<Iov>() == 16);
    assert!(size_of::<HostOps>() == 96);
    assert!(size_of::<NicCfg>() == 32);
    assert!(size_of::<Msg>() == 40);
    assert!(size_of::<Event>() == 16);
};

/// Declares the functions once: as fields, as symbols.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) -> $answer:ty;)*) => {
        /// The library's functions. They stay valid: the library is never unloaded.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct Api {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> $answer,)*
        }

        /// # Safety
        /// The library's symbols of these names must be functions of these types.
        unsafe fn resolve(library: &libloading::Library) -> Result<Api, libloading::Error> {
            Ok(Api {
                $($name: {
                    let name = concat!(stringify!($name), "\0").as_bytes();
                    // SAFETY: the caller vouches for the type.
                    *unsafe { library.get(name) }?
                },)*
            })
        }
    };
}

functions! {
    lk_accept: fn(u64, u64, *mut c_void, *mut c_int) -> i64;
    lk_addr_add: fn(c_int, c_int, *const u8, c_int) -> c_int;
    lk_abort: fn(u64) -> c_int;
    lk_api_version: fn() -> u32;
    lk_bind: fn(u64, *const c_void, c_int) -> c_int;
    lk_close: fn(u64) -> c_int;
    lk_connect: fn(u64, *const c_void, c_int) -> c_int;
    lk_events: fn(*mut Event, c_int) -> c_int;
    lk_getname: fn(u64, *mut c_void, c_int) -> c_int;
    lk_getsockopt: fn(u64, c_int, c_int, *mut c_void, *mut c_int) -> c_int;
    lk_if_up: fn(c_int) -> c_int;
    lk_ifconf: fn(u64, *mut c_void, c_int) -> c_int;
    lk_ioctl: fn(u64, u32, *mut c_void, u32) -> c_int;
    lk_listen: fn(u64, c_int) -> c_int;
    lk_nic_add: fn(*const NicCfg, *mut c_int) -> i64;
    lk_nic_rx: fn(u64, *const c_void, u32) -> c_int;
    lk_nic_wake: fn(u64) -> c_int;
    lk_panic: fn(*const c_char) -> c_int;
    lk_poll: fn() -> c_int;
    lk_pollmask: fn(u64) -> i64;
    lk_read_file: fn(*const c_char, *mut c_void, usize) -> i64;
    lk_recv: fn(u64, *mut c_void, usize, c_int) -> i64;
    lk_recvmsg: fn(u64, *mut Msg, c_int) -> i64;
    lk_route_add: fn(c_int, c_int, *const u8, c_int, *const u8) -> c_int;
    lk_run: fn(*mut u64) -> c_int;
    lk_send: fn(u64, *const c_void, usize, c_int) -> i64;
    lk_sendmsg: fn(u64, *const Msg, c_int) -> i64;
    lk_setsockopt: fn(u64, c_int, c_int, *const c_void, c_int) -> c_int;
    lk_shutdown: fn() -> c_int;
    lk_sock_shutdown: fn(u64, c_int) -> c_int;
    lk_socket: fn(c_int, c_int, c_int, c_int, u64) -> i64;
    lk_start: fn(*const HostOps, *mut c_void, usize, *const c_char) -> c_int;
    lk_stat: fn(c_int) -> i64;
    lk_version: fn() -> *const c_char;
    lk_write_file: fn(*const c_char, *const c_void, usize) -> i64;
}

impl Api {
    /// `LK_API_VERSION`.
    pub(crate) const VERSION: u32 = 3;

    /// Loads the library, for ever.
    pub(crate) fn load(path: &Path) -> Result<Self, libloading::Error> {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        // SAFETY: the library has no initialisers; the file is the one the user chose to run.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }?;
        // Leaked: a kernel that was started has pointers into itself all over its memory.
        let library: &'static libloading::Library = Box::leak(Box::new(library.into()));
        // SAFETY: a library with these symbols is ours; `Library::load` compares its version with
        // the one declared here before it calls anything but lk_api_version().
        unsafe { resolve(library) }
    }

    pub(crate) fn version(&self) -> u32 {
        // SAFETY: takes nothing, may be called at any time.
        unsafe { (self.lk_api_version)() }
    }

    pub(crate) fn release(&self) -> String {
        // SAFETY: takes nothing, may be called at any time.
        let text = unsafe { (self.lk_version)() };
        // SAFETY: the answer is a string constant of the library, which is never unloaded.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}
