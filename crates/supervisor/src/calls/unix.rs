//! AF_UNIX: connect(2) has a verdict of its own, as services behind path names are deputies that
//! may reach the network, or start programs, for their callers.
//!
//! The connect is performed by the supervisor on the very socket file that was judged: a continued
//! call reads the path again, and the guest may have changed it. The listener then sees the
//! supervisor's process in SO_PEERCRED.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use netshunt_notify::{Features, Notification};
use netshunt_policy::{UnixName, UnixPolicy, UnixVerdict};
use nix::sys::stat::{FileStat, Mode, fstat, umask};
use tracing::warn;

use super::connect::read_address;
use super::{Calls, Subject, errno};
use crate::address::Address;
use crate::pending::answer;
use crate::sys;

/// The listening sockets that guests have bound.
#[derive(Debug, Default)]
struct Inside {
    abstracts: HashSet<Vec<u8>>,
    /// Device and inode of their socket files.
    files: HashSet<(u64, u64)>,
}

/// Names of sockets made inside that are remembered at most; the next bind(2) is refused.
const MOST: usize = 65_536;

/// Judges and performs calls on AF_UNIX sockets. Looking up a guest's path may wait for as long as
/// a file system of its own pleases (FUSE), so that is done on threads that may.
#[derive(Debug)]
pub(crate) struct Gate {
    policy: UnixPolicy,
    inside: Mutex<Inside>,
    /// Whether Landlock refuses a guest's own TCP bind and connect (ABI 4, Linux 6.7).
    landlock: bool,
}

/// What a name leads to.
enum Target {
    Abstract(Vec<u8>),
    File { path: PathBuf, file: OwnedFd, stat: FileStat },
}

impl Calls {
    pub(super) fn connect_unix(&self, notification: Notification, subject: Subject, address: Vec<u8>) {
        let name = match Address::parse(&address) {
            Some(Address::Unix(name)) => name,
            // Dissolves the association of a datagram socket.
            Some(Address::Unspec) => return self.natively(notification, subject, address),
            Some(_) | None => return notification.fail(libc::EINVAL),
        };
        let gate = self.unix.clone();
        let tid = notification.tid().0;
        self.off_the_loop(notification, move || gate.connect(tid, &subject, &name));
    }

    /// bind(2) makes a name; no verdict, but what was made inside is remembered.
    pub(super) fn bind_unix(&self, notification: Notification, subject: Subject) {
        let address = match read_address(&notification, 1, 2) {
            Ok(address) => address,
            Err(errno) => return notification.fail(errno),
        };
        let Some(Address::Unix(name)) = Address::parse(&address) else {
            return notification.fail(libc::EINVAL);
        };
        let gate = self.unix.clone();
        match name.first() {
            // A continued bind can only be diverted to another name, or to an internet socket,
            // which Landlock stops. The file then has the guest's owner and mode without our help.
            Some(1..) if gate.policy != UnixPolicy::Inside && gate.landlock => notification.proceed(),
            Some(1..) => self.off_the_loop(notification, move || gate.bind_file(&subject, &name)),
            None | Some(0) => answer(notification, gate.bind_abstract(&subject, &address)),
        }
    }
}

impl Gate {
    pub(crate) fn new(policy: UnixPolicy, features: &Features) -> Self {
        let landlock = features.landlock_abi.is_some_and(|abi| abi >= 4);
        Gate { policy, inside: Mutex::default(), landlock }
    }

    /// Connects to what the name leads to, if it may. Waits while the listener's queue is full, as
    /// connect(2) does.
    fn connect(&self, tid: i32, subject: &Subject, name: &[u8]) -> Result<(), i32> {
        let target = self.target(subject, name)?;
        self.judge(tid, &target)?;
        target.connect(subject).map_err(|e| errno(&e))
    }

    fn judge(&self, tid: i32, target: &Target) -> Result<(), i32> {
        let verdict = {
            let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
            match target {
                Target::Abstract(name) => {
                    self.policy.judge(UnixName::Abstract(name), inside.abstracts.contains(name))
                }
                Target::File { path, stat, .. } => self
                    .policy
                    .judge(UnixName::Path(path), inside.files.contains(&(stat.st_dev, stat.st_ino))),
            }
        };
        match verdict {
            UnixVerdict::Allow => Ok(()),
            UnixVerdict::Deny(why) => {
                warn!(pid = tid, socket = %target, why, "denied");
                Err(libc::ECONNREFUSED)
            }
        }
    }

    /// Finds the socket file a name leads to, as the guest's thread would.
    fn target(&self, subject: &Subject, name: &[u8]) -> Result<Target, i32> {
        if let Some((0, rest)) = name.split_first() {
            return Ok(Target::Abstract(rest.to_vec()));
        }
        let path = c_path(name)?;
        self.same_user(subject)?;
        let file = open_as_guest(subject, &path).map_err(|e| errno(&e))?;
        let stat = fstat(&file).map_err(|e| e as i32)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK {
            return Err(libc::ECONNREFUSED);
        }
        let path = std::fs::read_link(own_path(&file)).map_err(|e| errno(&e))?;
        Ok(Target::File { path, file, stat })
    }

    /// The call is performed with our credentials: a guest of another user must not borrow them.
    fn same_user(&self, subject: &Subject) -> Result<(), i32> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let status = std::fs::read_to_string(subject.thread.proc_path("status")).map_err(|e| errno(&e))?;
        let fs_id = |key: &str| {
            status
                .lines()
                .find_map(|l| l.strip_prefix(key))
                .and_then(|l| l.split_whitespace().nth(3)?.parse().ok())
        };
        match (fs_id("Uid:"), fs_id("Gid:")) {
            (Some(0u32), Some(_)) => Ok(()),
            _ => Err(libc::EACCES),
        }
    }

    fn bind_abstract(&self, subject: &Subject, address: &[u8]) -> Result<(), i32> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.abstracts.len() >= MOST {
            return Err(libc::ENOBUFS);
        }
        sys::bind_raw(subject.fd(), address).map_err(|e| errno(&e))?;
        let name = sys::unix_name(subject.fd()).map_err(|e| errno(&e))?;
        if let Some((0, name)) = name.split_first() {
            inside.abstracts.insert(name.to_vec());
        }
        Ok(())
    }

    fn bind_file(&self, subject: &Subject, name: &[u8]) -> Result<(), i32> {
        let path = c_path(name)?;
        self.same_user(subject)?;
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let file = path.file_name().ok_or(libc::EADDRINUSE)?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let parent = CString::new(parent.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
        let parent = open_as_guest(subject, &parent).map_err(|e| errno(&e))?;
        let made = own_path(&parent).join(file);
        let mask = guest_umask(subject).map_err(|e| errno(&e))?;
        // The umask is per process unless a thread takes its own, as this one does, for good.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).map_err(|e| e as i32)?;
        let before = umask(mask);
        let bound = sys::bind_raw(subject.fd(), &unix_address(&made)?);
        umask(before);
        bound.map_err(|e| errno(&e))?;
        let stat = nix::sys::stat::lstat(&made).map_err(|e| e as i32)?;
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.files.len() < MOST {
            inside.files.insert((stat.st_dev, stat.st_ino));
        }
        Ok(())
    }
}

impl Target {
    fn connect(&self, subject: &Subject) -> io::Result<()> {
        let address = match self {
            Target::Abstract(name) => [&(libc::AF_UNIX as u16).to_ne_bytes()[..], &[0], name].concat(),
            Target::File { file, .. } => {
                unix_address(&own_path(file)).map_err(io::Error::from_raw_os_error)?
            }
        };
        sys::connect_raw(subject.fd.as_fd(), &address)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            Target::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// The path in a `sun_path`, which may or may not end with a zero byte.
fn c_path(name: &[u8]) -> Result<CString, i32> {
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    if end == 0 {
        return Err(libc::ECONNREFUSED);
    }
    CString::new(&name[..end]).map_err(|_| libc::EINVAL)
}

/// Opens what the guest's thread means by `path`: under its root and working directory.
fn open_as_guest(subject: &Subject, path: &CString) -> io::Result<OwnedFd> {
    let absolute = path.as_bytes().starts_with(b"/");
    let base = subject.thread.proc_path(if absolute { "root" } else { "cwd" });
    let base = CString::new(base.into_os_string().into_vec())?;
    let base = sys::open_path(nix::fcntl::AT_FDCWD, &base)?;
    sys::open_path_in(base.as_fd(), path, absolute)
}

fn own_path(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unix_address(path: &Path) -> Result<Vec<u8>, i32> {
    let path = path.as_os_str().as_bytes();
    // `sun_path` has 108 bytes, the last one zero here.
    if path.len() > 107 {
        return Err(libc::ENAMETOOLONG);
    }
    Ok([&(libc::AF_UNIX as u16).to_ne_bytes()[..], path, &[0]].concat())
}

fn guest_umask(subject: &Subject) -> io::Result<Mode> {
    let status = std::fs::read_to_string(subject.thread.proc_path("status"))?;
    let mask = status.lines().find_map(|l| l.strip_prefix("Umask:")).unwrap_or("0022").trim();
    let bits = u32::from_str_radix(mask, 8).map_err(io::Error::other)?;
    Ok(Mode::from_bits_truncate(bits))
}
