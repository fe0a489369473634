//! What a wrong command line is told, word for word, and the reports that run nothing.

mod common;

use std::io::{Seek, Write};

use common::{command, netshunt, said};

/// Each fails with 125 before anything runs.
#[test]
fn faults_are_told_with_what_would_be_right() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--net=none"],
            "netshunt: there is no command: it stands behind `--`, as in\n  netshunt [OPTIONS] -- curl ...\n\
             For more information, try '--help'.\n",
        ),
        (
            &["curl", "http://192.0.2.1/"],
            "netshunt: unexpected `curl`: a command stands behind `--`, as in\n  netshunt [OPTIONS] -- curl ...\n",
        ),
        (
            &["doctr"],
            "netshunt: unexpected `doctr`: a command stands behind `--`, as in\n  netshunt [OPTIONS] -- doctr ...\n\
             The subcommands are backends, doctor, policy and run.\n",
        ),
        (
            &["run", "--net", "none", "curl"],
            "netshunt: unexpected `curl`: a command stands behind `--`, as in\n  netshunt [OPTIONS] -- curl ...\n",
        ),
        (
            &["--net=carrier-pigeon", "--", "true"],
            "netshunt: --net=carrier-pigeon: there is no backend `carrier-pigeon`; \
             this program has auto, host-bypass, passt, slirp\n",
        ),
        (
            &["--net=slirp,slirp", "--", "true"],
            "netshunt: --net=slirp,slirp: `slirp` is a second link, after `slirp`; \
             name at most one link and one shunt\n",
        ),
        (
            &["--net=none", "--deny", "10.0.0.0/8:80,99999", "--", "true"],
            "netshunt: --deny: a port is a number from 1 to 65535\n  10.0.0.0/8:80,99999\n                ^\n",
        ),
        (
            &["--net=none", "--bypass", "192.0.2.10", "--", "true"],
            "netshunt: --bypass 192.0.2.10: nothing to connect on the host with; \
             add a shunt, as in --net=slirp,host-bypass\n",
        ),
        (
            &["--net=host-bypass", "--allow", "192.0.2.10", "--", "true"],
            "netshunt: --allow 192.0.2.10: no stack to go through; add a link, as in --net=slirp\n",
        ),
        (
            &["--net=none", "--keep-fd", "1", "--", "true"],
            "netshunt: --keep-fd 1: 0, 1 and 2 are always kept\n",
        ),
        (
            &["--net=none", "--keep-fd", "999", "--", "true"],
            "netshunt: --keep-fd 999: this descriptor is not open; a shell opens it as in `999<FILE`\n",
        ),
        (
            &["--net=none", "--strict", "--unix=allow", "--", "true"],
            "netshunt: --strict refuses every AF_UNIX socket that was not made inside: leave out --unix=allow\n",
        ),
        (
            &["--net=none", "--mtu=100", "--", "true"],
            "netshunt: invalid value '100' for '--mtu <BYTES>': 100 is not in 1280..=65520\n\n\
             For more information, try '--help'.\n",
        ),
        (
            &["--net=none", "--config", "/nonexistent/file", "--", "true"],
            "netshunt: cannot read /nonexistent/file: No such file or directory (os error 2)\n",
        ),
        (
            &["--net=none", "--flow-log", "/nonexistent/file", "--", "true"],
            "netshunt: cannot open flow log /nonexistent/file: No such file or directory (os error 2)\n",
        ),
        (
            &["policy", "check", "example.com:80"],
            "netshunt: `example.com:80`: write an address and a port, as in 192.0.2.10:443 or \
             [2001:db8::1]:443/tcp; names are not looked up\n",
        ),
    ];
    for (args, message) in cases {
        let run = netshunt(args);
        assert_eq!((run.err.as_str(), run.status), (*message, 125), "{args:?}");
        assert_eq!(run.out, "", "{args:?}");
    }
}

#[test]
fn an_unknown_option_is_named() {
    let run = netshunt(&["--bogus", "--", "true"]);
    assert_eq!(run.status, 125);
    assert_eq!(
        run.err,
        "netshunt: unexpected argument '--bogus' found\n\nUsage: netshunt [run] [OPTIONS] -- COMMAND...\n       \
         netshunt backends | doctor | policy check\n\nFor more information, try '--help'.\n"
    );
}

#[test]
fn a_wrong_key_in_the_file_is_shown_where_it_is() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"net = \"none\"\n  mut = 1500\n").unwrap();
    let name = file.path().to_str().unwrap();
    let run = netshunt(&["--config", name, "--", "true"]);
    assert_eq!(run.status, 125);
    assert_eq!(
        run.err.replace(name, "FILE"),
        "netshunt: FILE:2: unknown field `mut`, expected one of `dns`, `flow-log`, `ipv6`, `keep-caps`, `lkl`, \
         `mtu`, `net`, `publish`, `rules`, `stats`, `strict`, `unix`, `wait`\n  mut = 1500\n  ^\n"
    );
}

#[test]
fn a_variable_is_a_layer_below_the_options() {
    let args = ["policy", "check", "--net=none", "192.0.2.1:80"];
    let run = said(command(&args).env("NETSHUNT_MTU", "big"));
    assert_eq!(run.err, "netshunt: NETSHUNT_MTU: invalid type: found string \"big\", expected u16\n");
    // --net overrides it, and what is no option is nobody's business.
    let run = said(command(&args).env("NETSHUNT_NET", "bogus").env("NETSHUNT_ANYTHING", "x"));
    assert_eq!((run.err.as_str(), run.status), ("", 1));
    let run = said(command(&["policy", "check", "192.0.2.1:80"]).env("NETSHUNT_NET", "bogus"));
    assert!(run.err.starts_with("netshunt: --net=bogus: there is no backend"), "{}", run.err);
}

#[test]
fn a_table_of_the_file_is_for_one_backend() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().to_str().unwrap().to_owned();
    let mut with = |text: &str, net: &str| {
        file.as_file().set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let run = netshunt(&["--config", &name, net, "--", "true"]);
        assert_eq!(run.status, 125, "{run:?}");
        run.err.replace(&name, "FILE")
    };
    // Shown where it is, whichever backend is in use.
    let error = with("[passt]\nmode = \"fast\"\n", "--net=none");
    assert!(error.starts_with("netshunt: FILE:2: unknown variant `fast`, expected one of"), "{error}");
    assert!(error.contains("`stream`") && error.ends_with("\nmode = \"fast\"\n^\n"), "{error}");
    assert_eq!(
        with("[wire]\n", "--net=none"),
        "netshunt: FILE:1: there is no backend `wire`; this program has auto, host-bypass, passt, slirp\n[wire]\n ^\n"
    );
    // Named and missing: an error, never another link.
    let error = with("[passt]\nprogram = \"/nowhere/passt\"\n", "--net=passt");
    assert!(error.contains("install the Debian package passt"), "{error}");
    assert!(error.contains("/nowhere/passt"), "{error}");
}

#[test]
fn help_and_version_are_no_failures() {
    for args in [&["--help"][..], &["run", "--help"], &["policy", "check", "--help"], &["--version"]] {
        let run = netshunt(args);
        assert_eq!((run.err.as_str(), run.status), ("", 0), "{args:?}");
        assert!(run.out.contains("netshunt"), "{args:?}: {}", run.out);
    }
}

#[test]
fn backends_are_listed_with_their_roles() {
    let run = netshunt(&["backends"]);
    let words: Vec<Vec<&str>> =
        run.out.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(words, [["auto", "link"], ["host-bypass", "shunt"], ["passt", "link"], ["slirp", "link"]]);
    assert_eq!(run.status, 0);
}

#[test]
fn policy_check_says_which_rule_decides() {
    let rules = ["--deny=198.51.100.0/24", "--bypass=192.0.2.10:9000/tcp", "--deny=192.0.2.0/24:9000"];
    let cases = [
        ("192.0.2.10:9000", "bypass: rule 2, --bypass 192.0.2.10:9000/tcp", 0),
        ("[::ffff:192.0.2.10]:9000", "bypass: rule 2, --bypass 192.0.2.10:9000/tcp", 0),
        ("192.0.2.11:9000/tcp", "deny (EACCES): rule 3, --deny 192.0.2.0/24:9000", 1),
        ("192.0.2.10:9000/udp", "deny (EACCES): rule 3, --deny 192.0.2.0/24:9000", 1),
        ("198.51.100.7", "deny (EACCES): rule 1, --deny 198.51.100.0/24", 1),
    ];
    for (destination, decision, status) in cases {
        let mut args = vec!["policy", "check", "--net=slirp,host-bypass"];
        args.extend(rules);
        args.push(destination);
        let run = netshunt(&args);
        assert_eq!((run.out, run.status), (format!("{destination}: {decision}\n"), status), "{}", run.err);
    }
    // The default differs with the composition, and so does what reaches the host.
    for (net, destination, verdict, status) in [
        ("auto", "203.0.113.1:80", "stack", 0),
        ("auto", "169.254.169.254:80", "deny", 1),
        ("slirp", "203.0.113.1:80", "stack", 0),
        ("host-bypass", "203.0.113.1:80", "deny", 1),
        ("none", "203.0.113.1:80", "deny", 1),
        ("slirp", "127.0.0.1:80", "stack", 0),
        ("host-bypass", "127.0.0.1:80", "stack", 0),
        ("none", "in:0.0.0.0:80", "stack", 0),
        ("slirp", "10.0.2.2:80", "deny", 1),
        ("slirp", "10.0.2.3:53/tcp", "stack", 0),
        ("slirp", "10.0.2.3:53/udp", "stack", 0),
        ("slirp", "169.254.169.254:80", "deny", 1),
    ] {
        let run = netshunt(&["policy", "check", &format!("--net={net}"), destination]);
        let start = format!("{destination}: {verdict}");
        assert!(run.out.starts_with(&start) && run.status == status, "--net={net}: {run:?}");
    }
    let run = netshunt(&["policy", "check", "--net=slirp", "--dns=off", "10.0.2.3:53/tcp"]);
    assert_eq!(run.status, 1, "{run:?}");
}
