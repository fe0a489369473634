//! Which system calls are allowed, refused or notified: a table of data.
//!
//! The default is [`Action::Notify`], so a call nobody thought of, or one newer than this build,
//! reaches the supervisor, which refuses it and says so. [`table`] holds every call that is *not*
//! simply harmless; every other known call is allowed ([`decide`] is the meaning of both together).
//!
//! A rule of the table that allows or refuses is exact by itself; where none fits, the call is
//! notified. Rules that notify are there for their reason.

#[cfg(test)]
mod expand;
mod table;

pub use table::table;

use crate::calls;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The kernel performs it.
    Allow,
    /// It fails with this errno, without waking the supervisor.
    Errno(i32),
    /// The supervisor answers it.
    Notify,
}

/// A condition on one argument. Of numbers only the low 32 bits are looked at: the kernel takes these
/// arguments as `int`, and what stands in the high half is the caller's garbage. Of pointers all 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `argument & mask` is none of these values.
    NoneOf {
        /// The position, from 0.
        arg: u8,
        /// The bits that are compared.
        mask: u32,
        /// The values.
        values: &'static [u32],
    },
    /// `argument & mask` is `group`, and the argument is none of these values.
    NoneOfGroup {
        /// The position, from 0.
        arg: u8,
        /// The bits that name the group.
        mask: u32,
        /// What they are.
        group: u32,
        /// Values of the group.
        values: &'static [u32],
    },
    /// A pointer, not NULL.
    NotNull {
        /// The position, from 0.
        arg: u8,
    },
    /// A pointer, NULL.
    Null {
        /// The position, from 0.
        arg: u8,
    },
    /// `argument & mask` is one of these values.
    OneOf {
        /// The position, from 0.
        arg: u8,
        /// The bits that are compared.
        mask: u32,
        /// The values.
        values: &'static [u32],
    },
    /// At least one of `bits` is set, and none of `without`.
    SomeBit {
        /// The position, from 0.
        arg: u8,
        /// The bits of which one must be set.
        bits: u32,
        /// The bits that must be clear.
        without: u32,
    },
}

impl When {
    /// Whether a call with these arguments meets the condition.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        // The low word, as the kernel does.
        let low = |arg: u8| args[usize::from(arg)] as u32;
        match *self {
            When::NoneOf { arg, mask, values } => !values.contains(&(low(arg) & mask)),
            When::NoneOfGroup { arg, mask, group, values } => {
                low(arg) & mask == group && !values.contains(&low(arg))
            }
            When::NotNull { arg } => args[usize::from(arg)] != 0,
            When::Null { arg } => args[usize::from(arg)] == 0,
            When::OneOf { arg, mask, values } => values.contains(&(low(arg) & mask)),
            When::SomeBit { arg, bits, without } => low(arg) & bits != 0 && low(arg) & without == 0,
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The call's name.
    pub call: &'static str,
    /// All of these must hold; none means always.
    pub when: &'static [When],
    /// What becomes of it then.
    pub action: Action,
    /// The reason.
    pub why: &'static str,
}

/// What the table says about a call of this architecture: the first rule whose conditions all hold.
#[must_use]
pub fn decide(number: i64, args: &[u64; 6]) -> Action {
    let Some(name) = calls::name(number) else { return Action::Notify };
    let mut rules = table().iter().filter(|rule| rule.call == name).peekable();
    if rules.peek().is_none() {
        return Action::Allow;
    }
    rules
        .find(|rule| rule.when.iter().all(|when| when.holds(args)))
        .map_or(Action::Notify, |rule| rule.action)
}
