//! The flow log: one JSON line per decided flow.
//!
//! Flows come from the threads that serve the guest; a full disk or a slow terminal must not make
//! the guest wait. They go through a bounded queue to a thread that formats and writes them; what
//! does not fit is counted.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use netshunt_policy::{Direction, Verdict};
use netshunt_supervisor::{Flow, FlowSink};
use nix::errno::Errno;
use serde::{Serialize, Serializer};

use crate::say;

/// Flows that wait for the writer. At 100,000 flows a second, more than the supervisor decides,
/// the writer may fall behind for 40 ms.
const QUEUE: usize = 4096;

/// Where flows go in. The supervisor's end.
#[derive(Debug)]
pub(crate) struct Sink {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// Writes. Our end: [`finish`](FlowLog::finish) it once the guest is gone.
#[derive(Debug)]
pub(crate) struct FlowLog {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
    name: PathBuf,
    writer: JoinHandle<u64>,
}

#[derive(Debug)]
enum Entry {
    End,
    Line(Box<Line>),
}

impl FlowLog {
    /// Opens `path` to append to (`-` is standard error), so that several runs may share a file.
    pub(crate) fn open(path: &Path) -> anyhow::Result<FlowLog> {
        if path == Path::new("-") {
            return FlowLog::to(Box::new(io::stderr()), path);
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open flow log {}", path.display()))?;
        FlowLog::to(Box::new(file), path)
    }

    fn to(to: Box<dyn Write + Send>, path: &Path) -> anyhow::Result<FlowLog> {
        let (queue, lines) = sync_channel(QUEUE);
        let name = path.to_owned();
        let writer = thread::Builder::new()
            .name("netshunt-flows".into())
            .spawn(move || write_all(&lines, to, &name))
            .context("cannot start the flow log's thread")?;
        Ok(FlowLog { queue, dropped: Arc::default(), name: path.to_owned(), writer })
    }

    /// What the supervisor is given.
    pub(crate) fn sink(&self) -> Sink {
        Sink { queue: self.queue.clone(), dropped: self.dropped.clone() }
    }

    /// Waits until everything is written, and says what was lost.
    pub(crate) fn finish(self) {
        // A queue that is full is being emptied; one without a reader has a writer that panicked.
        let _ = self.queue.send(Entry::End);
        let unwritten = self.writer.join().unwrap_or(0);
        let lost = self.dropped.load(Ordering::Relaxed) + unwritten;
        if lost > 0 {
            let lines = if lost == 1 { "line is" } else { "lines are" };
            say::line(format_args!("flow log {}: {lost} {lines} missing", self.name.display()));
        }
    }
}

impl FlowSink for Sink {
    fn flow(&self, flow: &Flow) {
        self.put(Line::from(flow));
    }
}

impl Sink {
    fn put(&self, line: Line) {
        if self.queue.try_send(Entry::Line(line.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes until the end is announced; returns how many lines could not be written.
fn write_all(lines: &Receiver<Entry>, mut to: Box<dyn Write + Send>, name: &Path) -> u64 {
    let mut lost = 0;
    let (mut torn, mut said) = (false, false);
    while let Ok(Entry::Line(line)) = lines.recv() {
        let mut text = if torn { b"\n".to_vec() } else { Vec::with_capacity(256) };
        serde_json::to_writer(&mut text, &line).expect("plain fields are JSON, and a Vec takes them");
        text.push(b'\n');
        match write_line(&mut *to, &text) {
            Ok(()) => torn = false,
            Err((written, error)) => {
                // The disk may have room again later: once is enough to say so.
                if !said {
                    say::line(format_args!("flow log {}: {error}", name.display()));
                    said = true;
                }
                // One that lacks no more than its end is there: the next line brings that.
                lost += u64::from(written + 1 < text.len());
                torn |= written > 0;
            }
        }
    }
    lost
}

/// As `write_all`, but says how much was written before the error.
fn write_line(to: &mut dyn Write, line: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < line.len() {
        match to.write(&line[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    to.flush().map_err(|error| (written, error))
}

/// A flow as it is written, its fields in their order.
#[derive(Clone, Debug, Serialize)]
struct Line {
    #[serde(serialize_with = "rfc3339")]
    time: SystemTime,
    pid: i32,
    comm: String,
    proto: &'static str,
    direction: &'static str,
    src: Option<SocketAddr>,
    dst: SocketAddr,
    verdict: &'static str,
    rule: Option<String>,
    #[serde(serialize_with = "name")]
    errno: Option<i32>,
    #[serde(rename = "elapsed_us", serialize_with = "microseconds")]
    elapsed: Duration,
}

impl From<&Flow> for Line {
    fn from(flow: &Flow) -> Self {
        Line {
            time: flow.time,
            pid: flow.pid,
            comm: flow.comm.clone(),
            proto: flow.proto,
            direction: match flow.direction {
                Direction::In => "in",
                Direction::Out => "out",
            },
            src: flow.source,
            dst: flow.destination,
            verdict: match flow.verdict {
                Verdict::Bypass => "bypass",
                Verdict::Deny(_) => "deny",
                Verdict::Stack => "stack",
            },
            rule: flow.rule.clone(),
            errno: flow.errno,
            elapsed: flow.elapsed,
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_micros(*time))
}

// By reference, as serde hands it over.
#[allow(clippy::ref_option)]
fn name<S: Serializer>(errno: &Option<i32>, to: S) -> Result<S::Ok, S::Error> {
    match errno.map(|raw| (raw, Errno::from_raw(raw))) {
        None => to.serialize_none(),
        Some((raw, Errno::UnknownErrno)) => to.collect_str(&format_args!("errno {raw}")),
        Some((_, known)) => to.collect_str(&format_args!("{known:?}")),
    }
}

fn microseconds<S: Serializer>(elapsed: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    fn line(comm: &str) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_000_042),
            pid: 7,
            comm: comm.into(),
            proto: "tcp",
            direction: "in",
            src: Some("[2001:db8::2]:50000".parse().unwrap()),
            dst: "[2001:db8::1]:443".parse().unwrap(),
            verdict: "stack",
            rule: None,
            errno: Some(libc::ECONNREFUSED),
            elapsed: Duration::from_nanos(1_234_567),
        }
    }

    /// Takes what `room` allows, then fails as a full disk does. Waits for `start`, if there is one.
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: usize,
        start: Option<Receiver<()>>,
    }

    impl Write for Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            if let Some(start) = self.start.take() {
                start.recv().map_err(io::Error::other)?;
            }
            let taken = data.len().min(self.room);
            if taken == 0 {
                // Somebody makes room.
                self.room = 10_000;
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.room -= taken;
            self.bytes.lock().unwrap().extend(&data[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_documented_fields_in_their_order() {
        assert_eq!(
            serde_json::to_string(&line("a\u{1b}[2J")).unwrap(),
            r#"{"time":"2026-09-21T14:13:20.000042Z","pid":7,"comm":"a\u001b[2J","proto":"tcp","#.to_owned()
                + r#""direction":"in","src":"[2001:db8::2]:50000","#
                + r#""dst":"[2001:db8::1]:443","verdict":"stack","rule":null,"errno":"ECONNREFUSED","elapsed_us":1234}"#
        );
        let fine =
            Line { errno: None, rule: Some("*".into()), dst: "192.0.2.1:80".parse().unwrap(), ..line("b") };
        let text = serde_json::to_string(&fine).unwrap();
        assert!(
            text.contains(r#""dst":"192.0.2.1:80","verdict":"stack","rule":"*","errno":null,"#),
            "{text}"
        );
    }

    /// Writes three lines to a disk with this much room, until somebody makes more; how many are told to be missing, and
    /// which lines of the file are whole.
    fn three_lines(room: usize) -> (u64, Vec<bool>) {
        let bytes = Arc::default();
        let disk = Disk { bytes: Arc::clone(&bytes), room, start: None };
        let (queue, lines) = sync_channel(8);
        for comm in ["a", "b", "c"] {
            queue.send(Entry::Line(line(comm).into())).unwrap();
        }
        queue.send(Entry::End).unwrap();
        let lost = write_all(&lines, Box::new(disk), Path::new("log"));
        let text = String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
        let is_whole = |line| serde_json::from_str::<serde_json::Value>(line).is_ok();
        (lost, text.lines().map(is_whole).collect())
    }

    #[test]
    fn a_full_disk_tears_one_line_and_the_rest_is_whole() {
        let whole = serde_json::to_string(&line("b")).unwrap();
        assert_eq!(three_lines(whole.len() + 1 + 10), (1, vec![true, false, true]));
    }

    #[test]
    fn a_line_that_lacks_only_its_end_is_not_missing() {
        let whole = serde_json::to_string(&line("b")).unwrap();
        assert_eq!(three_lines(whole.len() + 1 + whole.len()), (0, vec![true; 3]));
    }

    #[test]
    fn a_writer_that_hangs_holds_nobody_up() {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (go, start) = mpsc::channel();
        let disk = Disk { bytes: Arc::clone(&bytes), room: usize::MAX, start: Some(start) };
        let log = FlowLog::to(Box::new(disk), Path::new("log")).unwrap();
        let sink = log.sink();
        for _ in 0..QUEUE + 100 {
            sink.put(line("a"));
        }
        // The writer has taken one line at most.
        let dropped = sink.dropped.load(Ordering::Relaxed);
        assert!((99..=100).contains(&dropped), "{dropped}");
        go.send(()).unwrap();
        log.finish();
        let written = bytes.lock().unwrap().iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(written + dropped, QUEUE as u64 + 100);
    }
}
