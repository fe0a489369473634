//! Two network namespaces, a cable between them, and a folder for what a test needs.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use crate::files::{compile, copy_program};
use crate::processes::{self, Belongings};
use crate::turns::{Pace, Turn};
use crate::{Launch, Namespace, TestLink, TestUser};

/// The near end of the cable: the host that netshunt runs on.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same in IPv6.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The far end, where servers are; 192.0.2.11 to .13 are too.
pub const FAR4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The same in IPv6.
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// Sets up the near side. `$1` is the far namespace's path.
const HOST_SETUP: &str = "\
ip link set lo up
ip link add near type veth peer name far netns $1
ip address add 192.0.2.1/24 dev near
ip -6 address add 2001:db8::1/64 dev near nodad
ip link set near up
# Both links send echo requests by unprivileged sockets.
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
ip route add default via 192.0.2.10
";

/// Sets up the far side, a router to nowhere: 198.51.100.0/24 and 2001:db8:1::/48 are answered with
/// \"unreachable\", 203.0.113.0/24 and 2001:db8:2::/48 with silence.
const FAR_SETUP: &str = "\
ip link set lo up
for last in 10 11 12 13; do ip address add 192.0.2.$last/24 dev far; done
ip -6 address add 2001:db8::10/64 dev far nodad
ip address add 169.254.169.254/32 dev far
ip link set far up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
# Each refusal counts: no limit on how many are sent.
echo 0 >/proc/sys/net/ipv4/icmp_ratemask
ip route add unreachable 198.51.100.0/24
ip route add blackhole 203.0.113.0/24
ip -6 route add unreachable 2001:db8:1::/48
ip -6 route add blackhole 2001:db8:2::/48
";

/// Once both ends are up.
const HOST_SETUP_LAST: &str = "ip -6 route add default via 2001:db8::10 dev near";

/// The way a guest's connections take in a test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    /// On the host's kernel: `--bypass` names the server.
    Bypass,
    /// Without netshunt: the control.
    Native,
    /// Through the in-process stack and its link.
    Stack,
}

impl Path {
    /// As the flow log names it.
    pub(crate) fn verdict(self) -> Option<&'static str> {
        match self {
            Self::Bypass => Some("bypass"),
            Self::Native => None,
            Self::Stack => Some("stack"),
        }
    }
}

/// A private network for one test. Whatever runs in it is killed when it is dropped.
#[derive(Debug)]
pub struct World {
    /// Where netshunt runs.
    pub host: Namespace,
    /// Where servers run.
    pub far: Namespace,
    user: TestUser,
    link: TestLink,
    folder: TempDir,
    mark: String,
    runs: AtomicUsize,
    pub(crate) services: Mutex<Vec<Child>>,
    /// Given back when all else is gone.
    _turn: Arc<Turn>,
}

impl World {
    /// Makes the namespaces and puts netshunt where its user can read it.
    ///
    /// # Panics
    /// When the harness is not root, or a program or netshunt itself is missing; the message says which.
    #[expect(clippy::new_without_default, reason = "it does far too much to happen by default")]
    pub fn new() -> Self {
        Self::at(Pace::Busy)
    }

    /// The same for a test that mostly waits: more of those go on at once.
    pub fn of_waiting() -> Self {
        Self::at(Pace::Waiting)
    }

    fn at(pace: Pace) -> Self {
        let turn = Turn::take(pace);
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // The dot ends the number: no mark is the start of another.
        let mark = format!("{}-{}.", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new()
            .prefix("netshunt-e2e-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .expect("/tmp is writable");
        let world = Self {
            host: Namespace::new(),
            far: Namespace::new(),
            user: TestUser::from_environment(),
            link: TestLink::from_environment(),
            folder,
            mark,
            runs: AtomicUsize::new(0),
            services: Mutex::default(),
            _turn: turn,
        };
        configure(&world.host, HOST_SETUP, &[&world.far.path()]);
        configure(&world.far, FAR_SETUP, &[]);
        configure(&world.host, HOST_SETUP_LAST, &[]);
        world.install();
        world
    }

    /// A launch of netshunt with both backends, whose guest reaches these TCP ports of the far side by
    /// the given path. Give it a [`Launch::command`].
    pub fn netshunt(&self, path: Path, ports: &[u16]) -> Launch<'_> {
        if path == Path::Native {
            return self.native();
        }
        let mut options = vec!["--net=link,host-bypass".to_owned()];
        if path == Path::Bypass && !ports.is_empty() {
            let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            options.push(format!("--bypass={FAR4}:{ports}/tcp"));
            options.push(format!("--bypass=[{FAR6}]:{ports}/tcp"));
        }
        self.netshunt_with(options)
    }

    /// A launch of netshunt with just these options (and those that report flows and statistics). In
    /// `--net=` the word `link` stands for the link under test.
    pub fn netshunt_with<S: Into<String>>(&self, options: impl IntoIterator<Item = S>) -> Launch<'_> {
        Launch::netshunt(self, self.link.fill_in(options.into_iter().map(Into::into), self))
    }

    /// A launch on the host side without netshunt, as the same user.
    pub fn native(&self) -> Launch<'_> {
        Launch::native(self)
    }

    /// The user that netshunt runs as.
    pub fn user(&self) -> &TestUser {
        &self.user
    }

    /// The link under test.
    pub fn link(&self) -> TestLink {
        self.link
    }

    /// The world's folder. All may read it, root writes it, and it goes when the world does.
    pub fn folder(&self) -> &FilePath {
        self.folder.path()
    }

    /// netshunt, as its user can run it.
    pub(crate) fn binary(&self) -> PathBuf {
        self.folder().join("bin/netshunt")
    }

    /// The kernel library, as netshunt's user can read it.
    pub(crate) fn library(&self) -> PathBuf {
        self.folder().join("lib/netshunt/liblkl.so")
    }

    /// The number of a new run, and a folder that belongs to the user of netshunt.
    pub(crate) fn new_run(&self) -> (String, PathBuf) {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder().join(format!("run-{number}"));
        fs::create_dir(&folder).expect("the number is new");
        self.user.own(&folder);
        (format!("{}{number}.", self.mark), folder)
    }

    /// Every process that this world started, or that is in its namespaces.
    pub(crate) fn belongings(&self) -> Belongings {
        Belongings { mark: self.mark.clone(), namespaces: vec![self.host.inode(), self.far.inode()] }
    }

    /// The living processes of one run, described.
    pub(crate) fn alive(belongings: &Belongings) -> Vec<String> {
        belongings.find().into_iter().map(processes::describe).collect()
    }

    /// A file of `tests/programs`, copied to where the user can read it.
    pub fn program(&self, name: &str) -> String {
        let from = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name);
        let to = self.folder().join(from.file_name().expect("a program has a name"));
        fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("a file of ours");
        to.display().to_string()
    }

    /// The program made of a C source of `tests/programs`, or of all those of a folder there; its path.
    pub fn compile(&self, name: &str) -> String {
        let from = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name);
        let to = self.folder().join(from.file_stem().expect("a program has a name"));
        let sources = match fs::read_dir(&from) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => vec![from],
        };
        if !to.exists() {
            let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "c");
            compile(&sources.into_iter().filter(is_source).collect::<Vec<_>>(), &to);
        }
        to.display().to_string()
    }

    /// A new file of the world's folder with this text; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("a folder of ours");
        path.display().to_string()
    }

    fn install(&self) {
        let beside = |relative: &str| {
            // target/PROFILE/deps/TEST -> target/…
            let own = env::current_exe().expect("/proc is mounted");
            let target = own.ancestors().nth(3).map(FilePath::to_owned).unwrap_or_default();
            let profile = own.ancestors().nth(2).and_then(FilePath::file_name).unwrap_or_default().to_owned();
            target.join(relative.replace("PROFILE", &profile.to_string_lossy()))
        };
        let chosen = |variable: &str, relative: &str| {
            env::var_os(variable).map_or_else(|| beside(relative), PathBuf::from)
        };
        let binary = chosen("NETSHUNT_BIN", "PROFILE/netshunt");
        let library = chosen("NETSHUNT_LKL", "lkl/liblkl.so");
        for (from, to, how) in [
            (binary, self.binary(), "cargo build --release --package netshunt"),
            (library, self.library(), "cargo xtask kernel"),
        ] {
            fs::create_dir_all(to.parent().expect("it lies in a folder")).expect("a folder of ours");
            // Hundreds of copies in a run would be gigabytes.
            let linked = fs::canonicalize(&from).and_then(|from| fs::hard_link(from, &to));
            // A test of the harness alone needs neither; whoever needs it finds the message below.
            if linked.is_err() && !copy_program(&from, &to) {
                eprintln!("no {}: `{how}` makes it", from.display());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let gone = self.belongings().kill();
        for mut service in self.services.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = service.wait();
        }
        if !gone && !std::thread::panicking() {
            panic!("these survive SIGKILL: {:?}", Self::alive(&self.belongings()));
        }
    }
}

/// Runs a shell script inside a namespace.
fn configure(namespace: &Namespace, script: &str, arguments: &[&str]) {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", namespace.path()))
        .args(["sh", "-eu", "-c", script, "setup"])
        .args(arguments)
        .env("PATH", crate::launch::PATH)
        .stdin(Stdio::null())
        .output()
        .expect("util-linux has nsenter");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// For messages and addresses: both families of the far side.
pub(crate) const FAR: [IpAddr; 2] = [IpAddr::V4(FAR4), IpAddr::V6(FAR6)];
