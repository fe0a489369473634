//! `netshunt doctor`: does it work here, and what does this system lack?
//!
//! What can be asked is asked; then a trial decides: `true` is run under netshunt. That finds what
//! no version number tells (a container's seccomp profile, another listener above us, Yama).

use std::fmt::Write as _;
use std::path::PathBuf;

use netshunt_backend::{Backend, Composition, Registration, registry};
use netshunt_lkl::Library;
use netshunt_notify::{Features, KernelVersion};
use netshunt_supervisor::{Config, End};
use serde::Serialize;

use crate::args::{DoctorArgs, NetArgs};
use crate::config::{Plan, Settings};
use crate::run::{build, runtime};
use crate::status::Leave;
use crate::{here, say};

/// netshunt cannot work here.
const BROKEN: u8 = 1;

/// What netshunt makes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works with less: `note` says what is lost.
    Reduced,
    /// It does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What is lost, or what to do.
    note: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Finding { check, state: State::Ok, found: found.into(), note: None }
    }

    fn reduced(check: &'static str, found: impl Into<String>, note: impl Into<String>) -> Self {
        Finding { check, state: State::Reduced, found: found.into(), note: Some(note.into()) }
    }

    fn broken(check: &'static str, error: &anyhow::Error) -> Self {
        Finding { check, state: State::Broken, found: format!("{error:#}"), note: None }
    }
}

#[derive(Serialize)]
struct Report {
    works: bool,
    net: String,
    findings: Vec<Finding>,
}

/// `netshunt doctor`.
pub(crate) fn examine(args: &DoctorArgs) -> anyhow::Result<Leave> {
    let plan =
        Plan::of_net(&NetArgs { net: args.net.clone(), config: args.config.clone(), ..NetArgs::default() })?;
    let composition = Composition::parse(&plan.settings.net)?;
    let mut findings = Vec::from_iter(here::proc().err().map(|error| Finding::broken("proc", &error)));
    findings.extend(kernel());
    findings.push(seccomp());
    findings.push(library(&plan.settings));
    if let Some(link) = composition.link {
        findings.extend(links(link, &plan.settings));
    }
    // What is broken for itself would only be told a second time.
    if works(&findings) {
        findings.push(trial(composition, &plan.settings));
    }
    let works = works(&findings);
    let report = Report { works, net: plan.settings.net, findings };
    say::out(&if args.json { serde_json::to_string(&report)? + "\n" } else { table(&report) })?;
    Ok(Leave::Status(if works { 0 } else { BROKEN }))
}

fn works(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Broken)
}

/// The running kernel and what it offers.
fn kernel() -> Vec<Finding> {
    let features = match Features::detect() {
        Ok(features) => features,
        Err(error) => return vec![Finding::broken("kernel", &error.into())],
    };
    let version = format!("Linux {}, {} or newer is needed", features.kernel, KernelVersion::FLOOR);
    let mut findings = vec![Finding::ok("kernel", version)];
    for missing in features.missing() {
        let since = missing.since.map_or_else(String::new, |since| format!(" (Linux {since})"));
        findings.push(Finding::reduced("feature", format!("no {}{since}", missing.name), missing.lost));
    }
    if let Some(abi) = features.landlock_abi {
        findings.push(Finding::ok("landlock", format!("ABI {abi}")));
    }
    let scope = features.yama_ptrace_scope;
    let yama = scope.map_or_else(|| "not built in".to_owned(), |scope| format!("ptrace_scope {scope}"));
    findings.push(Finding::ok("yama", yama));
    findings
}

/// Whether we run under somebody else's filter already.
fn seccomp() -> Finding {
    if !here::filtered() {
        return Finding::ok("seccomp", "no filter above us");
    }
    Finding::reduced(
        "seccomp",
        "netshunt itself runs under a filter",
        "if that filter has a listener, as another netshunt's has, no guest can start here (EBUSY)",
    )
}

/// The kernel library: where it is and which kernel it holds.
fn library(settings: &Settings) -> Finding {
    let load = || -> anyhow::Result<(PathBuf, String)> {
        let path = netshunt_lkl::find(settings.lkl.as_deref())?;
        let version = Library::load(&path)?.version();
        Ok((path, version))
    };
    match load() {
        Ok((path, version)) => Finding::ok("library", format!("Linux {version}, {}", path.display())),
        Err(error) => Finding::broken("library", &error),
    }
}

/// The link; of `auto` all that it chooses from, of which one must work.
fn links(link: &'static Registration, settings: &Settings) -> Vec<Finding> {
    if link.name != registry::AUTO {
        return vec![open(link, settings)];
    }
    let mut findings: Vec<Finding> =
        registry::automatic().into_iter().map(|link| open(link, settings)).collect();
    if let Some(chosen) = findings.iter().find(|finding| finding.state == State::Ok).map(|found| found.check)
    {
        for other in findings.iter_mut().filter(|finding| finding.state == State::Broken) {
            other.state = State::Reduced;
            other.note = Some(format!("this link; --net=auto takes {chosen}"));
        }
    }
    findings
}

/// Whether the link opens, the addresses it gives, and what it relies on.
fn open(link: &Registration, settings: &Settings) -> Finding {
    let open = || -> anyhow::Result<String> {
        let backend: Box<dyn Backend> = (link.build)(&settings.backend())?;
        let open = runtime()?.block_on(backend.open())?;
        let network = open.network();
        let v4 = network.v4.map(|v4| v4.address.to_string());
        let v6 = network.v6.map(|v6| v6.address.to_string());
        let all = v4.into_iter().chain(v6).chain([format!("mtu {}", network.mtu)]).chain(backend.relies_on());
        Ok(all.collect::<Vec<_>>().join(", "))
    };
    match open() {
        Ok(found) => Finding::ok(link.name, found),
        Err(error) => Finding::broken(link.name, &error),
    }
}

/// Runs `true` as a guest.
fn trial(composition: Composition, settings: &Settings) -> Finding {
    let run = || -> anyhow::Result<End> {
        let mut config = Config::new(vec!["true".into()]);
        [config.link, config.shunt] = build(composition, &settings.backend())?;
        config.library.clone_from(&settings.lkl);
        let runtime = runtime()?;
        let outcome = runtime.block_on(netshunt_supervisor::run(config));
        runtime.shutdown_background();
        Ok(outcome.map_err(here::explain)?.end)
    };
    match run() {
        Ok(End::Exited(0)) => Finding::ok("trial", "`true` ran as a guest"),
        Ok(end) => Finding::broken("trial", &anyhow::anyhow!("`true` ran as a guest and ended with {end:?}")),
        Err(error) => Finding::broken("trial", &error),
    }
}

fn table(report: &Report) -> String {
    let mut table = String::new();
    for Finding { check, state, found, note } in &report.findings {
        let state = match state {
            State::Ok => "ok",
            State::Reduced => "reduced",
            State::Broken => "BROKEN",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{state:7}  {check:8}  {found}");
        if let Some(note) = note {
            let _ = writeln!(table, "{:19}lost: {note}", "");
        }
    }
    let verdict = if report.works { "works" } else { "does not work" };
    let _ = writeln!(table, "netshunt {verdict} here with --net={}", report.net);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_is_lost() {
        let report = Report {
            works: false,
            net: "slirp".into(),
            findings: vec![
                Finding::ok("kernel", "Linux 6.1"),
                Finding::reduced("feature", "no Landlock ABI 4 (Linux 6.7)", "a line of defence"),
                Finding::broken("library", &anyhow::anyhow!("there is none")),
            ],
        };
        assert_eq!(
            table(&report),
            "\
ok       kernel    Linux 6.1
reduced  feature   no Landlock ABI 4 (Linux 6.7)
                   lost: a line of defence
BROKEN   library   there is none
netshunt does not work here with --net=slirp
"
        );
    }
}
