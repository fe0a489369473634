//! What was asked: the command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use netshunt_backend::Publish;
use netshunt_policy::Action;
use serde::{Deserialize, Serialize};

use crate::{say, status};

const ABOUT: &str = "Runs an unmodified command with a TCP/IP stack of its own, without root";

const AFTER: &str = "\
Rules are tried in the order they are written, whichever option they belong to; the first that
matches decides. A RULE is [in:]DEST[:PORTS][/PROTO], where DEST is `*`, an address, a network, or
one of the protected groups host-local, link-local and multicast: 192.0.2.10:9000/tcp,
[2001:db8::/32]:80,443, 10.0.0.0/8. Options may also stand in a file (--config) and in the
environment (NETSHUNT_NET and its like); the command line wins.

The exit status is the command's. 125: netshunt itself failed; 126: the command cannot be executed;
127: there is no such command.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the backends that --net can name
    Backends,
    /// Find out whether netshunt works here, and what this system lacks
    Doctor(DoctorArgs),
    /// Look at the policy without running anything
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Run a command (`run` may be left out)
    Run(RunArgs),
}

/// Questions about the policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what would become of a connection, and which rule decides
    #[command(after_help = "The exit status is 0 when the connection may be made, 1 when it is refused.")]
    Check(CheckArgs),
}

#[derive(Debug, Parser)]
#[command(
    name = "netshunt",
    version,
    about = ABOUT,
    after_help = AFTER,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "netshunt [run] [OPTIONS] -- COMMAND...\n       netshunt backends | doctor | policy check"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    // Empty beside a subcommand.
    #[command(flatten)]
    run: RunArgs,
}

/// `netshunt run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) net: NetArgs,

    /// Let a port of this machine lead to one that the command listens on, over the link (may be
    /// repeated); without ADDR, on all of this machine's addresses
    #[arg(short, long, value_name = "[ADDR:]HOST[-HOST]:GUEST[-GUEST][/tcp|udp]")]
    pub(crate) publish: Vec<Publish>,

    /// Which AF_UNIX sockets the command may connect to: all but known deputies (default), allow
    /// (all), deny (only its own), or only these paths
    #[arg(long, value_name = "default|allow|deny|PATH[,PATH]")]
    pub(crate) unix: Option<String>,

    /// Refuse to start when this kernel lacks a layer of defence, and every AF_UNIX socket that
    /// was not made inside
    #[arg(long)]
    pub(crate) strict: bool,

    /// Append one JSON line per decided flow to FILE (`-`: standard error)
    #[arg(long, value_name = "FILE")]
    pub(crate) flow_log: Option<PathBuf>,

    /// Write what was counted, as one JSON object, to FILE (`-`: standard error) at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: Option<PathBuf>,

    /// When the command has ended, serve the processes it left behind to their end
    #[arg(long)]
    pub(crate) wait: bool,

    /// Let the command inherit descriptor N; all others above 2 are closed (may be repeated)
    #[arg(long, value_name = "N")]
    pub(crate) keep_fd: Vec<RawFd>,

    /// Let a command run by root keep its capabilities. It is then not confined
    #[arg(long)]
    pub(crate) keep_caps: bool,

    /// Say more: what is composed and what this kernel lacks; twice: every decision
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// How messages on standard error are written
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What decides where connections go: the backends and the rules.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NetArgs {
    /// At most one link (carries the frames of the stack) and at most one shunt (connects on the
    /// host), separated by a comma; or `none`. `netshunt backends` lists them [default: auto]
    #[arg(long, value_name = "BACKENDS")]
    pub(crate) net: Option<String>,

    #[command(flatten)]
    pub(crate) rules: RuleArgs,

    /// Who answers for a name server on the command's own loopback, where nobody listens: the link's forwarder to
    /// the host's, the one at ADDR, or nobody [default: auto]
    #[arg(long, value_name = "auto|ADDR|off")]
    pub(crate) dns: Option<Dns>,

    /// Whether the link offers IPv6 [default: on]
    #[arg(long, value_enum, value_name = "on|off", hide_possible_values = true)]
    pub(crate) ipv6: Option<Switch>,

    /// Largest IP packet on the link, in bytes [default: what suits the link]
    // 1280: the least for IPv6 (RFC 8200). 65520: the most a link carries.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..=65520))]
    pub(crate) mtu: Option<u16>,

    /// Read options from FILE (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `netshunt doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// The composition to examine [default: as for run]
    #[arg(long, value_name = "BACKENDS")]
    pub(crate) net: Option<String>,

    /// Read options from FILE (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Write one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `netshunt policy check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) net: NetArgs,

    /// Where to: an address, a port, and tcp (default), udp or icmp
    #[arg(value_name = "DEST[:PORT][/PROTO]")]
    pub(crate) dest: String,
}

/// `--dns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Dns {
    Address(IpAddr),
    Auto,
    Off,
}

impl FromStr for Dns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Dns::Auto),
            "off" => return Ok(Dns::Off),
            _ => {}
        }
        let address: IpAddr =
            text.parse().map_err(|_| format!("`{text}` is neither auto nor off nor an address"))?;
        if address.to_canonical().is_loopback() || address.is_unspecified() {
            return Err(format!("{text} is the command's own loopback; auto asks the host's"));
        }
        Ok(Dns::Address(address))
    }
}

impl TryFrom<String> for Dns {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Dns> for String {
    fn from(dns: Dns) -> String {
        match dns {
            Dns::Address(address) => address.to_string(),
            Dns::Auto => "auto".to_owned(),
            Dns::Off => "off".to_owned(),
        }
    }
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Json,
    Text,
}

/// An option with two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    Off,
    On,
}

/// The rules in the order they were written, across the three options: clap's derive would keep
/// three lists and lose the order, and the first match wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleArgs(pub(crate) Vec<(Action, String)>);

const RULES: [(Action, &str, &str); 3] = [
    (Action::Bypass, "bypass", "Connect what RULE matches on the host, past the stack (needs a shunt)"),
    (Action::Allow, "allow", "Let what RULE matches go through the stack (needs a link)"),
    (Action::Deny, "deny", "Refuse what RULE matches"),
];

impl Args for RuleArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        RULES.iter().fold(command, |command, (_, name, help)| {
            let arg = Arg::new(*name).long(*name).value_name("RULE").help(*help).action(ArgAction::Append);
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RuleArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Vec::new();
        for (action, name, _) in RULES {
            let texts = matches.get_many::<String>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            rules.extend(places.zip(texts).map(|(place, text)| (place, (action, text.clone()))));
        }
        rules.sort_by_key(|(place, _)| *place);
        Ok(RuleArgs(rules.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reads the command line.
///
/// # Errors
/// The exit status, once help, the version or what is wrong has been printed.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = Cli::try_parse_from(&args).map_err(|error| refuse(error, &args))?;
    Ok(cli.command.unwrap_or(Command::Run(cli.run)))
}

fn refuse(mut error: clap::Error, args: &[OsString]) -> ExitCode {
    // For an unknown option clap suggests `-- --option`: here that would run it as a command.
    error.remove(ContextKind::Suggested);
    let text = error.render().to_string();
    if let ErrorKind::DisplayHelp | ErrorKind::DisplayVersion = error.kind() {
        // Into a closed pipe (`netshunt --help | head -1`) is no failure.
        let _ = say::out(&text);
        return ExitCode::SUCCESS;
    }
    let of_run = args
        .iter()
        .take_while(|arg| *arg != "--")
        .all(|arg| !["policy", "doctor", "backends"].contains(&arg.to_str().unwrap_or_default()));
    if let (true, Some(word)) = (of_run, stray_word(&error)) {
        say::line(format_args!(
            "unexpected `{word}`: a command stands behind `--`, as in\n  netshunt [OPTIONS] -- {word} ...{}",
            // Alone it may as well be a subcommand misspelt.
            if args.len() == 2 { "\nThe subcommands are backends, doctor, policy and run." } else { "" }
        ));
    } else if of_run && error.kind() == ErrorKind::MissingRequiredArgument {
        say::line(format_args!(
            "there is no command: it stands behind `--`, as in\n  netshunt [OPTIONS] -- curl ...\nFor more information, try '--help'."
        ));
    } else {
        say::line(format_args!("{}", text.strip_prefix("error: ").unwrap_or(&text).trim_end()));
    }
    ExitCode::from(status::FAILED)
}

/// The word that clap did not expect, if it could be a command whose `--` was forgotten.
fn stray_word(error: &clap::Error) -> Option<&str> {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    match error.get(kind) {
        Some(ContextValue::String(word)) if !word.starts_with('-') => Some(word),
        _ => None,
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Command {
        parse(line.split(' ').map(OsString::from)).unwrap()
    }

    fn run(line: &str) -> RunArgs {
        let Command::Run(args) = parsed(line) else { panic!("not run: {line}") };
        args
    }

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rules_keep_the_order_of_the_command_line_across_options() {
        for line in [
            "netshunt --deny a --bypass b --net=x --allow c --bypass=d --deny e -- true",
            "netshunt run --deny a --bypass b --net=x --allow c --bypass=d --deny e -- true",
        ] {
            let rules: Vec<String> =
                run(line).net.rules.0.iter().map(|(action, rule)| format!("{action} {rule}")).collect();
            assert_eq!(rules, ["deny a", "bypass b", "allow c", "bypass d", "deny e"]);
        }
    }

    #[test]
    fn everything_behind_the_dashes_is_the_command() {
        let args = run("netshunt -vv -- doctor --net=x -- -v");
        assert_eq!(args.command, ["doctor", "--net=x", "--", "-v"]);
        assert_eq!(args.verbose, 2);
        assert_eq!(args.net.net, None);
    }

    #[test]
    fn a_subcommand_needs_no_command() {
        assert!(matches!(parsed("netshunt backends"), Command::Backends));
        assert!(matches!(parsed("netshunt doctor --json"), Command::Doctor(DoctorArgs { json: true, .. })));
    }

    #[test]
    fn a_name_server_is_auto_an_address_or_off() {
        assert_eq!(run("netshunt --dns=auto -- true").net.dns, Some(Dns::Auto));
        assert_eq!(run("netshunt --dns=off -- true").net.dns, Some(Dns::Off));
        for address in ["192.0.2.1", "2001:db8::1"] {
            let dns = run(&format!("netshunt --dns={address} -- true")).net.dns.unwrap();
            assert_eq!(
                (dns, String::from(dns)),
                (Dns::Address(address.parse().unwrap()), address.to_owned())
            );
        }
        for text in ["127.0.0.53", "::1", "::ffff:127.0.0.1", "0.0.0.0", "on", "192.0.2.1:53"] {
            assert!(text.parse::<Dns>().is_err(), "{text}");
        }
    }
}
