//! What a child says on its standard error: told as it comes, and the last of it kept.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use tracing::debug;

/// As many lines are kept.
const LINES: usize = 6;
/// As many bytes of each.
const LINE: usize = 300;
/// As much is read at a time.
const CHUNK: usize = 4096;

/// The reading end of the child's standard error, and its last words.
#[derive(Debug)]
pub(crate) struct Words {
    pipe: OwnedFd,
    over: bool,
    lines: Lines,
}

impl Words {
    /// `pipe` must not block.
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Words { pipe, over: false, lines: Lines::default() }
    }

    /// For poll(2), which passes over the -1 of a child that has closed its standard error.
    pub(crate) fn fd(&self) -> i32 {
        if self.over { -1 } else { self.pipe.as_raw_fd() }
    }

    /// Reads once, as it is: `None` if there is nothing now, 0 at the end.
    pub(crate) fn read_raw(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(&self.pipe, buffer) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads once; whether there was anything.
    pub(crate) fn read(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match self.read_raw(&mut chunk) {
            Ok(Some(count)) if count > 0 => {
                self.lines.take(&chunk[..count]);
                true
            }
            Ok(None) => false,
            Ok(Some(_)) | Err(_) => {
                self.over = true;
                false
            }
        }
    }

    /// The last words, in one line; of a child that has ended.
    pub(crate) fn last(&mut self) -> String {
        // A pipe holds 64 KiB, but descendants of the child may go on filling it.
        for _ in 0..64 {
            if !self.read() {
                break;
            }
        }
        self.lines.text()
    }
}

/// Cuts bytes into lines; bounded.
#[derive(Debug, Default)]
struct Lines {
    last: VecDeque<String>,
    open: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.close();
            } else if self.open.len() < LINE {
                self.open.push(*byte);
            }
        }
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&self.open).trim().to_owned();
        self.open.clear();
        if line.is_empty() || is_noise(&line) {
            return;
        }
        debug!(line, "passt says");
        self.last.push_back(line);
        if self.last.len() > LINES {
            self.last.pop_front();
        }
    }

    fn text(&mut self) -> String {
        self.close();
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// Versions of 2023 mix this into all they say where no system log listens.
pub(crate) fn is_noise(line: &str) -> bool {
    line.starts_with("Failed to send ") && line.ends_with(" bytes to syslog")
}

/// A pipe: to read from, and to write to. Neither end waits: a child that says more than is read loses
/// the rest of its words, not its time.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_noise() {
        let mut lines = Lines::default();
        for n in 0..20 {
            lines.take(format!("Failed to send {n} bytes to syslog\nline ").as_bytes());
            lines.take(format!("{n}\n\n").as_bytes());
        }
        lines.take(b"no newline");
        assert_eq!(lines.text(), "line 15; line 16; line 17; line 18; line 19; no newline");
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut lines = Lines::default();
        (0..10_000).for_each(|_| lines.take(&[b'x'; 100]));
        assert_eq!(lines.open.len(), LINE);
        assert_eq!(lines.text().len(), LINE);
    }

    #[test]
    fn a_chatty_child_is_not_held_up() {
        let (read, write) = pipe().unwrap();
        let mut words = Words::new(read);
        let full = (0..100_000).find(|_| nix::unistd::write(&write, b"again and again\n").is_err());
        assert!(full.is_some(), "the pipe takes everything");
        assert!(words.last().ends_with("again and again"));
        nix::unistd::write(&write, b"and on\n").unwrap();
        assert!(words.last().ends_with("and on"));
    }
}
