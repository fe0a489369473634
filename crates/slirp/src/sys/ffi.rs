//! What is used of `libslirp.h` 4.7, written by hand. Names are the header's.
//!
//! The assertions pin the layout of 64-bit Linux; the test compares every offset with the header.

use std::marker::{PhantomData, PhantomPinned};

use libc::{
    c_char, c_int, c_void, in_addr, in6_addr, size_t, sockaddr, sockaddr_in, sockaddr_in6, socklen_t, ssize_t,
};

pub(crate) const POLL_IN: c_int = 1 << 0;
pub(crate) const POLL_OUT: c_int = 1 << 1;
pub(crate) const POLL_PRI: c_int = 1 << 2;
pub(crate) const POLL_ERR: c_int = 1 << 3;
pub(crate) const POLL_HUP: c_int = 1 << 4;

/// `SLIRP_HOSTFWD_*`.
pub(crate) const HOSTFWD_UDP: c_int = 1;
pub(crate) const HOSTFWD_V6ONLY: c_int = 2;

/// The newest `SlirpConfig` that 4.7 knows, and the least for `timer_new_opaque`.
pub(super) const CONFIG_VERSION: u32 = 4;

/// `SlirpTimerId`: a C enum without negative values.
pub(super) type TimerId = libc::c_uint;
pub(super) type TimerCb = unsafe extern "C" fn(opaque: *mut c_void);
pub(super) type AddPollCb = unsafe extern "C" fn(fd: c_int, events: c_int, opaque: *mut c_void) -> c_int;
pub(super) type GetREventsCb = unsafe extern "C" fn(idx: c_int, opaque: *mut c_void) -> c_int;

/// An instance; only ever behind a pointer.
#[repr(C)]
pub(super) struct Slirp {
    _opaque: [u8; 0],
    /// Neither `Send`, `Sync` nor `Unpin` by itself.
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// The callback table. libslirp keeps the pointer to it, not a copy.
#[repr(C)]
pub(super) struct SlirpCb {
    pub(super) send_packet: unsafe extern "C" fn(*const c_void, size_t, *mut c_void) -> ssize_t,
    pub(super) guest_error: unsafe extern "C" fn(*const c_char, *mut c_void),
    pub(super) clock_get_ns: unsafe extern "C" fn(*mut c_void) -> i64,
    /// Not needed with `timer_new_opaque`.
    pub(super) timer_new: Option<unsafe extern "C" fn(TimerCb, *mut c_void, *mut c_void) -> *mut c_void>,
    pub(super) timer_free: unsafe extern "C" fn(*mut c_void, *mut c_void),
    /// The time is in milliseconds of `clock_get_ns`.
    pub(super) timer_mod: unsafe extern "C" fn(*mut c_void, i64, *mut c_void),
    pub(super) register_poll_fd: unsafe extern "C" fn(c_int, *mut c_void),
    pub(super) unregister_poll_fd: unsafe extern "C" fn(c_int, *mut c_void),
    pub(super) notify: unsafe extern "C" fn(*mut c_void),
    pub(super) init_completed: unsafe extern "C" fn(*mut Slirp, *mut c_void),
    pub(super) timer_new_opaque: unsafe extern "C" fn(TimerId, *mut c_void, *mut c_void) -> *mut c_void,
}

/// What `slirp_new` reads; nothing of it is kept.
#[repr(C)]
pub(super) struct SlirpConfig {
    pub(super) version: u32,
    pub(super) restricted: c_int,
    pub(super) in_enabled: bool,
    pub(super) vnetwork: in_addr,
    pub(super) vnetmask: in_addr,
    pub(super) vhost: in_addr,
    pub(super) in6_enabled: bool,
    pub(super) vprefix_addr6: in6_addr,
    pub(super) vprefix_len: u8,
    pub(super) vhost6: in6_addr,
    pub(super) vhostname: *const c_char,
    pub(super) tftp_server_name: *const c_char,
    pub(super) tftp_path: *const c_char,
    pub(super) bootfile: *const c_char,
    pub(super) vdhcp_start: in_addr,
    pub(super) vnameserver: in_addr,
    pub(super) vnameserver6: in6_addr,
    pub(super) vdnssearch: *const *const c_char,
    pub(super) vdomainname: *const c_char,
    pub(super) if_mtu: size_t,
    pub(super) if_mru: size_t,
    pub(super) disable_host_loopback: bool,
    pub(super) enable_emu: bool,
    pub(super) outbound_addr: *mut sockaddr_in,
    pub(super) outbound_addr6: *mut sockaddr_in6,
    pub(super) disable_dns: bool,
    pub(super) disable_dhcp: bool,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<SlirpCb>() == 88, "libslirp 4.7 SlirpCb");
    assert!(size_of::<SlirpConfig>() == 184, "libslirp 4.7 SlirpConfig");
};

// Linked by build.rs.
unsafe extern "C" {
    pub(super) fn slirp_new(
        cfg: *const SlirpConfig,
        callbacks: *const SlirpCb,
        opaque: *mut c_void,
    ) -> *mut Slirp;
    pub(super) fn slirp_cleanup(slirp: *mut Slirp);
    pub(super) fn slirp_pollfds_fill(
        slirp: *mut Slirp,
        timeout: *mut u32,
        add_poll: AddPollCb,
        opaque: *mut c_void,
    );
    pub(super) fn slirp_pollfds_poll(
        slirp: *mut Slirp,
        select_error: c_int,
        get_revents: GetREventsCb,
        opaque: *mut c_void,
    );
    pub(super) fn slirp_input(slirp: *mut Slirp, pkt: *const u8, pkt_len: c_int);
    /// Opens a socket of the host at `haddr` whose connections or datagrams go to `gaddr`, as if they
    /// came from the peer (from the gateway if that is the host itself). -1: `errno` says why.
    pub(super) fn slirp_add_hostxfwd(
        slirp: *mut Slirp,
        haddr: *const sockaddr,
        haddrlen: socklen_t,
        gaddr: *const sockaddr,
        gaddrlen: socklen_t,
        flags: c_int,
    ) -> c_int;
    pub(super) fn slirp_handle_timer(slirp: *mut Slirp, id: TimerId, cb_opaque: *mut c_void);
    /// Takes nothing and returns a constant string.
    pub(super) safe fn slirp_version_string() -> *const c_char;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::offset_of;
    use std::path::PathBuf;
    use std::process::Command;
    use std::{env, process};

    use super::*;

    /// One line of C and the number it must print.
    fn offsets() -> Vec<(String, usize)> {
        macro_rules! of {
            ($kind:ident: $($field:ident)*) => {
                [$((
                    concat!("offsetof(", stringify!($kind), ", ", stringify!($field), ")").to_owned(),
                    offset_of!($kind, $field),
                )),*]
            };
        }
        let mut expected = vec![
            ("sizeof(SlirpCb)".to_owned(), size_of::<SlirpCb>()),
            ("sizeof(SlirpConfig)".to_owned(), size_of::<SlirpConfig>()),
            ("sizeof(SlirpTimerId)".to_owned(), size_of::<TimerId>()),
            ("SLIRP_POLL_IN".to_owned(), POLL_IN as usize),
            ("SLIRP_POLL_OUT".to_owned(), POLL_OUT as usize),
            ("SLIRP_POLL_PRI".to_owned(), POLL_PRI as usize),
            ("SLIRP_POLL_ERR".to_owned(), POLL_ERR as usize),
            ("SLIRP_POLL_HUP".to_owned(), POLL_HUP as usize),
            ("SLIRP_HOSTFWD_UDP".to_owned(), HOSTFWD_UDP as usize),
            ("SLIRP_HOSTFWD_V6ONLY".to_owned(), HOSTFWD_V6ONLY as usize),
            // Signed enums would sign-extend to a huge number.
            ("(size_t)((SlirpTimerId)-1 > 0)".to_owned(), 1),
        ];
        expected.extend(of!(SlirpCb:
            send_packet guest_error clock_get_ns timer_new timer_free timer_mod register_poll_fd
            unregister_poll_fd notify init_completed timer_new_opaque));
        expected.extend(of!(SlirpConfig:
            version restricted in_enabled vnetwork vnetmask vhost in6_enabled vprefix_addr6 vprefix_len
            vhost6 vhostname tftp_server_name tftp_path bootfile vdhcp_start vnameserver vnameserver6
            vdnssearch vdomainname if_mtu if_mru disable_host_loopback enable_emu outbound_addr
            outbound_addr6 disable_dns disable_dhcp));
        expected
    }

    /// A folder of this test run, removed with all in it.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn layouts_are_those_of_the_installed_header() {
        let folder = Scratch(env::temp_dir().join(format!("netshunt-slirp-layout-{}", process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let (source, program) = (folder.0.join("layout.c"), folder.0.join("layout"));

        let expected = offsets();
        let prints: String =
            expected.iter().map(|(c, _)| format!("  printf(\"%zu\\n\", (size_t){c});\n")).collect();
        let text = format!(
            "#include <stddef.h>\n#include <stdio.h>\n#include <libslirp.h>\nint main(void) {{\n{prints}  return 0;\n}}\n"
        );
        fs::write(&source, text).unwrap();
        let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let status = Command::new(&compiler)
            .args(["-Wall", "-Werror", "-I", env!("NETSHUNT_SLIRP_INCLUDE"), "-o"])
            .args([&program, &source])
            .status()
            .unwrap_or_else(|error| panic!("{compiler}: {error}; this test needs a C compiler"));
        assert!(status.success(), "{compiler} {}", source.display());

        let output = Command::new(&program).output().unwrap();
        let printed: Vec<usize> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(printed.len(), expected.len());
        for ((what, ours), theirs) in expected.iter().zip(printed) {
            assert_eq!(*ours, theirs, "{what}");
        }
    }
}
