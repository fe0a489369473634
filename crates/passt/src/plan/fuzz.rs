//! Texts that are read: what passt says of itself, and files of the host's.

use netshunt_fuzz::{Input, fuzz};

use super::*;

/// resolv.conf(5): servers of families that work, and the forwarder's address in that of the first.
fn resolvers(input: &mut Input<'_>) {
    const WORDS: &[&str] = &[
        "nameserver",
        " ",
        "\n",
        "192.0.2.1",
        "127.0.0.53",
        "fe80::1%eth0",
        "2001:db8::1",
        "%",
        "\t",
        "#",
        "options",
        "nameserver 192.0.2.7\n",
        "nameserver ::1\n",
    ];
    let text = input.text(WORDS, 20);
    let (v4, v6) = (input.one_in(2), input.one_in(2));
    let network = working(&own(1500, true), v4, v6, &text);
    input.reached((network.dns, network.name_servers.len(), v4, v6));
    assert_eq!((network.v4.is_some(), network.v6.is_some()), (v4, v6));
    assert!(network.name_servers.iter().all(|server| if server.is_ipv4() { v4 } else { v6 }));
    assert!(network.name_servers.iter().all(|server| text.contains(&server.to_string()) || server.is_ipv6()));
    assert!(network.name_servers.len() <= 2);
    match network.dns {
        Some(dns) => assert!(network.host.iter().any(|host| host.contains(&dns))),
        None => assert!(!v4 && !v6),
    }
}

#[test]
fn resolver_texts() {
    fuzz("resolver_texts", resolvers);
}
