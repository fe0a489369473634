//! Command lines: rules stay in their order whichever option they are, and what is behind `--` is the command's.

use std::os::unix::ffi::OsStringExt;

use netshunt_fuzz::{Input, fuzz};

use super::*;

fn read(input: &mut Input<'_>) {
    const OTHERS: &[&str] = &["-v", "--keep-fd=5", "-p80:80", "--publish=[::1]:53:53/udp"];
    const ONCE: &[&str] = &["--strict", "--mtu=1500", "--net=none", "--unix=/run/x", "--wait", "--dns=off"];
    let mut words: Vec<OsString> = vec!["netshunt".into()];
    let (mut rules, mut once) = (Vec::new(), ONCE.to_vec());
    if input.one_in(4) {
        words.push("run".into());
    }
    for _ in 0..input.up_to(6) {
        match input.up_to(3) {
            0 => words.push((*input.pick(OTHERS)).into()),
            1 if !once.is_empty() => words.push(once.remove(input.up_to(once.len() - 1)).into()),
            _ => {
                let (action, name, _) = *input.pick(&RULES);
                let rule = format!("10.0.0.{}", input.byte());
                match input.one_in(2) {
                    true => words.push(format!("--{name}={rule}").into()),
                    false => words.extend([format!("--{name}").into(), rule.clone().into()]),
                }
                rules.push((action, rule));
            }
        }
    }
    let command: Vec<OsString> = (0..=input.up_to(3))
        .map(|_| match input.one_in(2) {
            true => OsString::from_vec(input.bytes(5)),
            false => (*input.pick(&["--", "--deny", "-v", "run", ""])).into(),
        })
        .collect();
    let spoilt = input.one_in(4);
    if spoilt {
        let at = 1 + input.up_to(words.len() - 1);
        let mut word = words.get(at).cloned().unwrap_or_default().into_vec();
        input.spoil(&mut word);
        words.insert(at, OsString::from_vec(word));
    }
    words.push("--".into());
    words.extend(command.iter().cloned());
    let cli = Cli::try_parse_from(&words);
    input.reached((cli.as_ref().map_err(clap::Error::kind).err(), rules.len()));
    match cli {
        _ if spoilt => {}
        Ok(Cli { command: Some(Command::Run(run)), .. } | Cli { command: None, run }) => {
            assert_eq!((run.net.rules.0, run.command), (rules, command), "{words:?}");
        }
        other => panic!("{words:?}: {:?}", other.map(|_| ())),
    }
}

#[test]
fn command_lines() {
    fuzz("command_lines", read);
}
