//! What netshunt reports about itself: the proof of which path a byte took.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

/// One line of the flow log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Flow {
    /// RFC 3339, UTC.
    pub time: String,
    /// Of the process, not the thread.
    pub pid: i32,
    /// The process's name.
    pub comm: String,
    /// "tcp".
    pub proto: String,
    /// "out", or "in" for what the guest accepted or wished to listen on.
    pub direction: String,
    /// Where what was accepted comes from.
    pub src: Option<SocketAddr>,
    /// Where to.
    pub dst: SocketAddr,
    /// "bypass", "stack" or "deny".
    pub verdict: String,
    /// The rule that decided, as it was written.
    pub rule: Option<String>,
    /// Why it failed, by name.
    pub errno: Option<String>,
    /// From the call to its answer.
    pub elapsed_us: u64,
}

impl Flow {
    /// Reads a flow log. Every line must be one flow, with all its fields.
    pub(crate) fn read(path: &Path) -> Vec<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("flow log: {e}: {line}"));
        text.lines().map(parse).collect()
    }
}

/// The object that `--stats` writes at the end.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Stats {
    /// Ethernet frames from the stack to the link.
    pub frames_out: u64,
    /// From the link to the stack.
    pub frames_in: u64,
    /// Bytes in the former.
    pub bytes_out: u64,
    /// Bytes in the latter.
    pub bytes_in: u64,
    /// How often each system call came to netshunt.
    #[serde(default)]
    pub notifications: BTreeMap<String, u64>,
}

impl Stats {
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok().filter(|text| !text.is_empty())?;
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("--stats: {e}: {text}")))
    }

    /// Bytes over the link, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes_out + self.bytes_in
    }
}
