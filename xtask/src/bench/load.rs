//! What is measured, and how.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::arena::{Arena, Place, Port, Server};
use super::samples::Summary;
use super::way::{Host, Road, Way};

/// One line of the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    /// Digits behind the point that mean something.
    pub(crate) digits: usize,
}

const fn metric(name: &'static str, label: &'static str, unit: &'static str, digits: usize) -> Metric {
    Metric { name, label, unit, digits }
}

/// A table of the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) metrics: &'static [Metric],
}

/// In the order of the report.
pub(crate) const GROUPS: &[Group] = &[
    Group { title: "Bulk out", metrics: BULK_OUT },
    Group { title: "Bulk in", metrics: BULK_IN },
    Group { title: "Round trips", metrics: ROUND_TRIPS },
    Group { title: "Connections", metrics: CONNECTIONS },
    Group { title: "Between two guests, over 127.0.0.1", metrics: BETWEEN },
    Group { title: "Start and memory", metrics: START },
];

/// Every line, whichever table it is in.
pub(crate) fn metrics() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|group| group.metrics)
}

const BULK_OUT: &[Metric] = &[
    metric("tx1", "bulk out, 1 stream", "Gbit/s", 1),
    metric("tx4", "bulk out, 4 streams", "Gbit/s", 1),
    metric("tx1_cpu", "processor time, bulk out", "s/GiB", 2),
];

const BULK_IN: &[Metric] = &[
    metric("rx1", "bulk in, 1 stream", "Gbit/s", 1),
    metric("rx4", "bulk in, 4 streams", "Gbit/s", 1),
    metric("rx1_cpu", "processor time, bulk in", "s/GiB", 2),
];

const ROUND_TRIPS: &[Metric] = &[
    metric("rr_pin_p50", "TCP_RR pinned, p50", "µs", 1),
    metric("rr_pin_p99", "TCP_RR pinned, p99", "µs", 1),
    metric("rr_p50", "TCP_RR, p50", "µs", 1),
    metric("rr_p99", "TCP_RR, p99", "µs", 1),
];

const CONNECTIONS: &[Metric] =
    &[metric("crr_pin", "connections pinned", "1/s", 0), metric("crr", "connections", "1/s", 0)];

const BETWEEN: &[Metric] = &[
    metric("g2g_tx1", "bulk, 1 stream", "Gbit/s", 1),
    metric("g2g_tx1_cpu", "processor time", "s/GiB", 2),
    metric("g2g_rr_pin_p50", "TCP_RR pinned, p50", "µs", 1),
    metric("g2g_crr_pin", "connections pinned", "1/s", 0),
];

const START: &[Metric] = &[
    metric("exit", "start to exit of /bin/true", "ms", 1),
    metric("first_byte", "start to first byte of a GET", "ms", 1),
    metric("mem_0", "memory of all helpers, idle", "MB", 1),
    metric("mem_100", "memory, 100 connections", "MB", 1),
];

/// A run of a program that gives one or more metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Load {
    /// The same with a server that is a guest too.
    BetweenBulk,
    BetweenConnects,
    BetweenRoundTrips,
    /// From the load to the server and back the other way, over so many connections.
    BulkIn(u32),
    BulkOut(u32),
    /// Connect, one byte there and back, close.
    Connects(Place),
    /// Until `/bin/true` has ended, and what was started for it.
    Exit,
    /// Until a program just started has the first byte of an answer.
    FirstByte,
    /// While so many connections are held.
    Memory(u32),
    /// One byte there and back on an open connection.
    RoundTrips(Place),
}

/// Every load.
pub(crate) const ALL: &[Load] = &[
    Load::BulkOut(1),
    Load::BulkOut(4),
    Load::BulkIn(1),
    Load::BulkIn(4),
    Load::RoundTrips(Place::Pinned),
    Load::RoundTrips(Place::Anywhere),
    Load::Connects(Place::Pinned),
    Load::Connects(Place::Anywhere),
    Load::BetweenBulk,
    Load::BetweenRoundTrips,
    Load::BetweenConnects,
    Load::Exit,
    Load::FirstByte,
    Load::Memory(0),
    Load::Memory(100),
];

/// How long each load takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    bulk: Duration,
    round_trips: Duration,
    /// Few enough that their TIME_WAIT entries stay few.
    connections: u32,
    starts: u32,
}

impl Pace {
    pub(crate) const FULL: Self = Self {
        bulk: Duration::from_millis(700),
        round_trips: Duration::from_millis(300),
        connections: 1000,
        starts: 3,
    };
    pub(crate) const QUICK: Self = Self {
        bulk: Duration::from_millis(200),
        round_trips: Duration::from_millis(100),
        connections: 200,
        starts: 1,
    };
}

/// The values of some metrics.
type Values = Vec<(&'static str, f64)>;

impl Load {
    /// Whether there is anything to learn from it on that way.
    pub(crate) fn is_for(self, way: Way) -> bool {
        match self {
            Self::BulkIn(_) | Self::BulkOut(_) => true,
            // It does not matter which link they do not use.
            Self::BetweenBulk | Self::BetweenConnects | Self::BetweenRoundTrips => {
                [Way::NATIVE, Way::SLIRP].contains(&way)
            }
            // There is nothing but the program itself.
            Self::Memory(_) => way.road != Road::Native && way.host == Host::Default,
            // Their few bytes fit into the least buffer.
            _ => way.host == Host::Default,
        }
    }

    /// Runs it once.
    ///
    /// # Errors
    /// When it does not end, or not well, or some of its connections failed.
    pub(crate) fn run(self, arena: &Arena, way: Way, pace: &Pace) -> Result<Values> {
        match self {
            Self::BetweenBulk => bulk(arena, way, pace, "tx", Server::Beside(Port::Sink), 1),
            Self::BetweenConnects => connects(arena, way, pace, Place::Pinned, Server::Beside(Port::Echo)),
            Self::BetweenRoundTrips => {
                round_trips(arena, way, pace, Place::Pinned, Server::Beside(Port::Echo))
            }
            Self::BulkIn(streams) => bulk(arena, way, pace, "rx", Server::Far(Port::Source), streams),
            Self::BulkOut(streams) => bulk(arena, way, pace, "tx", Server::Far(Port::Sink), streams),
            Self::Connects(place) => connects(arena, way, pace, place, Server::Far(Port::Echo)),
            Self::Exit => starts("exit", pace, || arena.time_to_exit(way, "/bin/true")),
            Self::FirstByte => starts("first_byte", pace, || arena.time_to_line(way, "ttfb", Port::Http)),
            Self::Memory(connections) => memory(arena, way, connections),
            Self::RoundTrips(place) => round_trips(arena, way, pace, place, Server::Far(Port::Echo)),
        }
    }
}

fn bulk(arena: &Arena, way: Way, pace: &Pace, mode: &str, server: Server, streams: u32) -> Result<Values> {
    let rest = [seconds(pace.bulk), streams.to_string()];
    let finished = arena.run(way, Place::Anywhere, mode, server, &rest)?;
    let speed = number(&finished.report, "gbps")?;
    let gib = number(&finished.report, "bytes")? / f64::from(1 << 30);
    let out = mode == "tx";
    Ok(match (out, streams) {
        _ if server.is_beside() => vec![("g2g_tx1", speed), ("g2g_tx1_cpu", finished.cpu / gib)],
        (true, 1) => vec![("tx1", speed), ("tx1_cpu", finished.cpu / gib)],
        (false, 1) => vec![("rx1", speed), ("rx1_cpu", finished.cpu / gib)],
        (true, _) => vec![("tx4", speed)],
        (false, _) => vec![("rx4", speed)],
    })
}

fn round_trips(arena: &Arena, way: Way, pace: &Pace, place: Place, server: Server) -> Result<Values> {
    let finished = arena.run(way, place, "tcp_rr", server, &[seconds(pace.round_trips)])?;
    if server.is_beside() {
        return Ok(vec![("g2g_rr_pin_p50", number(&finished.report, "p50_us")?)]);
    }
    let [p50, p99] = match place {
        Place::Anywhere => ["rr_p50", "rr_p99"],
        Place::Pinned => ["rr_pin_p50", "rr_pin_p99"],
    };
    Ok(vec![(p50, number(&finished.report, "p50_us")?), (p99, number(&finished.report, "p99_us")?)])
}

fn connects(arena: &Arena, way: Way, pace: &Pace, place: Place, server: Server) -> Result<Values> {
    // So many, however long it takes: time is only the limit.
    let rest = ["30".to_owned(), pace.connections.to_string()];
    let finished = arena.run(way, place, "tcp_crr", server, &rest)?;
    let name = match (server.is_beside(), place) {
        (true, _) => "g2g_crr_pin",
        (false, Place::Pinned) => "crr_pin",
        (false, Place::Anywhere) => "crr",
    };
    Ok(vec![(name, number(&finished.report, "rate")?)])
}

/// The median of a few: one start takes milliseconds, and one process elsewhere doubles it.
fn starts(name: &'static str, pace: &Pace, one: impl Fn() -> Result<Duration>) -> Result<Values> {
    let times = (0..pace.starts).map(|_| one()).collect::<Result<Vec<Duration>>>()?;
    let milliseconds = Summary::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
    Ok(milliseconds.into_iter().map(|summary| (name, summary.median)).collect())
}

fn memory(arena: &Arena, way: Way, connections: u32) -> Result<Values> {
    let name = if connections == 0 { "mem_0" } else { "mem_100" };
    Ok(vec![(name, arena.memory(way, connections)?)])
}

fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

fn number(report: &Value, field: &str) -> Result<f64> {
    report[field].as_f64().with_context(|| format!("the load reports no {field}: {report}"))
}
