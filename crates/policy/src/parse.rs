//! The grammar of [`Rule`](crate::Rule), with faults that point at the character.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::net::normal;
use crate::rule::{Dest, Meaning, printable};
use crate::{Direction, Group, Proto};

/// Why a text is no rule: what is wrong and would be right, at a byte offset.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) what: String,
}

/// Reads a whole rule.
pub(crate) fn meaning(text: &str) -> Result<Meaning, Fault> {
    if text.is_empty() {
        return fault(0, "the rule is empty; write a destination such as `192.0.2.10:443/tcp`, or `*`");
    }
    if let Some(offset) = text.find(char::is_whitespace) {
        return fault(offset, "a rule has no spaces; write `192.0.2.10:80,443/tcp`");
    }
    let mut cursor = Cursor { text, at: 0 };
    if cursor.eat("out:") {
        return fault(0, "leave `out:` away: a rule matches outgoing flows unless it starts with `in:`");
    }
    let direction = if cursor.eat("in:") { Direction::In } else { Direction::Out };
    let dest = cursor.dest()?;
    let ports_at = cursor.at;
    let ports = if cursor.eat(":") { Some(cursor.ports()?) } else { None };
    let proto = if cursor.eat("/") { Some(cursor.proto()?) } else { None };
    if !cursor.rest().is_empty() {
        return fault(cursor.at, "after a destination come `:` and ports, or `/` and a protocol");
    }
    if proto == Some(Proto::Icmp) && ports.is_some() {
        return fault(ports_at, "icmp has no ports; leave them away");
    }
    Ok(Meaning { direction, dest, ports, proto })
}

/// How far the text has been read.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes everything up to one of `stops`, or all.
    fn take(&mut self, stops: &[char]) -> &'a str {
        let rest = self.rest();
        let token = &rest[..rest.find(stops).unwrap_or(rest.len())];
        self.at += token.len();
        token
    }

    /// Whether a prefix length follows: a `/` suffix is a protocol if and only if it is letters.
    fn at_prefix(&self) -> bool {
        self.rest().strip_prefix('/').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }

    fn dest(&mut self) -> Result<Dest, Fault> {
        let start = self.at;
        if self.rest().starts_with('[') {
            return self.v6();
        }
        self.bare_v6()?;
        let token = self.take(&[':', '/']);
        if token.is_empty() {
            return fault(start, "the destination is missing; `*` is every address");
        }
        let dest = if token == "*" {
            Dest::Any
        } else if let Some(group) = Group::ALL.into_iter().find(|group| group.name() == token) {
            Dest::Group(group)
        } else if token.starts_with(|c: char| c.is_ascii_digit()) {
            return self.v4(start, token);
        } else {
            return fault(start, not_a_destination(token));
        };
        if self.at_prefix() {
            return fault(self.at, format!("`{token}` takes no prefix length; one follows an address"));
        }
        Ok(dest)
    }

    fn v4(&mut self, start: usize, token: &str) -> Result<Dest, Fault> {
        let address = match token.parse::<Ipv4Addr>() {
            Ok(address) => address,
            Err(_) => return Err(v4_fault(start, token)),
        };
        if !self.at_prefix() {
            return Ok(Dest::Net(IpNet::V4(Ipv4Net::from(address))));
        }
        let len = self.prefix_len(32)?;
        self.network(start, IpNet::V4(Ipv4Net::new_assert(address, len)))
    }

    /// `[v6]` or `[v6/n]`.
    fn v6(&mut self) -> Result<Dest, Fault> {
        let open = self.at;
        if !self.rest().contains(']') {
            return fault(self.text.len(), "the bracket is not closed; write `[2001:db8::1]:443`");
        }
        self.at += 1;
        let start = self.at;
        let token = self.take(&['/', ']']);
        let address = match token.parse::<Ipv6Addr>() {
            Ok(address) => address,
            Err(_) => return Err(v6_fault(start, token)),
        };
        let len = if self.rest().starts_with('/') { self.prefix_len(128)? } else { 128 };
        if !self.eat("]") {
            return fault(self.at, format!("`]` belongs here: `[{address}/{len}]`"));
        }
        if self.at_prefix() {
            let what = "the prefix length stands inside the brackets: `[2001:db8::/32]`";
            return fault(self.at, what);
        }
        self.network(open, IpNet::V6(Ipv6Net::new_assert(address, len)))
    }

    /// An IPv6 address without brackets could end in a port or not: `::1:80`.
    fn bare_v6(&self) -> Result<(), Fault> {
        let rest = self.rest();
        let head = rest.split('/').next().unwrap_or(rest);
        let hex_first = head.split(':').next().is_some_and(|s| s.chars().all(|c| c.is_ascii_hexdigit()));
        if head.parse::<Ipv6Addr>().is_err() && !(hex_first && head.contains("::")) {
            return Ok(());
        }
        let shown = printable(head);
        fault(
            self.at,
            format!("an IPv6 address stands in brackets: `[{shown}]`, with a port `[{shown}]:443`"),
        )
    }

    /// Reads `/n`.
    fn prefix_len(&mut self, most: u8) -> Result<u8, Fault> {
        self.at += 1;
        let start = self.at;
        let digits = self.take(&['/', ':', ']']);
        match decimal(digits).and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= most) {
            Some(len) => Ok(len),
            None => fault(start + strange(digits), format!("a prefix length is a number from 0 to {most}")),
        }
    }

    fn network(&self, start: usize, net: IpNet) -> Result<Dest, Fault> {
        if net.addr() != net.network() {
            let what = format!(
                "`{net}` has bits set behind its prefix; the network is `{}`, the one address `{}`",
                net.trunc(),
                net.addr()
            );
            return fault(start, what);
        }
        Ok(Dest::Net(normal(net)))
    }

    fn ports(&mut self) -> Result<Vec<RangeInclusive<u16>>, Fault> {
        let mut start = self.at;
        let mut ports = Vec::new();
        for item in self.take(&['/']).split(',') {
            ports.push(port_range(start, item)?);
            start += item.len() + 1;
        }
        Ok(ports)
    }

    fn proto(&mut self) -> Result<Proto, Fault> {
        let start = self.at;
        let word = self.take(&[]);
        if let Some(proto) = Proto::ALL.into_iter().find(|proto| proto.name() == word) {
            return Ok(proto);
        }
        if word.is_empty() {
            return fault(start, "a protocol is missing after `/`: tcp, udp or icmp");
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let what = "a prefix length stands right behind its address: `192.0.2.0/24:443/tcp`";
            return fault(start, what);
        }
        if word.contains([',', '/', ':']) {
            let what = "a rule ends with one protocol: tcp, udp or icmp; for two write two rules";
            return fault(start + word.find([',', '/', ':']).unwrap_or(0), what);
        }
        fault(start, format!("`{}` is no protocol; write tcp, udp or icmp", printable(word)))
    }
}

fn port_range(start: usize, item: &str) -> Result<RangeInclusive<u16>, Fault> {
    let Some((low, high)) = item.split_once('-') else {
        let port = port(start, item)?;
        return Ok(port..=port);
    };
    let (first, last) = (port(start, low)?, port(start + low.len() + 1, high)?);
    if first > last {
        return fault(start, format!("the range runs backwards; write `{last}-{first}`"));
    }
    Ok(first..=last)
}

fn port(start: usize, digits: &str) -> Result<u16, Fault> {
    match digits {
        "" => return fault(start, "a port is missing; write `80`, `8000-8099` or `80,443`"),
        "0" => return fault(start, "0 is no port to connect to; ports are 1 to 65535"),
        "*" => return fault(start, "every port is meant when `:` and the ports are left away"),
        _ => {}
    }
    match decimal(digits).and_then(|n| u16::try_from(n).ok()) {
        Some(port) => Ok(port),
        None => fault(start + strange(digits), "a port is a number from 1 to 65535"),
    }
}

/// Digits only, no sign, no leading zero (which some would read as octal).
fn decimal(digits: &str) -> Option<u32> {
    let plain = digits == "0" || !digits.starts_with('0');
    (plain && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The offset of the first character that is no digit; 0 when all are.
fn strange(digits: &str) -> usize {
    digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(0)
}

fn not_a_destination(token: &str) -> String {
    let shown = printable(token);
    match token {
        "localhost" => {
            "`localhost` is no destination; write `127.0.0.1`, or `host-local` for all of the host".into()
        }
        "private" => "`private` is no group: private networks are not protected; write `10.0.0.0/8`".into(),
        _ => format!(
            "`{shown}` is no destination (names are not looked up); write `*`, an address, or one of the groups \
             host-local, link-local, multicast"
        ),
    }
}

fn v4_fault(start: usize, token: &str) -> Fault {
    let mut at = start;
    for part in token.split('.') {
        if part.is_empty() {
            return Fault { offset: at, what: "a number is missing; write four, as in `192.0.2.10`".into() };
        }
        let strange = strange(part);
        if strange > 0 || !part.starts_with(|c: char| c.is_ascii_digit()) {
            let what = "an IPv4 address is four numbers, as in `192.0.2.10` (names are not looked up)";
            return Fault { offset: at + strange, what: what.into() };
        }
        if decimal(part).is_none_or(|n| n > 255) {
            let what = "the numbers of an IPv4 address are 0 to 255, without leading zeros";
            return Fault { offset: at, what: what.into() };
        }
        at += part.len() + 1;
    }
    // Every number is good: there are too few or too many.
    let fifth = token.match_indices('.').nth(3).map_or(token.len(), |(dot, _)| dot);
    Fault { offset: start + fifth, what: "an IPv4 address is four numbers, as in `192.0.2.10`".into() }
}

fn v6_fault(start: usize, token: &str) -> Fault {
    if token.parse::<Ipv4Addr>().is_ok() {
        return Fault { offset: start - 1, what: format!("an IPv4 address has no brackets: `{token}`") };
    }
    if let Some(percent) = token.find('%') {
        let what = "an address in a rule has no zone; leave `%` and the interface away";
        return Fault { offset: start + percent, what: what.into() };
    }
    let strange = token.find(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.')).unwrap_or(0);
    Fault { offset: start + strange, what: "brackets hold an IPv6 address, as in `[2001:db8::1]`".into() }
}

fn fault<T>(offset: usize, what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { offset, what: what.into() })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rule, RuleError};

    fn parse(text: &str) -> Result<Meaning, RuleError> {
        text.parse().map(|rule: Rule| rule.meaning)
    }

    /// Asserts that `marked` without its `^` fails right where the `^` stood, saying `right`.
    #[track_caller]
    fn fails(marked: &str, right: &str) {
        let text = marked.replacen('^', "", 1);
        let error = parse(&text).unwrap_err();
        assert_eq!(Some(error.offset()), marked.find('^'), "{error}");
        assert!(error.what().contains(right), "{error}");
        let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{error}");
    }

    #[test]
    fn every_part_of_the_grammar_is_understood() {
        let all = parse("in:[2001:db8::/32]:80,443,8000-8099/tcp").unwrap();
        assert_eq!(all.direction, Direction::In);
        assert_eq!(all.dest, Dest::Net("2001:db8::/32".parse().unwrap()));
        assert_eq!(all.ports, Some(vec![80..=80, 443..=443, 8000..=8099]));
        assert_eq!(all.proto, Some(Proto::Tcp));

        let any = parse("*").unwrap();
        assert_eq!(any, Meaning { direction: Direction::Out, dest: Dest::Any, ports: None, proto: None });
        assert_eq!(parse("host-local:631").unwrap().dest, Dest::Group(Group::HostLocal));
        assert_eq!(parse("link-local/udp").unwrap().proto, Some(Proto::Udp));
        assert_eq!(parse("192.0.2.10").unwrap().dest, Dest::Net("192.0.2.10/32".parse().unwrap()));
        assert_eq!(parse("[::1]/icmp").unwrap().proto, Some(Proto::Icmp));
    }

    #[test]
    fn a_suffix_is_a_protocol_if_and_only_if_it_is_letters() {
        assert_eq!(parse("10.0.0.0/8").unwrap().proto, None);
        assert_eq!(parse("10.0.0.0/tcp").unwrap().dest, Dest::Net("10.0.0.0/32".parse().unwrap()));
        let both = parse("10.0.0.0/8/udp").unwrap();
        assert_eq!((both.dest, both.proto), (Dest::Net("10.0.0.0/8".parse().unwrap()), Some(Proto::Udp)));
        assert_eq!(parse("10.0.0.0/8:53/udp").unwrap().ports, Some(vec![53..=53]));
    }

    #[test]
    fn a_mapped_destination_is_the_ipv4_one() {
        assert_eq!(parse("[::ffff:10.0.0.0/104]:80"), parse("10.0.0.0/8:80"));
    }

    #[test]
    fn faults_point_at_the_character_and_say_what_is_right() {
        fails("^", "write a destination");
        fails("10.0.0.1:80^ /tcp", "no spaces");
        fails("^out:*", "unless it starts with `in:`");
        fails("^:80", "`*` is every address");
        fails("in:^", "`*` is every address");
        fails("^example.com:443", "names are not looked up");
        fails("^localhost:80", "`127.0.0.1`");
        fails("^private", "not protected");
        fails("^Multicast", "multicast");
        fails("*^/8", "no prefix length");
        fails("multicast^/4", "no prefix length");
        fails("10.0.^256.1", "0 to 255");
        fails("10.^01.0.1", "leading zeros");
        fails("10.0.0^:80", "four numbers");
        fails("10.0.0.1^.9", "four numbers");
        fails("10.^.0.1", "missing");
        fails("3^com.example", "four numbers");
        fails("10.0.0.0/^33", "0 to 32");
        fails("10.0.0.0/2^x", "0 to 32");
        fails("10.0.0.0/^08", "0 to 32");
        fails("^10.0.0.1/8", "the network is `10.0.0.0/8`, the one address `10.0.0.1`");
        fails("10.0.0.0/^", "missing");
        fails("^*x", "`*x` is no destination");
    }

    #[test]
    fn faults_in_ipv6_addresses_show_the_brackets() {
        fails("^2001:db8::1:443", "`[2001:db8::1:443]`");
        fails("^fe80::/10", "`[fe80::]`");
        fails("[2001:db8::1:443^", "not closed");
        fails("[2001:db8::/^129]", "0 to 128");
        fails("^[2001:db8::1/32]", "the network is `2001:db8::/32`");
        fails("[2001:db8::]^/32", "inside the brackets");
        fails("[fe80::1^%eth0]", "no zone");
        fails("^[10.0.0.1]:80", "`10.0.0.1`");
        fails("[2001:^xyz::]", "IPv6 address");
        fails("[::1]^443", "`:` and ports");
    }

    #[test]
    fn faults_in_ports_and_protocols_are_named() {
        fails("*:^", "a port is missing");
        fails("*:80,^", "a port is missing");
        fails("*:80-^", "a port is missing");
        fails("*:^0", "1 to 65535");
        fails("*:^0-80", "1 to 65535");
        fails("*:^65536", "1 to 65535");
        fails("*:^http", "a number");
        fails("*:80^x", "a number");
        fails("*:^*", "left away");
        fails("*:80,^8099-8000", "write `8000-8099`");
        fails("*/^", "tcp, udp or icmp");
        fails("*/^TCP", "write tcp");
        fails("*/tcp^/udp", "two rules");
        fails("10.0.0.0:80/^8", "right behind its address");
        fails("*^:80/icmp", "no ports");
    }

    #[test]
    fn the_caret_stands_under_the_character() {
        let error = parse("10.0.0.1:80,x").unwrap_err();
        assert_eq!(error.to_string(), "a port is a number from 1 to 65535\n  10.0.0.1:80,x\n              ^");
        let torn = parse("1\n2").unwrap_err();
        assert_eq!(torn.to_string().lines().nth(1), Some("  1\\n2"));
        assert_eq!(torn.to_string().lines().count(), 3);
    }
}
