//! Texts of ports to publish.

use netshunt_fuzz::{Input, fuzz};

use super::*;

fn read(input: &mut Input<'_>) {
    const WORDS: &[&str] = &[
        "80",
        "8080",
        "65535",
        "0",
        "65536",
        ":",
        "-",
        "/",
        "/tcp",
        "/udp",
        "127.0.0.1",
        "[::1]",
        "[",
        "]",
        "::",
        "+1",
        "8000-8099",
        "1-65535",
        "01",
        "0.0.0.0:",
        "80:80",
        "9-8:9-8",
        "9-8",
    ];
    let text = input.text(WORDS, 9);
    match text.parse::<Publish>() {
        Ok(publish) => {
            input.reached((publish.address.is_some(), publish.more > 0, publish.protocol));
            assert_eq!(publish.to_string().parse::<Publish>(), Ok(publish), "{text}");
            let ports: Vec<_> = publish.ports().collect();
            assert_eq!(ports.len(), usize::from(publish.more) + 1);
            assert!(ports.iter().all(|(host, guest)| *host > 0 && *guest > 0));
        }
        Err(error) => {
            input.reached(std::mem::discriminant(&error));
            let said = match &error {
                PublishError::Address(part) | PublishError::Form(part) | PublishError::Ports(part) => part,
                PublishError::Lengths { host, guest } => return assert!(host != guest),
            };
            assert!(text.contains(said.as_str()), "{error}");
        }
    }
}

#[test]
fn texts_of_ports() {
    fuzz("texts_of_ports", read);
}
