//! What came of a program, and the claims a test makes about it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::files::sha256;
use crate::processes::Belongings;
use crate::{Flow, Path, Stats, World};

/// The most bytes over the link when nothing of the guest's is: neighbour discovery and the like.
const QUIET_BYTES: u64 = 16 << 10;

/// Lines of each output that a failure shows.
const SHOWN_LINES: usize = 60;

/// A program that has ended. Its files live as long as the world.
#[derive(Debug)]
pub struct Run {
    /// netshunt's, where it takes part, which is the command's.
    pub status: ExitStatus,
    /// From start to end.
    pub elapsed: Duration,
    /// What netshunt logged.
    pub flows: Vec<Flow>,
    /// What it counted; `None` if it wrote none.
    pub stats: Option<Stats>,
    /// Its own folder, where it ran.
    pub folder: PathBuf,
    words: Vec<String>,
    belongings: Belongings,
}

impl Run {
    pub(crate) fn new(
        status: ExitStatus,
        elapsed: Duration,
        folder: PathBuf,
        words: Vec<String>,
        belongings: Belongings,
    ) -> Self {
        let flows = Flow::read(&folder.join("flows.json"));
        let stats = Stats::read(&folder.join("stats.json"));
        Self { status, elapsed, flows, stats, folder, words, belongings }
    }

    /// Its descendants that are alive. One that ends is so a little longer than what serves it.
    pub fn survivors(&self) -> Vec<String> {
        World::alive(&self.belongings)
    }

    /// Where its standard output is.
    pub fn stdout_path(&self) -> PathBuf {
        self.folder.join("stdout")
    }

    /// Its standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.stdout_path()).unwrap_or_default()).into_owned()
    }

    /// Its standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("stderr")).unwrap_or_default()).into_owned()
    }

    /// The SHA-256 of its standard output.
    pub fn stdout_sha256(&self) -> String {
        sha256(&self.stdout_path())
    }

    /// Claims that it exited with 0.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        assert!(self.status.success(), "{}", self.describe());
        self
    }

    /// Claims that it exited with this code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.describe());
        self
    }

    /// Claims that every connection to `to` took this path, and there was one, by two witnesses: the
    /// verdict in the flow log, and the link's own count of bytes, of which `payload` were the guest's.
    #[track_caller]
    pub fn assert_path(&self, path: Path, to: SocketAddr, payload: u64) -> &Self {
        let Some(verdict) = path.verdict() else { return self };
        let flows: Vec<_> = self.flows.iter().filter(|flow| flow.dst == to).collect();
        assert!(!flows.is_empty(), "no flow to {to} was logged\n{}", self.describe());
        for flow in flows {
            assert_eq!(flow.verdict, verdict, "{flow:?}\n{}", self.describe());
        }
        let Some(stats) = &self.stats else { panic!("no statistics were written\n{}", self.describe()) };
        let proven = match path {
            Path::Stack => stats.bytes() >= payload,
            Path::Bypass | Path::Native => stats.bytes() < QUIET_BYTES,
        };
        assert!(proven, "{path:?}, and {} bytes over the link\n{}", stats.bytes(), self.describe());
        self
    }

    /// Everything a reader of a failed test wants to see.
    pub fn describe(&self) -> String {
        let mut text = describe(&self.words, Some(self.status), &self.folder);
        text.push_str(&format!(
            "flows: {:#?}\nstats: {:?}\n",
            self.flows.iter().take(20).collect::<Vec<_>>(),
            self.stats
        ));
        text
    }
}

pub(crate) fn describe(words: &[String], status: Option<ExitStatus>, folder: &FilePath) -> String {
    let tail = |name: &str| {
        let bytes = fs::read(folder.join(name)).unwrap_or_default();
        let Ok(text) = String::from_utf8(bytes) else { return "(not text)".to_owned() };
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    };
    let status = status.map_or("(not ended)".to_owned(), |status| status.to_string());
    format!("{}\n{status}\nstdout:\n{}\nstderr:\n{}\n", words.join(" "), tail("stdout"), tail("stderr"))
}
