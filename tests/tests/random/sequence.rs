//! Sequences as the program prints them, and the first difference of two.

use std::fmt;

use super::allowed::Used;

/// A sequence to perform.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) seed: u64,
    /// Its calls by number; all if there are none.
    pub(crate) calls: Vec<usize>,
}

impl Job {
    pub(crate) fn whole(seed: u64) -> Self {
        Self { seed, calls: Vec::new() }
    }

    pub(crate) fn lines(jobs: &[Self]) -> String {
        jobs.iter().map(|job| format!("{job}\n")).collect()
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        for (place, call) in self.calls.iter().enumerate() {
            write!(f, "{}{call}", if place == 0 { ' ' } else { ',' })?;
        }
        Ok(())
    }
}

/// One call and what came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Call {
    seed: u64,
    pub(crate) number: usize,
    /// What was called.
    pub(crate) what: String,
    /// Its result, and after `|` the state of all sockets.
    pub(crate) seen: String,
}

impl Call {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let seed = words.next()?.parse().ok()?;
        let number = words.next()?.parse().ok()?;
        let (what, seen) = words.next()?.split_once(" = ")?;
        Some(Self { seed, number, what: what.to_owned(), seen: seen.to_owned() })
    }

    pub(crate) fn result(&self) -> &str {
        self.seen.split_once(" |").map_or(self.seen.as_str(), |(result, _)| result)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} = {}", self.seed, self.number, self.what, self.seen)
    }
}

/// What came of one job.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) calls: Vec<Call>,
}

impl Sequence {
    /// Reads what the program printed for these jobs.
    pub(crate) fn read(jobs: &[Job], text: &str) -> Result<Vec<Self>, String> {
        let mut lines = text.lines().peekable();
        let mut all = Vec::new();
        for job in jobs {
            let mut calls: Vec<Call> = Vec::new();
            while let Some(line) = lines.peek() {
                let call = Call::read(line).ok_or_else(|| format!("what is this? {line}"))?;
                let full = !job.calls.is_empty() && calls.len() == job.calls.len();
                if call.seed != job.seed || full {
                    break;
                }
                calls.push(call);
                lines.next();
            }
            if calls.is_empty() {
                return Err(format!("nothing came of {job}"));
            }
            all.push(Self { calls });
        }
        match lines.next() {
            Some(line) => Err(format!("nobody asked for {line}")),
            None => Ok(all),
        }
    }

    pub(crate) fn lines(all: &[Self]) -> String {
        all.iter().flat_map(|one| &one.calls).map(|call| format!("{call}\n")).collect()
    }
}

/// Where two runs of a sequence part.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// How many calls went before.
    pub(crate) at: usize,
    /// The calls up to there, by number.
    pub(crate) calls: Vec<usize>,
    native: Call,
    ours: Call,
}

impl Difference {
    /// The first that is not allowed; `used` learns of those that are.
    pub(crate) fn first(native: &Sequence, ours: &Sequence, used: &Used) -> Option<Self> {
        for (at, (native_call, our_call)) in native.calls.iter().zip(&ours.calls).enumerate() {
            if native_call == our_call {
                continue;
            }
            let before = &native.calls[..at];
            match used.covering(before, native_call, our_call) {
                Some(entry) if entry.parts => return None,
                Some(_) => {}
                None => {
                    let calls = native.calls[..=at].iter().map(|call| call.number).collect();
                    return Some(Self { at, calls, native: native_call.clone(), ours: our_call.clone() });
                }
            }
        }
        None
    }

    /// The same for differences that probably have the same cause.
    pub(crate) fn kind(&self) -> String {
        let words = self.native.what.split(' ').filter(|word| *word != "child");
        let words: Vec<&str> = words.collect();
        let option = words.get(2).filter(|_| words[0].ends_with("sockopt") || words[0] == "ioctl");
        let plain = |call: &Call| call.result().split(' ').next().unwrap_or_default().to_owned();
        let (native, ours) = (plain(&self.native), plain(&self.ours));
        let what = format!("{} {}", words[0], option.copied().unwrap_or_default());
        if native != ours {
            format!("{what}: {ours}, natively {native}")
        } else if self.native.result() != self.ours.result() {
            format!("{what}: {native}, but not the same")
        } else {
            format!("{what}: the state afterwards")
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}\n    natively = {}", self.ours.what, self.ours.seen, self.native.seen)
    }
}
