//! What a complete test run must amount to. A run that falls short fails, so that tests cannot go
//! missing unnoticed: by a filter left in, a file that is no longer compiled, a silent skip.

/// The least number of tests that must pass, by group. Raise it when tests are added.
pub(crate) const MINIMUM: &[(&str, usize)] = &[("unit", 150), ("e2e-root", 75), ("e2e-user", 75)];

/// The tests that may be ignored: group, name, and the reason. An entry that no ignored test
/// matches is an error too.
pub(crate) const SKIPS: &[(&str, &str, &str)] = &[];

/// The least number of tests for a group; checks such as `fmt` have none.
pub(crate) fn minimum(group: &str) -> usize {
    MINIMUM.iter().find(|(name, _)| *name == group).map_or(0, |(_, least)| *least)
}

/// The tests that a group may ignore, with reasons.
pub(crate) fn skips(group: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    SKIPS.iter().filter(move |(name, ..)| *name == group).map(|&(_, test, why)| (test, why))
}
