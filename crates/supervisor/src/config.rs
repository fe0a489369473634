//! What a front end decides before a guest starts, and what it learns when it ends.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use netshunt_backend::Backend;
use netshunt_policy::{Action, Rule, UnixPolicy};
use serde::Serialize;

use crate::{FlowSink, Job};

/// How to run a guest. Start from [`Config::new`]: more fields may come.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// The command and its arguments, looked up in `PATH` as execvp(3) does.
    pub command: Vec<OsString>,
    /// Carries the stack's frames; without one the stack has only its loopback.
    pub link: Option<Box<dyn Backend>>,
    /// Connects on the host what the rules bypass.
    pub shunt: Option<Box<dyn Backend>>,
    /// First match wins.
    pub rules: Vec<(Action, Rule)>,
    /// Which AF_UNIX sockets may be connected to.
    pub unix: UnixPolicy,
    /// Who answers for name servers on the guest's own loopback.
    pub dns: Dns,
    /// The kernel library; `None` looks in the usual places.
    pub library: Option<PathBuf>,
    /// Descriptors above 2 that the command inherits; all others are closed at exec.
    pub keep_fds: Vec<RawFd>,
    /// A root guest keeps its capabilities. It is then not confined.
    pub keep_caps: bool,
    /// Refuse to start when this kernel lacks a layer of defence.
    pub strict: bool,
    /// After the command ended, serve its surviving descendants to the end.
    pub wait: bool,
    /// Told of every decided flow.
    pub flows: Option<Box<dyn FlowSink>>,
    /// Told when the command stops.
    pub job: Option<Arc<dyn Job>>,
}

/// Who is asked in the place of a name server on the guest's own loopback, where nobody listens: the host's resolv.conf
/// may name one there. With a link only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dns {
    /// This name server, as the rules have it, but never past the stack.
    Address(IpAddr),
    /// The link's forwarder, which is open to the guest on its port.
    Link,
    /// Nobody.
    Off,
}

impl Config {
    /// `command` with a loopback for a network: no link, no shunt, no rules.
    #[must_use]
    pub fn new(command: Vec<OsString>) -> Self {
        Config {
            command,
            link: None,
            shunt: None,
            rules: Vec::new(),
            unix: UnixPolicy::Default,
            dns: Dns::Link,
            library: None,
            keep_fds: Vec::new(),
            keep_caps: false,
            strict: false,
            wait: false,
            flows: None,
            job: None,
        }
    }
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// exit(3) with this status.
    Exited(i32),
    /// Killed by this signal.
    Signaled(i32),
}

/// What [`run`](crate::run) reports when it is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// How the command ended.
    pub end: End,
    /// Descendants of the command that still run; their mediated calls fail from now on.
    pub survivors: usize,
    /// What was counted on the way.
    pub counters: Counters,
}

/// Counted while a guest runs.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Ethernet frames from the stack to the link.
    pub frames_out: u64,
    /// Ethernet frames from the link to the stack.
    pub frames_in: u64,
    /// Bytes of those frames.
    pub bytes_out: u64,
    /// Bytes of those frames.
    pub bytes_in: u64,
    /// Notifications by system call name.
    pub notifications: std::collections::BTreeMap<&'static str, u64>,
}
