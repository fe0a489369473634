//! One program in a [`World`], from its description to its end.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::processes::{Belongings, MARK};
use crate::run::Run;
use crate::user::root_launcher;
use crate::wait::until;
use crate::{DEADLINE, Namespace, World};

/// The same for everything a test starts, whatever the developer's own is.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longer than any case takes: what this ends is stuck.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug)]
enum Input {
    Empty,
    File(PathBuf),
    /// [`Running::write`] provides it.
    Pipe,
}

/// A program to be run: a guest of netshunt, a program beside it, or a server.
#[derive(Debug)]
#[must_use = "nothing runs before `run` or `start`"]
pub struct Launch<'w> {
    world: &'w World,
    namespace: &'w Namespace,
    root: bool,
    /// What it sees as /etc/resolv.conf.
    resolver: Option<String>,
    wrapper: Vec<String>,
    /// netshunt's options, if it takes part.
    options: Option<Vec<String>>,
    words: Vec<String>,
    environment: Vec<(String, String)>,
    input: Input,
    timeout: Duration,
}

impl<'w> Launch<'w> {
    pub(crate) fn native(world: &'w World) -> Self {
        Self {
            world,
            namespace: &world.host,
            root: false,
            resolver: None,
            wrapper: Vec::new(),
            options: None,
            words: Vec::new(),
            environment: Vec::new(),
            input: Input::Empty,
            timeout: TIMEOUT,
        }
    }

    pub(crate) fn netshunt(world: &'w World, options: Vec<String>) -> Self {
        Self { options: Some(options), ..Self::native(world) }
    }

    /// Runs it on the far side, as root, as servers are.
    pub fn far(mut self) -> Self {
        self.namespace = &self.world.far;
        self.root = true;
        self
    }

    /// Runs it as root, on the host's side.
    pub fn as_root(mut self) -> Self {
        self.root = true;
        self
    }

    /// The program and its arguments.
    pub fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words = words.into_iter().map(Into::into).collect();
        self
    }

    /// Another option for netshunt.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.get_or_insert_default().push(option.into());
        self
    }

    /// The name server in its /etc/resolv.conf, which is its own.
    pub fn resolver(mut self, address: &str) -> Self {
        self.resolver = Some(address.to_owned());
        self
    }

    /// Words before netshunt itself: a program that runs it.
    pub fn wrapper<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// Another variable in its environment, which is otherwise the same everywhere.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Standard input from a file; without this it is empty.
    pub fn stdin_file(mut self, path: &FilePath) -> Self {
        self.input = Input::File(path.to_owned());
        self
    }

    /// Standard input from [`Running::write`].
    pub fn stdin_pipe(mut self) -> Self {
        self.input = Input::Pipe;
        self
    }

    /// When to kill it and all its descendants.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started, or is killed by its timeout.
    #[track_caller]
    pub fn run(self) -> Run {
        self.start().wait()
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(self) -> Running<'w> {
        let (mark, folder) = self.world.new_run();
        let user = self.world.user();
        let output = |name: &str| {
            let path = folder.join(name);
            let file = File::create(&path).expect("a new folder of ours");
            // A program may open /dev/stdout again by name.
            user.own(&path);
            file
        };
        let (stdout, stderr) = (output("stdout"), output("stderr"));
        let words = self.all_words(&folder);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &folder)
            .env("LANG", "C.UTF-8")
            .env("RUST_BACKTRACE", "1")
            .env(MARK, &mark)
            .env("NETSHUNT_LKL", self.world.library())
            .envs(self.environment)
            .current_dir(&folder)
            .stdin(match &self.input {
                Input::Empty => Stdio::null(),
                Input::File(path) => File::open(path).expect("a file of the test's").into(),
                Input::Pipe => Stdio::piped(),
            })
            .stdout(stdout)
            .stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", words.join(" ")));
        Running {
            stdin: child.stdin.take(),
            child: Some(child),
            belongings: Belongings { mark, namespaces: Vec::new() },
            folder,
            words,
            started: Instant::now(),
            timeout: self.timeout,
            world: self.world,
        }
    }

    /// Into the namespace, to the user, then what was asked for.
    fn all_words(&self, folder: &FilePath) -> Vec<String> {
        let mut words =
            vec!["nsenter".to_owned(), format!("--net={}", self.namespace.path()), "--".to_owned()];
        if let Some(address) = &self.resolver {
            let file = folder.join("resolv.conf");
            std::fs::write(&file, format!("nameserver {address}\noptions timeout:2\n"))
                .expect("a folder of ours");
            let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
            words.extend(["unshare", "--mount", "sh", "-eu", "-c", script].map(str::to_owned));
            words.push(file.display().to_string());
        }
        words.extend(if self.root { root_launcher() } else { self.world.user().launcher() });
        words.push("--".to_owned());
        words.extend_from_slice(&self.wrapper);
        if let Some(options) = &self.options {
            words.push(self.world.binary().display().to_string());
            words.extend_from_slice(options);
            for (option, file) in [("--flow-log", "flows.json"), ("--stats", "stats.json")] {
                words.push(format!("{option}={}", folder.join(file).display()));
            }
            words.push("--".to_owned());
        }
        words.extend_from_slice(&self.words);
        words
    }
}

/// A program that runs. Dropped, it is killed with all its descendants.
#[derive(Debug)]
pub struct Running<'w> {
    /// `None` once the world has it.
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    belongings: Belongings,
    folder: PathBuf,
    words: Vec<String>,
    started: Instant,
    timeout: Duration,
    world: &'w World,
}

impl Running<'_> {
    /// The process: netshunt itself, where it takes part.
    pub fn pid(&self) -> i32 {
        let id = self.child.as_ref().expect("ours until it is left running").id();
        i32::try_from(id).expect("the kernel's process ids are")
    }

    /// Writes to its standard input (see [`Launch::stdin_pipe`]).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdin.as_mut().expect("asked for by stdin_pipe").write_all(bytes)
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("stdout")).unwrap_or_default()).into_owned()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("stderr")).unwrap_or_default()).into_owned()
    }

    /// Waits until its standard output contains `text`.
    #[track_caller]
    pub fn prints(&mut self, text: &str) {
        let seen = until(DEADLINE, || self.stdout().contains(text));
        assert!(seen, "{text:?} was not printed\n{}", self.describe());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When its timeout comes first: it is killed, and the message shows what it had written.
    #[track_caller]
    pub fn wait(mut self) -> Run {
        self.stdin = None;
        let mut status = None;
        let in_time = until(self.timeout.saturating_sub(self.started.elapsed()), || {
            status = self.child.as_mut().and_then(|child| child.try_wait().expect("our own child"));
            status.is_some()
        });
        let elapsed = self.started.elapsed();
        let Some(status) = status.filter(|_| in_time) else {
            let alive = World::alive(&self.belongings);
            self.kill();
            panic!("still running after {:?}: {alive:#?}\n{}", self.timeout, self.describe());
        };
        Run::new(status, elapsed, self.folder.clone(), self.words.clone(), self.belongings.clone())
    }

    /// Kills it and all its descendants.
    pub fn kill(&mut self) {
        let Some(child) = &mut self.child else { return };
        let _ = child.kill();
        self.belongings.kill();
        let _ = child.wait();
    }

    /// Hands it to its world: it runs until the world ends.
    pub(crate) fn leave_running(mut self) {
        let services = &self.world.services;
        services.lock().unwrap_or_else(PoisonError::into_inner).extend(self.child.take());
    }

    fn describe(&self) -> String {
        crate::run::describe(&self.words, None, &self.folder)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
