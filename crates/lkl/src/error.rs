//! What can go wrong before the first packet.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

/// Errors of finding, loading and booting the kernel library. Sockets answer [`io::Error`] with
/// Linux's errno.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This process has booted this library before; a kernel boots once.
    #[error("the kernel library was booted before in this process")]
    AlreadyBooted,
    /// The kernel did not start.
    #[error("the kernel library does not boot with {memory} bytes of memory")]
    Boot {
        /// What it was given.
        memory: usize,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Somebody else could replace the library, and we are root.
    #[error("{} may be written by anybody: as root, netshunt does not load a library from there", .path.display())]
    Insecure {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file is not a library that can be loaded.
    #[error("cannot load the kernel library {}", .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker said.
        #[source]
        source: libloading::Error,
    },
    /// The host has no address space for the kernel's memory.
    #[error("cannot reserve {bytes} bytes for the kernel's memory")]
    Memory {
        /// What was asked for.
        bytes: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no library.
    #[error("there is no kernel library{}; build it with `cargo xtask kernel`", listed(.looked))]
    Missing {
        /// Where it was looked for, in this order.
        looked: Vec<PathBuf>,
    },
    /// The network device could not be added.
    #[error("cannot add a network device to the kernel")]
    Nic {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The library was built for another version of this crate.
    #[error(
        "the kernel library {} speaks version {found} of the interface, this program {wanted}; \
         build it anew with `cargo xtask kernel`",
        .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        wanted: u32,
    },
}

fn listed(looked: &[PathBuf]) -> String {
    let mut text = String::new();
    for path in looked {
        let separator = if text.is_empty() { " at " } else { ", " };
        write!(text, "{separator}{}", path.display()).expect("a String takes everything");
    }
    text
}
