//! Killed at any moment, netshunt and its command leave nothing behind: no process, no socket, no
//! address, no file.

/// The supervisor's own list: what is listed there and never comes fails here.
#[path = "../../crates/supervisor/src/points.rs"]
mod points;

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netshunt_tests::{DEADLINE, FAR4, Running, World, is_nightly, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

const STACK_PORT: u16 = 7001;
const BYPASS_PORT: u16 = 9001;
const CLOSED_PORT: &str = "7999";
const SILENT: &str = "203.0.113.1";

/// Sockets that were closed may live on in the kernel for some retransmissions.
const PATIENCE: Duration = Duration::from_secs(60);

/// For each test.
const SCENES: usize = 2;

/// In the environment of what may not be left over.
const MARK: &str = "LEFT_BY_NETSHUNT";

/// Enough to outlast every test, and few: the command ends by itself after them.
const MANY: u32 = 100_000;
const FEW: u32 = 4;

/// While the kernel boots and the command is being started, in milliseconds.
const BOOT: [u64; 8] = [0, 2, 4, 6, 8, 12, 16, 24];

/// From the start into the middle of the traffic, in microseconds.
const LONGEST: u64 = 500_000;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Front,
    Guest,
    Supervisor,
}

impl Victim {
    const ALL: [Victim; 3] = [Victim::Front, Victim::Guest, Victim::Supervisor];
}

impl Victim {
    fn kill(self, running: Running<'_>) {
        let front = running.pid();
        // Not yet born: the one that would start it, then.
        let first_child = |parent| child(parent).unwrap_or(parent);
        let target = match self {
            Victim::Front => front,
            Victim::Guest => first_child(first_child(front)),
            Victim::Supervisor => first_child(front),
        };
        // ESRCH: it has come to its end by itself.
        let _ = kill(Pid::from_raw(target), Signal::SIGKILL);
        // The end of netshunt. What is left of the command ends by itself, as its calls fail.
        running.wait();
    }
}

/// A world with an echo server, and what it looked like before netshunt ran in it.
struct Scene {
    world: World,
    before: BTreeSet<String>,
    program: String,
    mark: String,
    fifo: PathBuf,
    private: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let world = World::of_waiting();
        world.echo(&[STACK_PORT, BYPASS_PORT]);
        let fifo = world.folder().join("log");
        mkfifo(&fifo, Mode::from_bits_truncate(0o622)).expect("a folder of ours");
        // Beyond the umask: netshunt may be another user's.
        let everybody = fs::Permissions::from_mode;
        fs::set_permissions(&fifo, everybody(0o622)).expect("ours");
        let private = world.folder().join("private");
        fs::create_dir(&private).expect("a folder of ours");
        fs::set_permissions(&private, everybody(0o777)).expect("ours");
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let program = world.folder().join("traffic.py");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/sockets/traffic.py");
        fs::copy(source, &program).expect("a folder of ours");
        fs::set_permissions(&program, everybody(0o755)).expect("ours");
        let program = program.display().to_string();
        let mut scene = Scene { world, before: BTreeSet::new(), program, mark, fifo, private };
        assert!(until(PATIENCE, || scene.sockets().iter().all(|line| line.contains("LISTEN"))));
        scene.before = scene.sight();
        scene
    }

    fn start(&self, log: &str, turns: u32) -> Running<'_> {
        let private = self.private.display().to_string();
        let words = [
            "python3".to_owned(),
            self.program.clone(),
            FAR4.to_string(),
            STACK_PORT.to_string(),
            BYPASS_PORT.to_string(),
            CLOSED_PORT.to_owned(),
            SILENT.to_owned(),
            turns.to_string(),
        ];
        let bypass = format!("--bypass={FAR4}:{BYPASS_PORT}/tcp");
        self.world
            .netshunt_with(["--net=link,host-bypass", &bypass, "--bypass=203.0.113.1:9001/tcp"])
            .wrapper(["sh", "-c", "exec \"$@\" 2>\"$0\"", log])
            .env("NETSHUNT_LOG", "trace,netshunt_lkl=warn")
            .env(MARK, &self.mark)
            .env("TMPDIR", &private)
            .env("XDG_RUNTIME_DIR", &private)
            .env("XDG_CACHE_HOME", &private)
            .command(words)
            .start()
    }

    /// Kills one of them as soon as the log says that this point is reached. Returns whether it was.
    fn kill_at(&self, victim: Victim, point: &str) -> bool {
        let turns = if point == points::COMMAND_ENDED { FEW } else { MANY };
        let running = self.start(&self.fifo.display().to_string(), turns);
        let end = Instant::now() + DEADLINE;
        let lines = BufReader::new(fs::File::open(&self.fifo).expect("ours")).lines();
        let mut lines = lines.map_while(Result::ok);
        let hit = lines.by_ref().take_while(|_| Instant::now() < end).any(|line| is_at(point, &line));
        // A log that nobody reads would stop who writes it.
        thread::spawn(move || lines.for_each(drop));
        victim.kill(running);
        hit
    }

    /// Kills one of them some time after the start.
    fn kill_after(&self, victim: Victim, delay: Duration) {
        let running = self.start("/dev/null", MANY);
        until(delay, || false);
        victim.kill(running);
    }

    /// What of ours there is to see in the world.
    fn sight(&self) -> BTreeSet<String> {
        let mut all = self.sockets();
        // Not the link-local ones, which the kernel itself adds a little after the start.
        all.extend(self.of_host(&["ip", "-o", "address", "show", "scope", "global"]));
        all.extend(self.of_host(&["ip", "route"]));
        for entry in fs::read_dir(&self.private).expect("ours").flatten() {
            all.insert(format!("file {}", entry.path().display()));
        }
        all
    }

    fn sockets(&self) -> BTreeSet<String> {
        let mut all = self.of_host(&["ss", "-Htan"]);
        all.extend(self.of_host(&["ss", "-Hxa"]));
        all.extend(lines(&self.world.far.path(), &["ss", "-Htan"]));
        // The kernel's memory of a connection that has ended in order (RFC 9293, 3.6.1).
        all.retain(|line| !line.starts_with("TIME-WAIT"));
        all
    }

    /// Processes that netshunt or its command started, by their environment, and those in its network.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let network = fs::metadata(self.world.host.path()).expect("it lives").ino();
        let ours = |pid: &i32| {
            let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
            let environment = fs::read(of("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
                || fs::metadata(of("ns/net")).is_ok_and(|net| net.ino() == network)
        };
        let all = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(ours)
            .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())
            .map(|line| format!("process {}", line.replace('\0', " ")))
            .collect()
    }

    fn of_host(&self, words: &[&str]) -> BTreeSet<String> {
        lines(&self.world.host.path(), words)
    }

    #[track_caller]
    fn assert_clean(&self, when: &str) {
        let mut left = Vec::new();
        let clean = until(PATIENCE, || {
            left = self.sight().difference(&self.before).cloned().collect();
            left.extend(self.processes());
            left.is_empty()
        });
        assert!(clean, "killed {when}: {left:#?}");
    }
}

/// Whether a line of the log says this; values follow.
fn is_at(point: &str, line: &str) -> bool {
    let Some(event) = line.strip_prefix("netshunt: ") else { return false };
    let event = event.strip_prefix("debug: ").or(event.strip_prefix("trace: ")).unwrap_or(event);
    event.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Tries each of these, several at once: much of it is waiting until the kernel has forgotten what was closed.
fn each<T: Send>(cases: impl Iterator<Item = T> + Send, case: impl Fn(&Scene, T) + Sync) {
    let cases = Mutex::new(cases);
    let next = || cases.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..SCENES {
            scope.spawn(|| {
                let scene = Scene::new();
                while let Some(one) = next() {
                    case(&scene, one);
                }
            });
        }
    });
}

#[test]
fn killed_at_a_named_point_they_leave_nothing() {
    let lost = Mutex::new(Vec::new());
    let cases = points::ALL.iter().flat_map(|point| Victim::ALL.map(|victim| (victim, *point)));
    each(cases, |scene, (victim, point)| {
        if !scene.kill_at(victim, point) {
            lost.lock().unwrap_or_else(PoisonError::into_inner).push((victim, point));
        }
        scene.assert_clean(&format!("{victim:?} at {point:?}"));
    });
    let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(lost.is_empty(), "never reached: {lost:?}");
}

#[test]
fn killed_during_the_start_they_leave_nothing() {
    let delays = BOOT.iter().map(|&delay| Duration::from_millis(delay));
    let cases = delays.flat_map(|delay| Victim::ALL.map(|victim| (victim, delay)));
    each(cases, |scene, (victim, delay)| {
        scene.kill_after(victim, delay);
        scene.assert_clean(&format!("{victim:?} after {delay:?}"));
    });
}

#[test]
fn killed_at_a_random_moment_they_leave_nothing() {
    let times = if is_nightly() { 1000 } else { 40 };
    let chance = RandomState::new();
    each(0..times, |scene, turn| {
        let delay = Duration::from_micros(chance.hash_one(turn) % LONGEST);
        let victim = Victim::ALL[turn % Victim::ALL.len()];
        scene.kill_after(victim, delay);
        scene.assert_clean(&format!("{victim:?} after {delay:?}"));
    });
}

fn lines(namespace: &str, words: &[&str]) -> BTreeSet<String> {
    let output = Command::new("nsenter").arg(format!("--net={namespace}")).args(words).output();
    let output = output.expect("util-linux has nsenter").stdout;
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The front's is the supervisor, and the supervisor's newest the command: a link's helper has none of the
/// test's environment, and would only be replaced.
fn child(parent: i32) -> Option<i32> {
    let is_ours = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry.starts_with(MARK.as_bytes()))
    };
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = children.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    pids.filter_map(|pid| pid.parse().ok()).filter(is_ours).max()
}
