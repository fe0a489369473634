//! Files of configuration that are well formed, nearly, or not at all.

use std::io::Write;

use netshunt_fuzz::{Input, fuzz};

use super::*;

const LINES: &[&str] = &[
    "net = \"none\"\n",
    "net = \"slirp,host-bypass\"\n",
    "mtu = 1500\n",
    "mtu = 99999999999999999999\n",
    "ipv6 = \"off\"\n",
    "dns = \"auto\"\n",
    "strict = true\n",
    "unix = \"/run/x\"\n",
    "wait = false\n",
    "rules = [\"deny 10.0.0.0/8\", \"allow *\"]\n",
    "rules = [\n  \"deny 10.0.0.0/33\",\n]\n",
    "publish = [\"8080:80\"]\n",
    "publish = [\"80\"]\n",
    "flow-log = \"-\"\n",
    "[passt]\n",
    "[slirp]\n",
    "[glass]\n",
    "program = \"/opt/passt\"\n",
    "mode = \"fast\"\n",
    "mode = \"stream\"\n",
    "\"é\" = \"\u{202e}\"\n",
    "[[passt]]\n",
    "passt.mode = 1\n",
    "passt = {mode = \"stream\", \"𝟘\" = 2}\n",
    "keep-caps = 1\n",
    "lkl = '''\nx'''\n",
];
const WORDS: &[&str] = &[
    "\"", "'", "[", "]", "=", "{", "}", ",", "#", "\n", "\r\n", "mtu", "rules", "\\u00e9", "\"\"\"", ".",
    "1", "true", "[passt]",
];

fn written(input: &mut Input<'_>) -> String {
    let mut text: String = (0..input.up_to(6)).map(|_| *input.pick(LINES)).collect();
    for _ in 0..input.up_to(2) {
        let at = input.up_to(text.len());
        if text.is_char_boundary(at) {
            text.insert_str(at, &input.text(WORDS, 4));
        }
    }
    text
}

/// A file means something, or is told to mean nothing: with its name, a line that it has, and what stands there.
fn read(input: &mut Input<'_>) {
    let text = written(input);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let name = file.path().display().to_string();
    match File::read(file.path()) {
        Ok(File { layer, rules, publish, backends }) => {
            input.reached((rules.len(), publish.len(), backends.len(), layer.mtu.is_some(), layer.strict));
            assert_eq!((rules.len(), publish.len()), (layer.rules.len(), layer.publish.len()));
            assert!(backends.keys().all(|name| registry::find(name).is_some()));
            // Written again, it is the same.
            for (action, rule) in &rules {
                assert_eq!(parse_rule(&format!("{action} {rule}")).unwrap(), (*action, rule.clone()));
            }
        }
        Err(error) => {
            let told = format!("{error:#}");
            let rest = told.strip_prefix(&name).expect("it names the file");
            let line = rest.strip_prefix(':').and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
            // Without what is quoted.
            let kind: String = rest.split('`').step_by(2).collect();
            input.reached(kind.chars().filter(|c| c.is_alphabetic()).take(9).collect::<String>());
            let line = line.expect("it names the line");
            assert!((1..=text.matches('\n').count() + 1).contains(&line), "{told}");
        }
    }
}

#[test]
fn texts_of_configuration() {
    fuzz("texts_of_configuration", read);
}
