//! The private network: this namespace is the machine, another behind a veth is the server.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::eventually;
use super::processes::{self, watched};
use super::way::{Host, Programs, TUNED, Way};
use crate::shell;

/// The server has several addresses, taken in turn: connections just closed sit in TIME_WAIT for a
/// minute, and the more of them there are to one address the longer connect(2) looks for a port.
const ADDRESSES: u8 = 8;

/// As long as a peer's daemon may take to end after the command it served.
const LINGER: Duration = Duration::from_secs(5);

/// Where standard error of a load goes, in the folder.
const ERRORS: &str = "errors";

/// What namespaces begin with.
const TCP_WMEM: &str = "/proc/sys/net/ipv4/tcp_wmem";

/// The user that netshunt, the peers and the load run as: nobody.
const USER: &str = "65534";

/// The ports of a server; see `bench/nb.c`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    Echo,
    Sink,
    Source,
    Http,
    /// What the sink has read: the load asks itself.
    Sunk,
}

/// Which server the load is to use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    /// One that the load starts itself.
    Beside(Port),
    /// The one in the other namespace.
    Far(Port),
}

impl Server {
    pub(crate) fn is_beside(self) -> bool {
        matches!(self, Self::Beside(_))
    }
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
    /// Processor time of load, netshunt or peer, and server, in seconds.
    pub(crate) cpu: f64,
}

/// The network and its servers. Ends with the namespaces, that is with this process.
#[derive(Debug)]
pub(crate) struct Arena {
    folder: PathBuf,
    pub(crate) programs: Programs,
    processor: String,
    /// One anywhere, one pinned.
    servers: [u32; 2],
    /// The processes that are there between two loads.
    residents: Vec<u32>,
    /// The host's own `tcp_wmem`.
    wmem: String,
    turn: Cell<u8>,
}

impl Arena {
    /// Inside the namespaces that are to be filled, as their first process; `folder` holds the programs.
    pub(crate) fn build(folder: &Path) -> Result<Self> {
        ensure!(std::process::id() == 1, "not the first process of a namespace: daemons would be lost");
        let far = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn()?.id().to_string();
        let name = format!("/proc/{far}/comm");
        // The child has its namespace once it has become sleep.
        eventually("a network namespace", || {
            fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep")
        })?;
        let addresses: String =
            (0..ADDRESSES).map(|n| format!("ip address add {}/24 dev far\n", address(n))).collect();
        let script = format!(
            "ip link set lo up
             ip link add near type veth peer name far netns {far}
             ip address add 192.0.2.1/24 dev near
             ip link set near up
             # pasta and slirp4netns open it as nobody; some machines keep it for root.
             mount -t tmpfs -o mode=755 none /dev/net && mknod -m 666 /dev/net/tun c 10 200 || true
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
            programs: Programs::new(folder),
            processor: last_processor()?,
            servers: [0; 2],
            residents: Vec::new(),
            wmem: fs::read_to_string(TCP_WMEM).with_context(|| format!("cannot read {TCP_WMEM}"))?,
            turn: Cell::new(0),
        };
        for (path, text) in arena.programs.configurations() {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        for (index, place) in [Place::Anywhere, Place::Pinned].into_iter().enumerate() {
            let mut server = Command::new("nsenter");
            server.args(["--target", &far, "--net"]).args(arena.pin(place));
            server.arg(arena.file("nb")).arg("server").arg(place.base().to_string());
            arena.servers[index] = server.stdin(Stdio::null()).spawn()?.id();
            for port in [Port::Echo, Port::Sink, Port::Source, Port::Http, Port::Sunk] {
                let port = place.base() + port as u16;
                eventually("the server", || TcpStream::connect((address(0), port)).is_ok())?;
            }
        }
        processes::reap();
        arena.residents = processes::numbers()?;
        Ok(arena)
    }

    /// Whether a GET comes through, and by the way it should.
    pub(crate) fn probe(&self, way: Way) -> Result<()> {
        self.set(way.host)?;
        let mut command = self.command(way, Place::Anywhere, &["--flow-log=-"]);
        command.args(self.load("ttfb", Place::Anywhere, Port::Http));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut output = child.stdout.take().expect("asked for a pipe above");
        let mut said = String::new();
        let status = watched(&mut child, |child| {
            output.read_to_string(&mut said)?;
            child.wait()
        })?;
        self.settle()?;
        ensure!(status.success() && said.contains("ttfb"), "{status}: {said}");
        let Some(verdict) = way.verdict() else { return Ok(()) };
        let seen = format!("\"verdict\":\"{verdict}\"");
        ensure!(self.last_words().contains(&seen), "the flow log has no {seen}");
        Ok(())
    }

    /// Runs a load to its end.
    pub(crate) fn run(
        &self,
        way: Way,
        place: Place,
        mode: &str,
        server: Server,
        rest: &[String],
    ) -> Result<Finished> {
        self.set(way.host)?;
        let mut command = self.command(way, place, &[]);
        match server {
            Server::Beside(port) => {
                let [base, port] = [place.base(), place.base() + port as u16].map(|port| port.to_string());
                command.arg(self.file("nb")).args(["local", &base, mode, &port]).args(rest)
            }
            Server::Far(port) => command.args(self.load(mode, place, port)).args(rest),
        };
        let before = self.cpu()?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("asked for a pipe above"));
        let mut line = String::new();
        let status = watched(&mut child, |child| {
            output.read_line(&mut line)?;
            child.wait()
        })?;
        self.settle()?;
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
        self.settle()?;
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
        self.settle()?;
        parsed(&line).map(|_| took)
    }

    /// MB of memory of netshunt or a peer, helpers too, while the load holds so many connections.
    pub(crate) fn memory(&self, way: Way, connections: u32) -> Result<f64> {
        let mut command = self.command(way, Place::Anywhere, &[]);
        command.args(self.load("hold", Place::Anywhere, Port::Echo)).arg(connections.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("asked for a pipe above"));
        let mut line = String::new();
        let memory = watched(&mut child, |child| {
            output.read_line(&mut line)?;
            let memory = processes::memory(&self.residents, "nb");
            // The end of its standard input lets the load go; waiting closes it.
            child.wait()?;
            parsed(&line)?;
            memory
        });
        self.settle()?;
        memory
    }

    /// What was said last on standard error, in one line.
    pub(crate) fn last_words(&self) -> String {
        let said = fs::read(self.file(ERRORS)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        // Debian 12's passt tells of every line that it cannot log.
        let lines = said.lines().filter(|line| !line.ends_with("bytes to syslog"));
        lines.map(str::trim).collect::<Vec<_>>().join(" / ")
    }

    /// Makes this namespace the host that a way is about.
    fn set(&self, host: Host) -> Result<()> {
        let wmem = match host {
            Host::Default => self.wmem.as_str(),
            Host::Tuned => TUNED,
        };
        fs::write(TCP_WMEM, wmem).with_context(|| format!("cannot write {TCP_WMEM}"))
    }

    /// Waits until nothing is left of a load, so that all its processor time is known and the next is
    /// alone. What stays is killed, and told.
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + LINGER;
        loop {
            processes::reap();
            let left: Vec<u32> =
                processes::numbers()?.into_iter().filter(|number| !self.residents.contains(number)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("still there {LINGER:?} after the command: {}", processes::kill(&left)?.join(", "));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Seconds of processor time of everything that takes part.
    fn cpu(&self) -> Result<f64> {
        let servers =
            self.servers.iter().map(|&server| processes::cpu_of_tree(server)).sum::<Result<f64>>()?;
        Ok(servers + processes::cpu_of_children()?)
    }

    /// The words before the program: a user without rights, perhaps one processor, netshunt or a peer.
    fn command(&self, way: Way, place: Place, options: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        // Of interest only when something fails.
        command.stderr(File::create(self.file(ERRORS)).map_or_else(|_| Stdio::null(), Stdio::from));
        command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}"));
        command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]).args(self.pin(place));
        command.args(way.words(&self.programs, options));
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
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
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
