//! The kernel's log, as `tracing` events of target `netshunt_lkl::kernel`.

use tracing::{Level, event};

/// The target of the kernel's messages.
pub(crate) const TARGET: &str = "netshunt_lkl::kernel";

/// Emits one record as the library prints it, in the format of `/dev/kmsg`.
pub(crate) fn emit(record: &str) {
    let (level, text) = parse(record);
    // A level is part of an event's static description.
    match level {
        Level::ERROR => event!(target: TARGET, Level::ERROR, "{text}"),
        Level::WARN => event!(target: TARGET, Level::WARN, "{text}"),
        Level::INFO => event!(target: TARGET, Level::INFO, "{text}"),
        _ => event!(target: TARGET, Level::DEBUG, "{text}"),
    }
}

/// Whether anybody would see the kernel's ordinary messages.
pub(crate) fn wanted() -> bool {
    tracing::enabled!(target: TARGET, Level::INFO)
}

/// "PRIO,SEQ,USEC,FLAGS;TEXT\n", then lines of keys and values that begin with a space
/// (Documentation/ABI/testing/dev-kmsg). PRIO is a syslog level (RFC 5424) plus 8 times a facility.
fn parse(record: &str) -> (Level, &str) {
    let (head, rest) = record.split_once(';').unwrap_or(("", record));
    let text = rest.lines().next().unwrap_or("");
    let priority = head.split(',').next().and_then(|p| p.parse::<u32>().ok());
    let level = match priority.map_or(6, |p| p & 7) {
        0..=3 => Level::ERROR,
        4 => Level::WARN,
        5 | 6 => Level::INFO,
        _ => Level::DEBUG,
    };
    (level, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_texts() {
        assert_eq!(parse("6,339,5140900,-;NET: Registered\n"), (Level::INFO, "NET: Registered"));
        assert_eq!(parse("3,1,0,-,caller=T1;eth0: a; b\n SUBSYSTEM=net\n"), (Level::ERROR, "eth0: a; b"));
        assert_eq!(parse("12,1,0,-;from user space\n"), (Level::WARN, "from user space"));
        assert_eq!(parse("7,1,0,-;detail"), (Level::DEBUG, "detail"));
        assert_eq!(parse("no header"), (Level::INFO, "no header"));
        assert_eq!(parse(""), (Level::INFO, ""));
    }
}
