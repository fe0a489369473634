//! What comes out, and why.

use std::fmt;

use crate::{Action, Errno, Group, Rule};

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The shunt connects the guest's own socket on the host.
    Bypass,
    /// The call fails with this error.
    Deny(Errno),
    /// The in-process TCP/IP stack carries it, and the link the stack's frames.
    Stack,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Bypass => "bypass",
            Verdict::Deny(_) => "deny",
            Verdict::Stack => "stack",
        })
    }
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule matched, and the address is not special.
    Default,
    /// The link's own DNS forwarder on port 53, open while `--dns` is on.
    Dns,
    /// The guest's own loopback or address: the flow never leaves the stack.
    GuestOwn,
    /// A protected group that no rule opened.
    Protected(Group),
    /// The rule at this index of the list given to [`Policy::new`](crate::Policy::new).
    Rule(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Default => f.write_str("default"),
            Reason::Dns => f.write_str("the link's DNS forwarder"),
            Reason::GuestOwn => f.write_str("the guest's own address"),
            Reason::Protected(group) => write!(f, "protected group {group}"),
            // Shown to people, who count from one.
            Reason::Rule(index) => write!(f, "rule {}", index + 1),
        }
    }
}

/// A verdict with its reason. `Display` is the line that `netshunt policy check` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What becomes of the flow.
    pub verdict: Verdict,
    /// The rule that decided. Also set for [`Reason::GuestOwn`] when an allow rule matched first.
    pub rule: Option<&'a Rule>,
    /// The verdict as an option of the command line; that of `rule` when there is one.
    pub action: Action,
    /// What decided.
    pub why: Reason,
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if let Verdict::Deny(errno) = self.verdict {
            write!(f, " ({errno})")?;
        }
        write!(f, ": {}", self.why)?;
        match (self.rule, self.why) {
            (Some(rule), _) => write!(f, ", --{} {rule}", self.action),
            (None, Reason::Protected(group)) => {
                write!(f, "; only a rule that names {group}, or a destination wholly inside it, opens it")
            }
            (None, _) => Ok(()),
        }
    }
}
