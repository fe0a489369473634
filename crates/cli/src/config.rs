//! What was asked, from four layers: what is built in, a file, the environment, and the options.
//! Each overrides the one before. Only rules add up: the options' come first, then the file's.
//!
//! figment is known to this file alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use figment::Figment;
use figment::providers::{Env, Serialized};
use netshunt_backend::{self as backend, Composition, Publish, registry};
use netshunt_policy::{Action, Rule, UnixPolicy};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::args::{Dns, NetArgs, RunArgs, Switch};
use crate::backends;

/// Variables `NETSHUNT_…` that are options. A list, because others of that prefix mean other
/// things (`NETSHUNT_LOG`), and no list holds rules or capabilities: what opens something should
/// be seen where the command is.
const VARIABLES: &[&str] = &["dns", "flow-log", "ipv6", "lkl", "mtu", "net", "stats", "strict", "unix"];

/// What was asked of everything that needs a policy.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    /// First match wins.
    pub(crate) rules: Vec<(Action, Rule)>,
    pub(crate) unix: UnixPolicy,
}

/// All layers merged.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Settings {
    pub(crate) dns: Dns,
    pub(crate) flow_log: Option<PathBuf>,
    pub(crate) ipv6: Switch,
    pub(crate) keep_caps: bool,
    pub(crate) lkl: Option<PathBuf>,
    pub(crate) mtu: Option<u16>,
    pub(crate) net: String,
    pub(crate) stats: Option<PathBuf>,
    pub(crate) strict: bool,
    unix: Option<String>,
    pub(crate) wait: bool,
    /// The options' and the file's.
    #[serde(skip)]
    publish: Vec<Publish>,
    /// The tables of single backends, from the file alone: past figment, which would merge and rename.
    #[serde(skip)]
    backends: toml::Table,
}

impl Default for Settings {
    fn default() -> Self {
        let link = backend::Settings::default();
        Settings {
            dns: Dns::Auto,
            flow_log: None,
            ipv6: if link.ipv6 { Switch::On } else { Switch::Off },
            keep_caps: false,
            lkl: None,
            mtu: link.mtu,
            net: backends::default_net().to_owned(),
            stats: None,
            strict: false,
            unix: None,
            wait: false,
            publish: Vec::new(),
            backends: toml::Table::new(),
        }
    }
}

/// One layer: what it leaves open shines through. This is also the format of the file, but for the tables
/// of single backends.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Layer {
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_log: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Switch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_caps: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lkl: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<String>,
    #[serde(skip_serializing)]
    publish: Vec<Spanned<String>>,
    /// "deny 10.0.0.0/8": one list, because the order counts.
    #[serde(skip_serializing)]
    rules: Vec<Spanned<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<bool>,
}

impl From<&NetArgs> for Layer {
    fn from(args: &NetArgs) -> Self {
        Layer { dns: args.dns, ipv6: args.ipv6, mtu: args.mtu, net: args.net.clone(), ..Layer::default() }
    }
}

impl From<&RunArgs> for Layer {
    fn from(args: &RunArgs) -> Self {
        Layer {
            keep_caps: args.keep_caps.then_some(true),
            strict: args.strict.then_some(true),
            unix: args.unix.clone(),
            wait: args.wait.then_some(true),
            ..Layer::from(&args.net)
        }
    }
}

impl Plan {
    /// For `netshunt run`.
    pub(crate) fn of_run(args: &RunArgs) -> anyhow::Result<Plan> {
        let mut plan = Plan::read(&args.net, Layer::from(args))?;
        plan.settings.publish.extend_from_slice(&args.publish);
        plan.settings.check_publish()?;
        // Past figment, which carries text only: a path need not be UTF-8.
        plan.settings.flow_log = args.flow_log.clone().or(plan.settings.flow_log);
        plan.settings.stats = args.stats.clone().or(plan.settings.stats);
        Ok(plan)
    }

    /// For what runs nothing.
    pub(crate) fn of_net(args: &NetArgs) -> anyhow::Result<Plan> {
        Plan::read(args, Layer::from(args))
    }

    fn read(args: &NetArgs, options: Layer) -> anyhow::Result<Plan> {
        let mut rules = Vec::with_capacity(args.rules.0.len());
        for (action, text) in &args.rules.0 {
            rules.push((*action, text.parse().with_context(|| format!("--{action}"))?));
        }
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        rules.extend(file.rules);
        let mut settings = merge(file.layer, options)?;
        settings.backends = file.backends;
        settings.publish = file.publish;
        let unix = unix(&settings)?;
        Ok(Plan { settings, rules, unix })
    }
}

impl Settings {
    /// What the backends are told.
    pub(crate) fn backend(&self) -> backend::Settings {
        let mut settings = backend::Settings::default();
        settings.mtu = self.mtu;
        settings.ipv6 = self.ipv6 == Switch::On;
        settings.publish.clone_from(&self.publish);
        settings.backends.clone_from(&self.backends);
        settings
    }

    /// Only a link can lead to what the command listens on.
    fn check_publish(&self) -> anyhow::Result<()> {
        let link = Composition::parse(&self.net)?.link;
        match self.publish.first() {
            Some(publish) if link.is_none() => {
                bail!("--publish={publish} needs a link, and --net={} has none: add slirp or passt", self.net)
            }
            _ => Ok(()),
        }
    }
}

fn merge(file: Layer, options: Layer) -> anyhow::Result<Settings> {
    let environment = Env::prefixed("NETSHUNT_")
        .map(|name| name.as_str().to_ascii_lowercase().replace('_', "-").into())
        .only(VARIABLES);
    let settings: Settings = Figment::from(Serialized::defaults(Settings::default()))
        .merge(Serialized::defaults(file))
        .merge(environment)
        .merge(Serialized::defaults(options))
        .extract()
        // The file was checked by toml and the options by clap: only a variable can be wrong.
        .map_err(|error| anyhow!("{}: {}", variable(&error.path), error.kind))?;
    if let Some(mtu) = settings.mtu
        && !(1280..=65520).contains(&mtu)
    {
        bail!("mtu {mtu} is not in 1280..=65520");
    }
    Ok(settings)
}

fn variable(path: &[String]) -> String {
    format!("NETSHUNT_{}", path.join("_").to_ascii_uppercase().replace('-', "_"))
}

fn unix(settings: &Settings) -> anyhow::Result<UnixPolicy> {
    match (&settings.unix, settings.strict) {
        (None, false) => Ok(UnixPolicy::Default),
        (None, true) => Ok(UnixPolicy::Inside),
        (Some(text), false) => Ok(text.parse()?),
        // What --strict asks for anyway.
        (Some(text), true) if text == "deny" => Ok(UnixPolicy::Inside),
        (Some(text), true) => {
            bail!("--strict refuses every AF_UNIX socket that was not made inside: leave out --unix={text}")
        }
    }
}

/// What a file says.
#[derive(Default)]
struct File {
    layer: Layer,
    rules: Vec<(Action, Rule)>,
    publish: Vec<Publish>,
    backends: toml::Table,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<File> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let at = |span| format!("{}{}", path.display(), line(&text, span));
        let fault = |error: toml::de::Error| {
            anyhow!("{}: {}\n{}", at(error.span()), error.message(), excerpt(&text, error.span()))
        };
        let mut all = DeTable::parse(&text).map_err(fault)?;
        let mut backends = toml::Table::new();
        for (name, table) in tables(&mut all) {
            let spans = spans(&name, &table);
            let table = toml::Table::deserialize(Deserializer::from(table)).map_err(fault)?;
            if let Err((word, message)) = accepted(name.get_ref(), &table) {
                let span = word.and_then(|word| spans.get(&word).cloned()).unwrap_or(name.span());
                bail!("{}: {message}\n{}", at(Some(span.clone())), excerpt(&text, Some(span)));
            }
            backends.insert(name.into_inner().into_owned(), toml::Value::Table(table));
        }
        let layer = Layer::deserialize(Deserializer::from(all)).map_err(fault)?;
        let mut rules = Vec::with_capacity(layer.rules.len());
        for rule in &layer.rules {
            rules.push(parse_rule(rule.get_ref()).with_context(|| at(Some(rule.span())))?);
        }
        let mut publish = Vec::with_capacity(layer.publish.len());
        for text in &layer.publish {
            publish.push(text.get_ref().parse().with_context(|| at(Some(text.span())))?);
        }
        Ok(File { layer, rules, publish, backends })
    }
}

type Name<'t> = Spanned<Cow<'t, str>>;

/// Takes the tables out: those of single backends.
fn tables<'t>(all: &mut Spanned<DeTable<'t>>) -> Vec<(Name<'t>, Spanned<DeTable<'t>>)> {
    let all = all.get_mut();
    let is_table = |value: &Spanned<DeValue<'_>>| matches!(value.get_ref(), DeValue::Table(_));
    let names: Vec<Name<'t>> =
        all.iter().filter(|(_, value)| is_table(value)).map(|(name, _)| name.clone()).collect();
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let value = all.remove(&name).expect("it was there a line above");
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else { unreachable!("it was one above") };
        tables.push((name, Spanned::new(span, table)));
    }
    tables
}

/// Where the keys of a table stand.
fn spans(name: &Name<'_>, table: &Spanned<DeTable<'_>>) -> BTreeMap<String, Range<usize>> {
    let keys = table.get_ref().keys().map(|key| (key.get_ref().to_string(), key.span()));
    std::iter::once((name.get_ref().to_string(), name.span())).chain(keys).collect()
}

/// Whether there is such a backend, and it understands its table, also when it is not the one in use; if
/// not, the key at fault, when it is known, and why.
fn accepted(name: &str, table: &toml::Table) -> Result<(), (Option<String>, String)> {
    let Some(found) = registry::find(name) else {
        let registered = registry::names().join(", ");
        return Err((None, format!("there is no backend `{name}`; this program has {registered}")));
    };
    let mut settings = backend::Settings::default();
    settings.backends.insert(name.to_owned(), toml::Value::Table(table.clone()));
    match (found.build)(&settings) {
        Err(backend::Error::Options { source, .. }) => {
            // The error knows no place in a text that it never saw, but it says the key.
            let told = source.to_string();
            // Before the keys that would be right, which may be there too.
            let place = |key: &&String| told.find(&format!("`{key}`")).unwrap_or(usize::MAX);
            let word = table.keys().min_by_key(place).filter(|key| place(key) != usize::MAX);
            Err((word.cloned(), source.message().to_owned()))
        }
        // Anything else is for whoever uses it.
        _ => Ok(()),
    }
}

fn parse_rule(text: &str) -> anyhow::Result<(Action, Rule)> {
    let (word, rule) = text.split_once(' ').unwrap_or((text, ""));
    let action = match word {
        "allow" => Action::Allow,
        "bypass" => Action::Bypass,
        "deny" => Action::Deny,
        _ => bail!("a rule begins with allow, bypass or deny, as in `deny 10.0.0.0/8`; this is `{text}`"),
    };
    Ok((action, rule.trim().parse()?))
}

/// `:LINE`, counted from one.
fn line(text: &str, span: Option<Range<usize>>) -> String {
    span.map_or_else(String::new, |span| format!(":{}", text[..span.start].matches('\n').count() + 1))
}

/// The line at fault with a caret below.
fn excerpt(text: &str, span: Option<Range<usize>>) -> String {
    let Some(span) = span else { return String::new() };
    let start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or("");
    let indent = text[start..span.start].chars().count();
    format!("{line}\n{:indent$}^", "")
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write;

    use super::*;
    use crate::args::{Command, RuleArgs, parse};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn args(file: &tempfile::NamedTempFile) -> NetArgs {
        NetArgs { config: Some(file.path().to_owned()), ..NetArgs::default() }
    }

    fn fault(text: &str) -> String {
        let file = file(text);
        format!("{:#}", Plan::of_net(&args(&file)).unwrap_err())
            .replace(file.path().to_str().unwrap(), "FILE")
    }

    #[test]
    fn options_override_the_file_which_overrides_what_is_built_in() {
        let file = file("net = \"none\"\nmtu = 1500\nwait = true\n");
        let plan = Plan::of_net(&NetArgs { mtu: Some(9000), ..args(&file) }).unwrap();
        assert_eq!((plan.settings.net.as_str(), plan.settings.mtu), ("none", Some(9000)));
        assert!(plan.settings.wait);
        assert_eq!(plan.settings.ipv6, Switch::On);
    }

    #[test]
    fn the_rules_of_the_options_come_before_those_of_the_file() {
        let file = file("rules = [\"deny 10.0.0.0/8\", \"bypass *\"]");
        let options = RuleArgs(vec![(Action::Bypass, "10.0.0.1".into())]);
        let plan = Plan::of_net(&NetArgs { rules: options, ..args(&file) }).unwrap();
        let rules: Vec<String> = plan.rules.iter().map(|(action, rule)| format!("{action} {rule}")).collect();
        assert_eq!(rules, ["bypass 10.0.0.1", "deny 10.0.0.0/8", "bypass *"]);
    }

    #[test]
    fn a_fault_in_the_file_is_shown_where_it_is() {
        assert_eq!(
            fault("net = \"none\"\nmut = 1500\n").lines().collect::<Vec<_>>()[1..],
            ["mut = 1500", "^"]
        );
        assert!(
            fault("net = \"none\"\nmut = 1500\n").starts_with("FILE:2: unknown field `mut`, expected one of")
        );
        assert!(fault("mtu = \"big\"").starts_with("FILE:1: invalid type: string \"big\", expected u16"));
        assert!(
            fault("rules = [\n  \"deny *\",\n  \"open *\",\n]").starts_with("FILE:3: a rule begins with")
        );
        assert!(fault("rules = [\"deny 10.0.0.0/33\"]").starts_with("FILE:1: "));
        assert_eq!(fault("mtu = 100"), "mtu 100 is not in 1280..=65520");
    }

    #[test]
    fn published_ports_add_up_and_need_a_link() {
        let file = file("publish = [\"127.0.0.1:8080:80\"]");
        let config = file.path().display();
        let plan = |options: &str| {
            let line = format!("netshunt --config={config} {options} -- true");
            match parse(line.split(' ').map(OsString::from)).unwrap() {
                Command::Run(args) => Plan::of_run(&args),
                other => panic!("{other:?}"),
            }
        };
        let settings = plan("--net=slirp -p 8443:443 --publish=[::1]:53:53/udp").unwrap().settings.backend();
        let published: Vec<String> = settings.publish.iter().map(ToString::to_string).collect();
        assert_eq!(published, ["127.0.0.1:8080:80/tcp", "8443:443/tcp", "[::1]:53:53/udp"]);
        assert_eq!(
            plan("--net=host-bypass").unwrap_err().to_string(),
            "--publish=127.0.0.1:8080:80/tcp needs a link, and --net=host-bypass has none: add slirp or passt"
        );
        assert!(fault("net = \"none\"\npublish = [\"80\"]").starts_with("FILE:2: `80` is not [ADDR:]HOST"));
    }

    #[test]
    fn a_table_is_for_the_backend_of_its_name() {
        let file = file("net = \"none\"\n[passt]\nprogram = \"/opt/passt\"\n");
        let settings = Plan::of_net(&args(&file)).unwrap().settings;
        assert_eq!(settings.backend().backends["passt"]["program"].as_str(), Some("/opt/passt"));
        assert_eq!(
            fault("net = \"none\"\n\n  [glass]\n"),
            "FILE:3: there is no backend `glass`; this program has auto, host-bypass, passt, slirp\n  [glass]\n   ^"
        );
    }

    #[test]
    fn a_fault_in_a_table_is_shown_where_it_is() {
        let told = fault("[passt]\nprogram = \"/opt/passt\"\nprogramme = 1\n");
        assert!(told.starts_with("FILE:3: unknown field `programme`, expected"), "{told}");
        assert!(told.ends_with("\nprogramme = 1\n^"), "{told}");
        let told = fault("[passt]\n\nmode = \"fast\"\n");
        assert!(told.starts_with("FILE:3: unknown variant `fast`, expected"), "{told}");
        // A table that nobody reads is a mistake too.
        assert!(fault("[slirp]\nmode = 1\n").starts_with("FILE:2: unknown field `mode`"));
        assert!(fault("[passt\n").starts_with("FILE:1: "));
    }

    #[test]
    fn no_variable_carries_a_table() {
        let listed = |name: &&str| registry::find(name).is_some();
        assert!(!VARIABLES.iter().any(listed));
    }

    #[test]
    fn strict_and_unix_do_not_mix() {
        let settings = |unix: Option<&str>, strict| Settings {
            unix: unix.map(str::to_owned),
            strict,
            ..Settings::default()
        };
        assert!(matches!(unix(&settings(None, true)), Ok(UnixPolicy::Inside)));
        assert!(matches!(unix(&settings(Some("allow"), false)), Ok(UnixPolicy::Allow)));
        assert!(unix(&settings(Some("allow"), true)).is_err());
    }
}
