//! What the running kernel offers, found out by asking it.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use crate::{Error, sys};

/// The version of a Linux kernel: `6.1` in `6.1.0-28-amd64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelVersion {
    /// Oldest kernel that can send a descriptor and answer in one step (`SECCOMP_ADDFD_FLAG_SEND`).
    pub const FLOOR: KernelVersion = KernelVersion { major: 5, minor: 14 };
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for KernelVersion {
    type Err = io::Error;

    /// Reads a release as uname(2) gives it.
    fn from_str(release: &str) -> io::Result<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("kernel release `{release}`")));
        };
        Ok(KernelVersion { major, minor })
    }
}

/// What this kernel can do for us. All but the floor is optional: see [`missing`](Features::missing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// The running kernel.
    pub kernel: KernelVersion,
    /// Guest and supervisor take turns on one processor (6.6).
    pub sync_wake_up: bool,
    /// A signal does not take a notification back once it was received (5.19).
    pub wait_killable: bool,
    /// A thread that does not lead its process has a pidfd of its own (6.9).
    pub pidfd_thread: bool,
    /// Landlock's ABI, if the kernel has it and it is switched on.
    pub landlock_abi: Option<u32>,
    /// Yama's `kernel.yama.ptrace_scope`, if the kernel has it.
    pub yama_ptrace_scope: Option<u8>,
}

/// Something this kernel lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Its name in the kernel's headers or settings.
    pub name: &'static str,
    /// The first kernel that has it, or `None` if it is a setting.
    pub since: Option<KernelVersion>,
    /// What the user loses.
    pub lost: &'static str,
}

impl Features {
    /// Asks the running kernel. A few system calls; nothing is changed.
    ///
    /// # Errors
    /// [`Error::KernelTooOld`] below Linux 5.14, [`Error::NotifSizes`] if the kernel's notification
    /// has outgrown ours, [`Error::Probe`] if it cannot be asked at all.
    pub fn detect() -> Result<Features, Error> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease");
        let kernel = release
            .and_then(|release| release.parse::<KernelVersion>())
            .map_err(|source| Error::Probe { what: "its version", source })?;
        if kernel < KernelVersion::FLOOR {
            return Err(Error::KernelTooOld { found: kernel, needed: KernelVersion::FLOOR });
        }
        let sizes = sys::notif_sizes()
            .map_err(|source| Error::Probe { what: "its seccomp notifications", source })?;
        let (found, known) = (usize::from(sizes.seccomp_notif), size_of::<libc::seccomp_notif>());
        if found > known {
            return Err(Error::NotifSizes { found, known });
        }
        Ok(Features {
            kernel,
            // Only a listener could be asked; the flag is set with its EINVAL ignored.
            sync_wake_up: kernel >= KernelVersion { major: 6, minor: 6 },
            wait_killable: sys::knows_filter_flags(
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            ),
            pidfd_thread: sys::pidfd_open(nix::unistd::gettid().as_raw(), sys::PIDFD_THREAD).is_ok(),
            landlock_abi: sys::landlock_abi().ok(),
            yama_ptrace_scope: fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
                .ok()
                .and_then(|scope| scope.trim().parse().ok()),
        })
    }

    /// What is absent, and what that costs; empty on a recent kernel with Landlock.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let since = |major, minor| Some(KernelVersion { major, minor });
        let all = [
            (
                self.wait_killable,
                Missing {
                    name: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                    since: since(5, 19),
                    lost: "a guest that gets signals all the time may have its calls restarted over and over",
                },
            ),
            (
                self.sync_wake_up,
                Missing {
                    name: "SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP",
                    since: since(6, 6),
                    lost: "speed: a mediated call may wait for another processor to wake up",
                },
            ),
            (
                self.pidfd_thread,
                Missing {
                    name: "PIDFD_THREAD",
                    since: since(6, 9),
                    lost: "threads with a descriptor table of their own, or whose leader has exited, \
                           get EBADF or ESRCH from mediated calls",
                },
            ),
            (
                self.landlock_abi.is_some_and(|abi| abi >= 4),
                Missing {
                    name: "Landlock ABI 4",
                    since: since(6, 7),
                    lost: "the second line of defence: a domain without TCP and without ptrace out of it (or \
                           Landlock is switched off: see `lsm=` on the kernel's command line)",
                },
            ),
            (
                self.landlock_abi.is_some_and(|abi| abi >= 6),
                Missing {
                    name: "Landlock ABI 6",
                    since: since(6, 12),
                    lost: "the second line of defence for signals and abstract sockets out of the domain",
                },
            ),
            (
                self.yama_ptrace_scope.is_none_or(|scope| scope < 2),
                Missing {
                    name: "kernel.yama.ptrace_scope below 2",
                    since: None,
                    lost: "everything: without ptrace rights no guest descriptor can be taken",
                },
            ),
        ];
        all.into_iter().filter(|(present, _)| !present).map(|(_, missing)| missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_uname_gives_them() {
        for (release, major, minor) in
            [("6.1.0-28-amd64", 6, 1), ("5.14", 5, 14), ("6.18-rc3+", 6, 18), ("7.0.1\n", 7, 0)]
        {
            assert_eq!(release.parse::<KernelVersion>().unwrap(), KernelVersion { major, minor });
        }
        assert!("six".parse::<KernelVersion>().is_err());
        assert!(KernelVersion { major: 5, minor: 4 } < KernelVersion::FLOOR);
        assert!(KernelVersion { major: 6, minor: 0 } > KernelVersion::FLOOR);
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut features = Features::detect().unwrap();
        features.wait_killable = false;
        features.landlock_abi = None;
        features.yama_ptrace_scope = Some(3);
        let names: Vec<_> = features.missing().iter().map(|missing| missing.name).collect();
        assert!(names.contains(&"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"), "{names:?}");
        assert!(names.contains(&"Landlock ABI 4"), "{names:?}");
        assert!(names.contains(&"kernel.yama.ptrace_scope below 2"), "{names:?}");
    }
}
