//! `netshunt run`: everything before the guest starts and after it has ended.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use netshunt_backend::{Backend, Composition, Registration, Settings};
use netshunt_notify::Features;
use netshunt_supervisor::{Config, Counters};
use tokio::runtime::{Builder, Runtime};
use tracing::{Level, enabled, info};

use crate::args::{Dns, LogFormat, RunArgs};
use crate::config::Plan;
use crate::flowlog::FlowLog;
use crate::front::{self, Side};
use crate::status::Leave;
use crate::{here, logging, say, sys};

/// `netshunt run`.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Leave> {
    here::proc()?;
    // Before anything of ours is opened: it would take the number of one that is missing.
    keep(&args.keep_fd)?;
    let line = match front::split()? {
        Side::Front(leave) => return Ok(leave),
        Side::Supervisor(line) => line,
    };
    sys::survive_file_limits();
    let mut plan = Plan::of_run(args)?;
    logging::start(args.verbose, args.log_format.unwrap_or(LogFormat::Text))?;
    let (flow_log, stats) = (plan.settings.flow_log.take(), plan.settings.stats.take());
    let mut config = config(args, plan)?;
    // Last: these leave files behind.
    let flows = flow_log.as_deref().map(FlowLog::open).transpose()?;
    let stats = stats.map(Stats::open).transpose()?;

    config.job = Some(line.clone());
    config.flows = flows.as_ref().map(|log| Box::new(log.sink()) as _);
    let runtime = runtime()?;
    let done = runtime.block_on(netshunt_supervisor::run(config));
    // Not dropped: that waits for every blocking thread, and one may sit in connect(2).
    runtime.shutdown_background();
    if let Some(flows) = flows {
        flows.finish();
    }

    let outcome = done.map_err(here::explain)?;
    if let Some(stats) = stats {
        stats.write(&outcome.counters);
    }
    mourn(outcome.survivors);
    Ok(line.end(outcome.end.into()))
}

/// The runtime that the supervisor's control plane runs in.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// Builds the backends of a composition: link, then shunt.
pub(crate) fn build(
    composition: Composition,
    settings: &Settings,
) -> anyhow::Result<[Option<Box<dyn Backend>>; 2]> {
    let build = |one: Option<&Registration>| one.map(|one| (one.build)(settings)).transpose();
    Ok([build(composition.link)?, build(composition.shunt)?])
}

fn config(args: &RunArgs, plan: Plan) -> anyhow::Result<Config> {
    let Plan { settings, rules, unix } = plan;
    let composition = Composition::parse(&settings.net)?;
    if enabled!(Level::INFO) {
        introduce(composition);
    }
    let mut config = Config::new(args.command.clone());
    [config.link, config.shunt] = build(composition, &settings.backend())?;
    config.rules = rules;
    config.unix = unix;
    config.dns = match settings.dns {
        Dns::Address(address) if config.link.is_none() => {
            bail!("--dns={address} needs a link, and --net={} has none: add slirp or passt", settings.net)
        }
        Dns::Address(address) => netshunt_supervisor::Dns::Address(address),
        Dns::Auto => netshunt_supervisor::Dns::Link,
        Dns::Off => netshunt_supervisor::Dns::Off,
    };
    config.library = settings.lkl;
    config.keep_fds.clone_from(&args.keep_fd);
    config.keep_caps = settings.keep_caps;
    config.strict = settings.strict;
    config.wait = settings.wait;
    Ok(config)
}

/// Says what is composed. The link's addresses are the supervisor's to say, who opens it.
fn introduce(composition: Composition) {
    let name = |one: Option<&Registration>| one.map_or("none", |one| one.name);
    info!(link = name(composition.link), shunt = name(composition.shunt), "network");
    // An error is the supervisor's to report.
    for missing in Features::detect().iter().flat_map(Features::missing) {
        info!(missing = missing.name, lost = missing.lost, "this kernel lacks a feature");
    }
}

/// Checks that each of `fds` is open.
fn keep(fds: &[RawFd]) -> anyhow::Result<()> {
    for &fd in fds {
        if fd <= 2 {
            bail!("--keep-fd {fd}: 0, 1 and 2 are always kept");
        }
        if !PathBuf::from(format!("/proc/self/fd/{fd}")).is_symlink() {
            bail!("--keep-fd {fd}: this descriptor is not open; a shell opens it as in `{fd}<FILE`");
        }
    }
    Ok(())
}

fn mourn(survivors: usize) {
    let (processes, run, their) = match survivors {
        0 => return,
        1 => ("process", "runs", "its"),
        _ => ("processes", "run", "their"),
    };
    say::line(format_args!(
        "{survivors} {processes} of the command still {run}; {their} network calls fail from now on (--wait serves them)"
    ));
}

/// Where the counters go (`-` is standard error). Opened before the guest starts, so that a wrong name costs nothing.
struct Stats {
    name: PathBuf,
    out: Box<dyn Write>,
}

impl Stats {
    fn open(name: PathBuf) -> anyhow::Result<Stats> {
        if name == Path::new("-") {
            return Ok(Stats { name, out: Box::new(io::stderr()) });
        }
        let file = File::create(&name).with_context(|| format!("cannot write {}", name.display()))?;
        Ok(Stats { name, out: Box::new(file) })
    }

    /// The command has had its say by now: a failure is told, and changes nothing.
    fn write(mut self, counters: &Counters) {
        // In one piece, as on standard error others write too.
        let text = serde_json::to_string(counters).expect("numbers under names") + "\n";
        if let Err(error) = self.out.write_all(text.as_bytes()) {
            say::line(format_args!("cannot write {}: {error}", self.name.display()));
        }
    }
}
