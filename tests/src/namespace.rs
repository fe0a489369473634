//! A network namespace without a name: it lives as long as its descriptor, or a process in it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u64,
}

impl Namespace {
    /// Makes one. Needs CAP_SYS_ADMIN.
    pub(crate) fn new() -> Self {
        // A thread has a namespace of its own once it asks for one; only its descriptor stays.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect(
                "the end-to-end tests make network namespaces, for which they must be root: `cargo xtask test`",
            );
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        });
        let file = made.join().expect("the message above says what is wrong");
        let inode = file.metadata().expect("an open file").ino();
        Self { file, inode }
    }

    /// A path by which another process of this user reaches the namespace while we live.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// By which `/proc/PID/ns/net` tells its members.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Does something inside, on a thread of its own. Sockets made there stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
