//! Messages on standard error, by `tracing`. Warnings are always shown.

use std::fmt;
use std::io;

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt as log};

use crate::args::LogFormat;

/// Overrules `-v`: `NETSHUNT_LOG=netshunt_supervisor=debug`.
const VARIABLE: &str = "NETSHUNT_LOG";

/// The target of the stack's own log.
const KERNEL: &str = "netshunt_lkl::kernel";

/// Begins to log.
pub(crate) fn start(verbose: u8, format: LogFormat) -> anyhow::Result<()> {
    match std::env::var(VARIABLE) {
        Ok(filter) => {
            begin(EnvFilter::try_new(&filter).with_context(|| format!("{VARIABLE}={filter}"))?, format)
        }
        // Not by directives: building a filter of those costs a good part of our start-up.
        Err(_) => begin(levels(verbose), format),
    }
    .context("cannot log")
}

/// What `-v` shows. The stack is a whole kernel with a kernel's log: what it warns of while it boots
/// concerns its developers, so it speaks one level later than we do.
fn levels(verbose: u8) -> Targets {
    const STEPS: [LevelFilter; 5] =
        [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
    let step = usize::from(verbose).min(STEPS.len() - 2);
    Targets::new().with_default(STEPS[step + 1]).with_target(KERNEL, STEPS[step])
}

fn begin<F>(filter: F, format: LogFormat) -> Result<(), TryInitError>
where
    F: Layer<tracing_subscriber::Registry> + Send + Sync + 'static,
{
    let base = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => base.with(log::layer().json().with_writer(io::stderr)).try_init(),
        LogFormat::Text => {
            base.with(log::layer().with_ansi(false).event_format(Line).with_writer(io::stderr)).try_init()
        }
    }
}

/// `netshunt: warning: message name=value`: like our other messages, and told apart from the
/// command's, which go to the same place.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let word = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG => "debug: ",
            Level::TRACE => "trace: ",
        };
        write!(to, "netshunt: {word}")?;
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_speaks_one_level_later() {
        let shown = |verbose, target, level| levels(verbose).would_enable(target, &level);
        assert!(shown(0, "netshunt_supervisor", Level::WARN) && !shown(0, KERNEL, Level::WARN));
        assert!(shown(1, "netshunt_supervisor", Level::INFO) && !shown(1, KERNEL, Level::INFO));
        assert!(shown(0, KERNEL, Level::ERROR) && shown(9, KERNEL, Level::DEBUG));
    }
}
