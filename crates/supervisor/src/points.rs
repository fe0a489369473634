//! The moments in the life of a connection, by the names that the log gives them. The tests kill
//! netshunt and its command at each one and look for what is left.

/// In the order in which they first come.
#[allow(dead_code, reason = "the tests read it")]
pub(crate) const ALL: [&str; 16] = [
    LINK_OPEN,
    STACK_UP,
    FILTERED,
    LISTENER_TAKEN,
    RELEASING,
    NOTIFICATION,
    VERDICT,
    PARKED,
    CONNECTING,
    JOINED,
    BYPASS_CONNECTING,
    BYPASSED,
    REFUSED,
    ABANDONED,
    RELAY_ENDED,
    COMMAND_ENDED,
];

pub(crate) const ABANDONED: &str = "abandoned";
pub(crate) const BYPASSED: &str = "bypassed";
pub(crate) const BYPASS_CONNECTING: &str = "bypass connecting";
pub(crate) const COMMAND_ENDED: &str = "the command ended";
pub(crate) const CONNECTING: &str = "connecting";
pub(crate) const FILTERED: &str = "the command's process is filtered";
pub(crate) const JOINED: &str = "joined";
pub(crate) const LINK_OPEN: &str = "link open";
pub(crate) const LISTENER_TAKEN: &str = "listener taken";
pub(crate) const NOTIFICATION: &str = "notification";
pub(crate) const PARKED: &str = "parked";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const RELAY_ENDED: &str = "relay ended";
pub(crate) const RELEASING: &str = "releasing the command";
pub(crate) const STACK_UP: &str = "stack up";
pub(crate) const VERDICT: &str = "verdict";
