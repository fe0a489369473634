//! Makes system calls of a process fail: strace(1), attached as root, which may look at a process that is not dumpable.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netshunt_tests::{eventually, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The `when`th call of that name fails with that errno, once in each thread.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) call: String,
    pub(crate) errno: &'static str,
    pub(crate) when: usize,
    /// Of that thread's alone.
    pub(crate) thread: Option<&'static str>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.call, self.errno, self.when)
    }
}

/// Longer than it takes to let go of some threads.
const SLOW: Duration = Duration::from_secs(2);

/// An attached strace.
pub(crate) struct Injector {
    strace: Child,
    log: PathBuf,
}

impl Injector {
    /// Attaches to all threads of a process. Without a fault it only looks.
    pub(crate) fn attach(pid: i32, folder: &Path, fault: Option<&Fault>) -> Self {
        let (log, said) = (folder.join("strace.log"), folder.join("strace.said"));
        let (_, errors) = (fs::File::create(&log), fs::File::create(&said).expect("a folder of ours"));
        // Not -f: a process that we start anew, passt, would be followed too. Threads that come later are left in peace.
        let threads = threads_of(pid, fault.and_then(|fault| fault.thread));
        let trace = fault.map_or("all".to_owned(), |fault| fault.call.clone());
        let mut words = vec!["-o".to_owned(), log.display().to_string(), "-s0".into()];
        words.extend(["-e".to_owned(), format!("trace={trace}")]);
        words.extend(threads.iter().flat_map(|thread| ["-p".to_owned(), thread.to_string()]));
        if let Some(Fault { call, errno, when, .. }) = fault {
            words.extend(["-e".to_owned(), format!("inject={call}:error={errno}:when={when}")]);
        }
        let strace = Command::new("strace").args(words).stdin(Stdio::null()).stderr(errors).spawn();
        let strace = strace.expect("`cargo xtask setup` installs strace");
        // Of one that has ended meanwhile it says so.
        let told = ["attached", "No such process"];
        let attached = || {
            let said = fs::read_to_string(&said).unwrap_or_default();
            said.lines().filter(|line| told.iter().any(|told| line.contains(told))).count() == threads.len()
        };
        eventually("strace is attached", attached);
        Injector { strace, log }
    }

    /// Lets go of the process; what strace has seen.
    pub(crate) fn detach(mut self) -> String {
        self.end();
        fs::read_to_string(&self.log).expect("made when it was attached")
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.strace.id()).expect("the kernel's process ids are");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        // It waits for ever for a process that is dead already.
        if !until(SLOW, || self.strace.try_wait().is_ok_and(|status| status.is_some())) {
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.end();
    }
}

/// All threads, or those of that name (proc(5), `comm`, which is cut).
fn threads_of(pid: i32, name: Option<&str>) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    let wanted = tasks.filter(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.is_none_or(|name| name.starts_with(comm.trim_end()))
    });
    let found: Vec<i32> = wanted.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    assert!(!found.is_empty(), "the supervisor has no thread {name:?}");
    found
}

/// How often each call was made, by the thread that made it most often.
pub(crate) fn most_by_a_thread(log: &str) -> BTreeMap<String, usize> {
    let mut by_thread = BTreeMap::<(&str, &str), usize>::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            *by_thread.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::<String, usize>::new();
    for ((_, call), count) in by_thread {
        let most = most.entry(call.to_owned()).or_default();
        *most = count.max(*most);
    }
    most
}
