//! The private network: this namespace is the machine, another behind a veth is the server.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::way::Way;
use super::{eventually, processes};
use crate::shell;

/// The server has several addresses, taken in turn: connections just closed sit in TIME_WAIT for a
/// minute, and the more of them there are to one address the longer connect(2) looks for a port.
const ADDRESSES: u8 = 8;

/// No load takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// The user that netshunt and the load run as: nobody.
const USER: &str = "65534";

/// The ports of a server; see `bench/nb.c`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    Echo,
    Sink,
    Source,
    Http,
}

/// Where guest, netshunt and server run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// Wherever the scheduler puts them.
    Anywhere,
    /// All on one processor: without the wake-ups of a sleeping one, which dwarf the rest.
    Pinned,
}

impl Place {
    /// The first port of the server there.
    fn base(self) -> u16 {
        match self {
            Self::Anywhere => 7000,
            Self::Pinned => 7100,
        }
    }
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What it printed.
    pub(crate) report: Value,
    /// Processor time of load, netshunt and server, in seconds.
    pub(crate) cpu: f64,
}

/// The network and its servers. Ends with the namespaces, that is with this process.
#[derive(Debug)]
pub(crate) struct Arena {
    folder: PathBuf,
    processor: String,
    /// One anywhere, one pinned.
    servers: [u32; 2],
    turn: Cell<u8>,
}

impl Arena {
    /// Inside the namespaces that are to be filled; `folder` holds the programs.
    pub(crate) fn build(folder: &Path) -> Result<Self> {
        let far = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn()?.id().to_string();
        let name = format!("/proc/{far}/comm");
        // The child has its namespace once it has become sleep.
        eventually("a network namespace", || {
            std::fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep")
        })?;
        let addresses: String =
            (0..ADDRESSES).map(|n| format!("ip address add {}/24 dev far\n", address(n))).collect();
        let script = format!(
            "ip link set lo up
             ip link add near type veth peer name far netns {far}
             ip address add 192.0.2.1/24 dev near
             ip link set near up
             ip route add default via {}
             nsenter --target {far} --net sh -eu -c '
                 ip link set lo up
                 {addresses}
                 ip link set far up'",
            address(0)
        );
        shell::run(Command::new("sh").args(["-eu", "-c", &script]))?;
        let mut arena = Self {
            folder: folder.to_owned(),
            processor: last_processor()?,
            servers: [0; 2],
            turn: Cell::new(0),
        };
        for (index, place) in [Place::Anywhere, Place::Pinned].into_iter().enumerate() {
            let mut server = Command::new("nsenter");
            server.args(["--target", &far, "--net"]).args(arena.pin(place));
            server.arg(arena.file("nb")).arg("server").arg(place.base().to_string());
            arena.servers[index] = server.stdin(Stdio::null()).spawn()?.id();
            for port in [Port::Echo, Port::Sink, Port::Source, Port::Http] {
                let port = place.base() + port as u16;
                eventually("the server", || TcpStream::connect((address(0), port)).is_ok())?;
            }
        }
        Ok(arena)
    }

    /// Whether a GET comes through, and by the way it should.
    pub(crate) fn probe(&self, way: Way) -> Result<()> {
        let mut command = self.command(way, Place::Anywhere, &["--flow-log=-"]);
        command.args(self.load("ttfb", Place::Anywhere, Port::Http));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (mut said, mut errors) = (String::new(), String::new());
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let status = watched(&mut child, |child| {
            // Neither fills a pipe.
            out.as_mut().map(|out| out.read_to_string(&mut said)).transpose()?;
            err.as_mut().map(|err| err.read_to_string(&mut errors)).transpose()?;
            child.wait()
        })?;
        ensure!(status.success() && said.contains("ttfb"), "{status}: {said}{errors}");
        let seen = format!("\"verdict\":\"{}\"", way.verdict());
        ensure!(way == Way::Native || errors.contains(&seen), "the flow log has no {seen}: {errors}");
        Ok(())
    }

    /// Runs a load to its end.
    pub(crate) fn run(
        &self,
        way: Way,
        place: Place,
        mode: &str,
        port: Port,
        rest: &[String],
    ) -> Result<Finished> {
        let mut command = self.command(way, place, &[]);
        command.args(self.load(mode, place, port)).args(rest);
        let before = self.cpu()?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("asked for a pipe above"));
        let mut line = String::new();
        let status = watched(&mut child, |child| {
            output.read_line(&mut line)?;
            child.wait()
        })?;
        let report = parsed(&line)?;
        ensure!(status.success(), "{status}: {line}");
        Ok(Finished { report, cpu: self.cpu()? - before })
    }

    /// Runs a program that is not the load, and says how long that took.
    pub(crate) fn time_to_exit(&self, way: Way, program: &str) -> Result<Duration> {
        let mut command = self.command(way, Place::Anywhere, &[]);
        command.arg(program).stdout(Stdio::null());
        let started = Instant::now();
        let mut child = command.spawn()?;
        let status = watched(&mut child, Child::wait)?;
        let took = started.elapsed();
        ensure!(status.success(), "{program}: {status}");
        Ok(took)
    }

    /// Starts a load that prints a line when something is reached, and says how long that took.
    pub(crate) fn time_to_line(&self, way: Way, mode: &str, port: Port) -> Result<Duration> {
        let mut command = self.command(way, Place::Anywhere, &[]);
        command.args(self.load(mode, Place::Anywhere, port)).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("asked for a pipe above"));
        let mut line = String::new();
        let took = watched(&mut child, |child| {
            output.read_line(&mut line)?;
            let took = started.elapsed();
            child.wait().map(|_| took)
        })?;
        parsed(&line).map(|_| took)
    }

    /// Resident MB of netshunt while the load holds so many connections.
    pub(crate) fn resident(&self, way: Way, connections: u32) -> Result<f64> {
        let mut command = self.command(way, Place::Anywhere, &[]);
        command.args(self.load("hold", Place::Anywhere, Port::Echo)).arg(connections.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("asked for a pipe above"));
        let mut line = String::new();
        watched(&mut child, |child| {
            output.read_line(&mut line)?;
            let resident = processes::resident_of_tree(child.id(), "nb");
            // The end of its standard input lets the load go; waiting closes it.
            child.wait()?;
            parsed(&line)?;
            resident
        })
    }

    /// Seconds of processor time of everything that takes part.
    fn cpu(&self) -> Result<f64> {
        let servers =
            self.servers.iter().map(|&server| processes::cpu_of_tree(server)).sum::<Result<f64>>()?;
        Ok(servers + processes::cpu_of_children()?)
    }

    /// The words before the program: a user without rights, perhaps one processor, perhaps netshunt.
    fn command(&self, way: Way, place: Place, options: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}"));
        command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]).args(self.pin(place));
        if let Some(composition) = way.options() {
            command.arg(self.file("netshunt")).args(composition).args(options).arg("--");
        }
        // Nothing of a developer's environment configures what is measured.
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("NETSHUNT_LKL", self.file("liblkl.so")).current_dir("/");
        // A group of its own can be killed as one.
        command.process_group(0).stdin(Stdio::null());
        command
    }

    /// The load and where its server is.
    fn load(&self, mode: &str, place: Place, port: Port) -> [String; 4] {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % ADDRESSES);
        let port = place.base() + port as u16;
        [self.file("nb").display().to_string(), mode.to_owned(), address(turn), port.to_string()]
    }

    fn pin(&self, place: Place) -> Vec<&str> {
        match place {
            Place::Anywhere => Vec::new(),
            Place::Pinned => vec!["taskset", "--cpu-list", &self.processor],
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The server's address number `n` (RFC 5737, TEST-NET-1).
fn address(n: u8) -> String {
    format!("192.0.2.{}", 10 + n)
}

/// The processor for pinned measurements: the last we may use, since interrupts favour the first.
fn last_processor() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = list.and_then(|list| list.trim().rsplit([',', '-']).next());
    Ok(last.context("/proc/self/status has no Cpus_allowed_list")?.to_owned())
}

/// The load's line, unless it tells of a failure.
fn parsed(line: &str) -> Result<Value> {
    let report: Value = serde_json::from_str(line).with_context(|| format!("the load said {line:?}"))?;
    let failed = report["error"].is_string()
        || report["err"].as_str().is_some_and(|error| !error.is_empty())
        || report["errs"].as_u64().is_some_and(|errors| errors > 0);
    ensure!(!failed, "{}", line.trim_end());
    Ok(report)
}

/// Does `work` with the child; kills its process group when that takes too long.
fn watched<T, E: Into<anyhow::Error>>(
    child: &mut Child,
    work: impl FnOnce(&mut Child) -> Result<T, E>,
) -> Result<T> {
    let group = format!("-{}", child.id());
    let (done, watch) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let late = watch.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = Command::new("sh").args(["-c", "kill -KILL -- \"$1\"", "sh", &group]).status();
            }
            late
        });
        let result = work(child);
        drop(done);
        let late = watch.join().expect("it does not panic");
        ensure!(!late, "killed: not done within {LIMIT:?}");
        result.map_err(Into::into)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_failed_is_an_error() {
        assert!(parsed(r#"{"mode":"tx","gbps":1.0,"err":""}"#).is_ok());
        for bad in ["", r#"{"error":"connect: x"}"#, r#"{"err":"x"}"#, r#"{"n":5,"errs":1}"#] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_processor_is_found() {
        assert!(last_processor().unwrap().parse::<u32>().is_ok());
    }
}
