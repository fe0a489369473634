//! What can go wrong before the first notification.

use std::io;

use crate::KernelVersion;

/// Errors of detecting features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The running kernel is older than the floor.
    #[error("Linux {found} is too old: seccomp notifications need {needed}")]
    KernelTooOld {
        /// The running kernel.
        found: KernelVersion,
        /// The oldest that works.
        needed: KernelVersion,
    },
    /// The kernel's notification is larger than ours.
    #[error("this kernel's seccomp notification has {found} bytes, this program knows {known}")]
    NotifSizes {
        /// The kernel's `seccomp_notif`, in bytes.
        found: usize,
        /// Ours, in bytes.
        known: usize,
    },
    /// A probe of the kernel failed.
    #[error("cannot ask the kernel for {what}")]
    Probe {
        /// What was asked.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
