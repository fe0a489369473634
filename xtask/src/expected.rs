//! What a complete test run must amount to. A run that falls short fails, so that tests cannot go
//! missing unnoticed: by a filter left in, a file that is no longer compiled, a silent skip.

/// The least number of tests that must pass, by group. Raise it when tests are added.
pub(crate) const MINIMUM: &[(&str, usize)] = &[
    ("unit", 594),
    ("e2e-slirp-root", 386),
    ("e2e-slirp-user", 386),
    ("e2e-passt-user", 270),
    ("e2e-oldpasst-user", 104),
    ("e2e-vhost-root", 185),
    ("e2e-vhost-user", 185),
];

/// Files of end-to-end tests that do not run over every link: the links that leave them out, and why.
pub(crate) const NOT_OVER_EVERY_LINK: &[(&str, &[&str], &str)] = &[
    ("alone", &["passt", OLD, VHOST], "nothing in it goes over a link"),
    ("connect_differential", &[OLD], "passt of 2023 now and then forgets attempts when many take seconds"),
    ("crowd", &[OLD], "passt of 2023 now and then forgets attempts when many come at once"),
    ("datagrams", &[OLD], "passt of 2023 does not tell that a datagram was refused"),
    (
        "faults",
        &[OLD, VHOST],
        "which calls fail is the supervisor's affair; the newest passt's stream mode runs it, and slirp",
    ),
    ("harness", &["passt", OLD, VHOST], "it tests the harness itself, without netshunt"),
    (
        "hostile",
        &[OLD, VHOST],
        "whom a guest may reach is decided before there is a frame; the newest passt's stream mode runs it",
    ),
    ("hostile_local", &["passt", OLD, VHOST], "nothing in it goes over a link"),
    ("pairs_apart_from_the_link", &["passt", OLD, VHOST], "nothing in it goes over a link"),
    (
        "pairs_over_the_link",
        &[OLD],
        "passt of 2023 loses the end of what is sent on connections that are half-closed while many are busy",
    ),
    ("passt", &["passt", OLD, VHOST], "it chooses its links itself"),
    ("privileges", &["passt", OLD, VHOST], "nothing in it goes over a link"),
    (
        "processes",
        &[OLD, VHOST],
        "which process has a socket is not the link's affair; the newest passt's stream mode runs it",
    ),
    ("programs_natively", &["passt", OLD, VHOST], "without netshunt there is no link"),
    ("programs_page", &["passt", OLD, VHOST], "it asks programs for their versions"),
    (
        "random_differential",
        &["passt", OLD, VHOST],
        "nothing in it goes over a link: what is sent is for the loopback, and for the guest's own addresses",
    ),
    ("sends", &["passt", OLD, VHOST], "nothing in it goes over a link"),
    ("servers", &[OLD], "passt of 2023 loses what a server says before its client does, on a published port"),
    (
        "suites",
        &["passt", OLD, VHOST],
        "the runtimes' tests have both ends of each connection in the guest: nothing of them goes over a link",
    ),
    ("waits", &["passt", OLD, VHOST], "who waits for what is not the link's affair"),
];

const OLD: &str = "old-passt";
const VHOST: &str = "passt-vhost-user";

/// The tests that may be ignored: group, name, and the reason. An entry that no ignored test
/// matches is an error too.
pub(crate) const SKIPS: &[(&str, &str, &str)] = &[
    ("unit", "a_round_trip_takes", "a measurement: prints, asserts nothing"),
    ("unit", "a_guest_that_blocks_its_reader_is_answered_and_others_are_served", ROOT),
    ("unit", "a_watch_that_is_held_can_be_stopped", ROOT),
];

const ROOT: &str = "needs root; the hostile end-to-end tests stall the real supervisor the same way";

/// The least number of tests for a group; checks such as `fmt` have none.
pub(crate) fn minimum(group: &str) -> usize {
    MINIMUM.iter().find(|(name, _)| *name == group).map_or(0, |(_, least)| *least)
}

/// The tests that a group may ignore, with reasons.
pub(crate) fn skips(group: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    SKIPS.iter().filter(move |(name, ..)| *name == group).map(|&(_, test, why)| (test, why))
}
