//! One rule: what it says and what it matches.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Destination, Direction, Group, Proto, parse};

/// What a rule does with the flows it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// `--allow`: through the stack.
    Allow,
    /// `--bypass`: on the host.
    Bypass,
    /// `--deny`: refused.
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Allow => "allow",
            Action::Bypass => "bypass",
            Action::Deny => "deny",
        })
    }
}

/// A set of flows, as a user writes it.
///
/// ```text
/// RULE  := ["in:"] DEST [":" PORTS] ["/" PROTO]
/// DEST  := "*" | GROUP | v4[/n] | "[" v6[/n] "]"     GROUP := host-local | link-local | multicast
/// PORTS := p | p-p | comma list                      PROTO := tcp | udp | icmp
/// ```
///
/// With `in:` it is about flows to the guest, and DEST is the local address that it listens on.
///
/// Without a protocol it matches every protocol; with ports, every protocol that has ports.
/// Two rules are equal when they mean the same, however they are spelt.
///
/// ```
/// use netshunt_policy::Rule;
///
/// let rule: Rule = "[2001:db8::/32]:80,443,8000-8099/tcp".parse()?;
/// assert_eq!(rule.to_string(), "[2001:db8::/32]:80,443,8000-8099/tcp");
/// # Ok::<(), netshunt_policy::RuleError>(())
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    pub(crate) text: String,
    pub(crate) meaning: Meaning,
}

/// A rule without its spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) direction: Direction,
    pub(crate) dest: Dest,
    /// None is every port. Each range holds at least one port, none holds 0.
    pub(crate) ports: Option<Vec<RangeInclusive<u16>>>,
    pub(crate) proto: Option<Proto>,
}

/// Where a rule points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dest {
    Any,
    Group(Group),
    /// Normalised: no host bits, never IPv4-mapped.
    Net(IpNet),
}

impl Rule {
    /// Whether everything but the address matches.
    pub(crate) fn fits(&self, to: &Destination) -> bool {
        let Meaning { direction, ports, proto, .. } = &self.meaning;
        *direction == to.direction
            && proto.is_none_or(|proto| proto == to.proto)
            && ports.as_ref().is_none_or(|ports| {
                // ICMP has no ports; what stands in its address is an echo identifier at best.
                to.proto != Proto::Icmp && ports.iter().any(|range| range.contains(&to.address.port()))
            })
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match parse::meaning(text) {
            Ok(meaning) => Ok(Rule { text: text.to_owned(), meaning }),
            Err(fault) => Err(RuleError { text: text.to_owned(), offset: fault.offset, what: fault.what }),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.text
    }
}

/// A text that is no rule. `Display` is three lines: what is wrong and what would be right, the
/// text, and a caret under the character at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RuleError {
    text: String,
    offset: usize,
    what: String,
}

impl RuleError {
    /// Where the fault is: a byte offset into [`text`](Self::text), on a character boundary, at
    /// most its length (then something is missing at the end).
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What was to be a rule.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first line of `Display` alone.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text.split_at(self.offset);
        let (before, after) = (printable(before), printable(after));
        writeln!(f, "{}", self.what)?;
        writeln!(f, "  {before}{after}")?;
        write!(f, "  {:1$}^", "", before.chars().count())
    }
}

/// Control characters (a line break above all) would tear the three lines apart.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
