//! AF_UNIX: connect(2) and sends with an address have a verdict of their own, as services behind
//! path names are deputies that may reach the network, or start programs, for their callers.
//!
//! The verdict is on the socket: a guest can give its file another name (rename(2), link(2), a
//! bind mount), so the name it was bound with counts as well, and a socket is a guest's own by its
//! cookie, not by a name that may be an outsider's by now.
//!
//! The connect is performed by the supervisor on the very socket file that was judged: a continued
//! call reads the path again, and the guest may have changed it. The listener then sees the
//! supervisor's process in SO_PEERCRED.

use std::collections::{HashSet, VecDeque};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netshunt_notify::{Features, Notification};
use netshunt_policy::{UnixName, UnixPolicy, UnixVerdict};
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use nix::sys::stat::{FileStat, Mode, fstat, major, minor, umask};
use nix::unistd::{AccessFlags, access};
use tracing::warn;

use super::connect::{read_address, send_timeout};
use super::{Calls, Subject, errno};
use crate::address::Address;
use crate::pending::answer;
use crate::sockets::Cookie;
use crate::sys;
use crate::unix_diag::{self, Bound};

/// The sockets that guests have bound or made to listen.
#[derive(Debug, Default)]
struct Inside {
    cookies: HashSet<Cookie>,
    order: VecDeque<Cookie>,
}

/// Sockets made inside that are remembered at most; the oldest is forgotten, and then refused as
/// an outsider's would be.
const MOST: usize = 65_536;

/// Names that are reported at most.
const MOST_TOLD: usize = 256;

impl Inside {
    fn insert(&mut self, cookie: Cookie) {
        if !self.cookies.insert(cookie) {
            return;
        }
        self.order.push_back(cookie);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.cookies.remove(&oldest);
        }
    }
}

/// Judges and performs calls on AF_UNIX sockets. Looking up a guest's path may wait for as long as
/// a file system of its own pleases (FUSE), so that is done on threads that may.
#[derive(Debug)]
pub(crate) struct Gate {
    policy: UnixPolicy,
    inside: Mutex<Inside>,
    /// The names to which datagrams were refused.
    told: Mutex<HashSet<String>>,
    /// Whether Landlock refuses a guest's own TCP bind and connect (ABI 4, Linux 6.7).
    landlock: bool,
}

/// Why a connect may be performed, which says what is left to check afterwards.
#[derive(Debug)]
enum Admitted {
    /// Whatever it reaches.
    Anything,
    /// The guests' own socket.
    Inside(Cookie),
    /// An outsider's, by its names.
    Outside,
}

/// What a name leads to. A file's socket stays the same as long as this lives.
pub(super) enum Target {
    Abstract(Vec<u8>),
    File { path: PathBuf, file: OwnedFd, stat: FileStat },
}

impl Calls {
    pub(super) fn connect_unix(&self, notification: Notification, subject: Subject, address: Vec<u8>) {
        let name = match Address::parse(&address) {
            // Without a name (unix_validate_addr()).
            Some(Address::Unix(name)) if name.is_empty() => return notification.fail(libc::EINVAL),
            Some(Address::Unix(name)) => name,
            // Dissolves the association of a datagram socket.
            Some(Address::Unspec) => return self.natively(notification, subject, address),
            Some(_) | None => return notification.fail(libc::EINVAL),
        };
        let gate = self.unix.clone();
        let tid = notification.tid().0;
        let (thread, timed) = (subject.thread.clone(), send_timeout(&subject).is_some());
        self.off_the_loop(notification, thread, timed, move || gate.connect(tid, &subject, &name));
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
            Some(1..) if gate.policy != UnixPolicy::Inside && gate.landlock => {
                match gate.unbound(&subject) {
                    Ok(unbound) => gate.remember(unbound),
                    Err(errno) => return notification.fail(errno),
                }
                notification.proceed();
            }
            Some(1..) => {
                let thread = subject.thread.clone();
                self.off_the_loop(notification, thread, false, move || gate.bind_file(&subject, &name));
            }
            None | Some(0) => answer(notification, gate.bind_abstract(&subject, &address)),
        }
    }
}

impl Gate {
    pub(crate) fn new(policy: UnixPolicy, features: &Features) -> Self {
        let landlock = features.landlock_abi.is_some_and(|abi| abi >= 4);
        Gate { policy, inside: Mutex::default(), told: Mutex::default(), landlock }
    }

    /// Connects to what the name leads to, if it may. Waits while the listener's queue is full, as
    /// connect(2) does.
    fn connect(&self, tid: i32, subject: &Subject, name: &[u8]) -> Result<(), i32> {
        let target = self.target(subject, name)?;
        let refused = |why: &'static str| {
            warn!(pid = tid, socket = %target, why, "denied");
            libc::ECONNREFUSED
        };
        let admitted = self.judge(subject, &target).map_err(refused)?;
        target.connect(subject).map_err(|e| errno(&e))?;
        self.check(subject, &target, &admitted).map_err(|why| {
            dissolve(subject);
            refused(why)
        })
    }

    /// What a datagram for that name may be sent to.
    ///
    /// An abstract name that the guests have bound can change hands before the datagram is sent; the
    /// file of a path name cannot.
    pub(super) fn destination(&self, tid: i32, subject: &Subject, name: &[u8]) -> Result<Target, i32> {
        let target = self.target(subject, name)?;
        let refused = |why: &'static str| {
            // Once for each: a log that is refused is written to over and over.
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < MOST_TOLD && told.insert(target.to_string()) {
                warn!(pid = tid, socket = %target, why, "datagrams denied");
            }
            libc::ECONNREFUSED
        };
        match (self.judge(subject, &target).map_err(refused)?, &target) {
            (Admitted::Anything | Admitted::Inside(_), _) => {}
            (Admitted::Outside, Target::Abstract(_)) => {
                return Err(refused("an abstract name of the outside"));
            }
            (Admitted::Outside, Target::File { .. }) => {
                // A lookup cannot see every socket; unlike a connection, a datagram cannot be taken
                // back. So a socket of ours connects there first, and says what it found.
                let probe = UnixDatagram::unbound().map_err(|e| errno(&e))?;
                match sys::connect_raw(probe.as_fd(), &target.address()?) {
                    Ok(()) => {
                        let name = sys::unix_peer(probe.as_fd()).map_err(|e| errno(&e))?;
                        self.judge_bound(&target, name.strip_suffix(&[0]).unwrap_or(&name))
                            .map_err(refused)?;
                    }
                    // It listens to one peer only: this socket, or it will be refused too.
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
                    Err(error) => return Err(errno(&error)),
                }
            }
        }
        Ok(target)
    }

    /// Looks sockets up only where that can change the verdict.
    fn judge(&self, subject: &Subject, target: &Target) -> Result<Admitted, &'static str> {
        if self.policy == UnixPolicy::Allow {
            return Ok(Admitted::Anything);
        }
        let verdict = |name: UnixName<'_>| match self.policy.judge(name, false) {
            UnixVerdict::Allow => Ok(()),
            UnixVerdict::Deny(why) => Err(why),
        };
        let by_name = match target {
            // Such names belong to a network namespace; one that a guest made has no outsiders.
            Target::Abstract(_) if is_foreign(subject) => return Ok(Admitted::Anything),
            Target::Abstract(name) => verdict(UnixName::Abstract(name)),
            Target::File { path, .. } => verdict(UnixName::Path(path)),
        };
        if by_name.is_err() && self.lock().cookies.is_empty() {
            return by_name.map(|()| Admitted::Outside);
        }
        let (found, certain) = target.sockets(subject).map_err(|error| {
            warn!(%error, "cannot look up sockets (unix_diag)");
            "its socket could not be looked up"
        })?;
        {
            let inside = self.lock();
            let mut cookies = found.iter().map(|bound| Cookie(bound.cookie));
            if let (true, Some(first)) = (certain, cookies.next())
                && inside.cookies.contains(&first)
                && cookies.all(|cookie| inside.cookies.contains(&cookie))
            {
                return Ok(Admitted::Inside(first));
            }
        }
        by_name?;
        // A file without a socket here: nobody serves it, or a process in another network namespace
        // does, as whatever it is. Only who named the path himself may know.
        if found.is_empty() && matches!(target, Target::File { .. }) && !self.names_paths() {
            return Err("no socket of this network namespace is bound to it");
        }
        found.iter().try_for_each(|bound| self.judge_bound(target, &bound.name))?;
        Ok(Admitted::Outside)
    }

    fn names_paths(&self) -> bool {
        matches!(self.policy, UnixPolicy::Paths(_))
    }

    /// Judges the name a socket file was bound with.
    fn judge_bound(&self, target: &Target, name: &[u8]) -> Result<(), &'static str> {
        let Target::File { path, .. } = target else { return Ok(()) };
        let name = Path::new(OsStr::from_bytes(name));
        if name.is_absolute() {
            return match self.policy.judge(UnixName::Path(name), false) {
                UnixVerdict::Allow => Ok(()),
                UnixVerdict::Deny(why) => Err(why),
            };
        }
        // Relative to a folder that nobody knows any more. What remains: under its old last name,
        // in another folder, it is judged by that folder.
        let name: PathBuf = name.components().filter(|part| *part != Component::CurDir).collect();
        if path.ends_with(&name) { Ok(()) } else { Err("bound under another name, a relative one") }
    }

    /// Whether what was connected is what was judged: an abstract name can change hands, and a
    /// lookup cannot see every socket. What remains: until this has answered, the listener could
    /// accept, and another thread of the guest send on, the connection.
    fn check(&self, subject: &Subject, target: &Target, admitted: &Admitted) -> Result<(), &'static str> {
        let changed = "its name changed hands";
        match (target, admitted) {
            // A file's socket stays the same while we hold the file.
            (_, Admitted::Anything) | (Target::File { .. }, Admitted::Inside(_)) => Ok(()),
            (Target::File { .. }, Admitted::Outside) => {
                let name = sys::unix_peer(subject.fd()).map_err(|_| changed)?;
                self.judge_bound(target, name.strip_suffix(&[0]).unwrap_or(&name))
            }
            (Target::Abstract(_), Admitted::Outside) => Err(changed),
            (Target::Abstract(_), Admitted::Inside(judged)) => {
                let kind = sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_TYPE);
                let same = if kind.is_ok_and(|kind| kind == libc::SOCK_DGRAM) {
                    // No two have a name at a time: if it has it now, it had it all the time.
                    let (found, _) = target.sockets(subject).map_err(|_| changed)?;
                    found.iter().any(|bound| bound.cookie == judged.0)
                } else {
                    // Every listen(2) of a guest is performed by this process, and unix(7) says
                    // who did that; the name itself may be gone again by now.
                    getsockopt(&subject.fd(), PeerCredentials)
                        .is_ok_and(|peer| u32::try_from(peer.pid()) == Ok(std::process::id()))
                };
                if same { Ok(()) } else { Err(changed) }
            }
        }
    }

    /// listen(2) on a guest's AF_UNIX socket. One that listened before came from outside.
    pub(super) fn listen(&self, subject: &Subject, backlog: i32) -> Result<(), i32> {
        let listens = sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
        sys::listen(subject.fd(), backlog).map_err(|e| errno(&e))?;
        let fresh = listens.is_ok_and(|listens| listens == 0);
        self.remember(fresh.then_some(subject.cookie));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing panics half-way through a change.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, cookie: Option<Cookie>) {
        if let Some(cookie) = cookie {
            self.lock().insert(cookie);
        }
    }

    /// The socket's cookie if it has no name yet: one that has, an outsider may have bound.
    fn unbound(&self, subject: &Subject) -> Result<Option<Cookie>, i32> {
        let name = sys::unix_name(subject.fd()).map_err(|e| errno(&e))?;
        Ok(name.is_empty().then_some(subject.cookie))
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
            // Permission comes first (unix_find_bsd() of net/unix/af_unix.c).
            let writable = access(&own_path(&file), AccessFlags::W_OK);
            return Err(writable.map_or_else(|e| e as i32, |()| libc::ECONNREFUSED));
        }
        let path = std::fs::read_link(own_path(&file)).map_err(|e| errno(&e))?;
        Ok(Target::File { path, file, stat })
    }

    /// The call is performed with our credentials: a guest of another user must not borrow them.
    fn same_user(&self, subject: &Subject) -> Result<(), i32> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let status = subject.thread.status().map_err(|e| errno(&e))?;
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
        let unbound = self.unbound(subject)?;
        sys::bind_raw(subject.fd(), address).map_err(|e| errno(&e))?;
        self.remember(unbound);
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
        let unbound = self.unbound(subject)?;
        let before = umask(mask);
        let bound = sys::bind_raw(subject.fd(), &unix_address(&made)?);
        umask(before);
        bound.map_err(|e| errno(&e))?;
        self.remember(unbound);
        Ok(())
    }
}

impl Target {
    fn connect(&self, subject: &Subject) -> io::Result<()> {
        let address = self.address().map_err(io::Error::from_raw_os_error)?;
        sys::connect_raw(subject.fd.as_fd(), &address)
    }

    /// An address of ours for it.
    pub(super) fn address(&self) -> Result<Vec<u8>, i32> {
        match self {
            Target::Abstract(name) => Ok([&(libc::AF_UNIX as u16).to_ne_bytes()[..], &[0], name].concat()),
            Target::File { file, .. } => unix_address(&own_path(file)),
        }
    }

    /// The sockets that it may be, and whether it is certain that it is among them. Where a file's
    /// device cannot be compared, these are all whose inode has that number.
    fn sockets(&self, subject: &Subject) -> io::Result<(Vec<Bound>, bool)> {
        let (file, stat) = match self {
            Target::Abstract(name) => {
                let kind = sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_TYPE)?;
                let name = [&[0], name.as_slice()].concat();
                return Ok((unix_diag::find(|b| b.kind == kind && b.name == name)?, true));
            }
            Target::File { file, stat, .. } => (file, stat),
        };
        // `ino`, since Linux 5.14, is the number that the kernel tells of sockets.
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let field = |key: &str| info.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        let inode = field("ino:").and_then(|i| i.parse().ok()).unwrap_or(stat.st_ino);
        let mut found = unix_diag::find(|b| b.file.is_some_and(|f| f.inode == inode as u32))?;
        let on = |bound: &Bound, device| bound.file.is_some_and(|f| f.device == device);
        let shown = unix_diag::device(major(stat.st_dev), minor(stat.st_dev));
        if found.is_empty() || found.iter().any(|bound| on(bound, shown)) {
            found.retain(|bound| on(bound, shown));
            return Ok((found, true));
        }
        // btrfs and overlayfs show devices of their own making; mountinfo has the real one.
        let mount = field("mnt_id:").unwrap_or_default();
        let tables = [subject.thread.proc_path("mountinfo"), PathBuf::from("/proc/self/mountinfo")];
        let Some(device) = tables.iter().find_map(|table| mounted(table, mount)) else {
            return Ok((found, false));
        };
        found.retain(|bound| on(bound, device));
        Ok((found, true))
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

/// The device of the file system on `mount`, by a proc_pid_mountinfo(5).
fn mounted(table: &Path, mount: &str) -> Option<u32> {
    let table = std::fs::read(table).ok()?;
    let mut lines = table.split(|b| *b == b'\n').map(|l| l.split(|b| *b == b' '));
    let mut line = lines.find_map(|mut l| (l.next()? == mount.as_bytes()).then_some(l))?;
    let (major, minor) = std::str::from_utf8(line.nth(1)?).ok()?.split_once(':')?;
    Some(unix_diag::device(major.parse().ok()?, minor.parse().ok()?))
}

/// Whether the socket is of a network namespace that is not ours. SO_NETNS_COOKIE: Linux 5.14.
fn is_foreign(subject: &Subject) -> bool {
    let own = UnixDatagram::unbound().and_then(|own| sys::cookie(own.as_fd(), libc::SO_NETNS_COOKIE));
    let its = sys::cookie(subject.fd(), libc::SO_NETNS_COOKIE);
    matches!((own, its), (Ok(own), Ok(its)) if own != its)
}

/// Ends a connection that should not have been: a datagram socket can connect again, a stream
/// is of no more use.
fn dissolve(subject: &Subject) {
    let _ = sys::disconnect(subject.fd());
    let _ = shutdown(subject.fd().as_raw_fd(), Shutdown::Both);
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
///
/// Always from that root, which neither `..` nor an absolute link leaves then, and without magic links: in
/// /proc, `self` is us here.
fn open_as_guest(subject: &Subject, path: &CString) -> io::Result<OwnedFd> {
    let place = |name: &str| {
        let link = subject.thread.proc_path(name);
        let folder = sys::open_path(nix::fcntl::AT_FDCWD, &c_string(&link)?)?;
        io::Result::Ok((link, folder))
    };
    let (root_link, root) = place("root")?;
    if path.as_bytes().starts_with(b"/") {
        return sys::open_path_in(root.as_fd(), path);
    }
    let (link, folder) = place("cwd")?;
    match way_down(&root_link, &root, &link, &folder) {
        Some(way) => {
            sys::open_path_in(root.as_fd(), &c_string(&way.join(OsStr::from_bytes(path.as_bytes())))?)
        }
        // Not below its root, or deleted: nothing is above it then.
        None => sys::open_path_in(folder.as_fd(), path),
    }
}

/// The name of a thread's working directory below its root, if that does lead there.
fn way_down(root_link: &Path, root: &OwnedFd, link: &Path, folder: &OwnedFd) -> Option<PathBuf> {
    let name = std::fs::read_link(link).ok()?;
    let way = name.strip_prefix(std::fs::read_link(root_link).ok()?).ok()?;
    let way = Path::new(".").join(way);
    let found = sys::open_path_in(root.as_fd(), &c_string(&way).ok()?).ok()?;
    let (found, wanted) = (fstat(&found).ok()?, fstat(folder).ok()?);
    ((found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)).then_some(way)
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
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
    let status = subject.thread.status()?;
    let mask = status.lines().find_map(|l| l.strip_prefix("Umask:")).unwrap_or("0022").trim();
    let bits = u32::from_str_radix(mask, 8).map_err(io::Error::other)?;
    Ok(Mode::from_bits_truncate(bits))
}
