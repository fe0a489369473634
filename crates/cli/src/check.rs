//! `netshunt policy check`: what would become of a connection, and why.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow, bail};
use netshunt_backend::{Backend, Composition, Network};
use netshunt_policy::{Destination, Direction, Policy, Proto, Verdict};

use crate::args::{CheckArgs, Dns};
use crate::config::Plan;
use crate::run::{build, runtime};
use crate::say;
use crate::status::Leave;

/// The connection is refused.
const DENIED: u8 = 1;

/// `netshunt policy check`.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<Leave> {
    let to = destination(&args.dest)?;
    let plan = Plan::of_net(&args.net)?;
    let composition = Composition::parse(&plan.settings.net)?;
    let [link, shunt] = build(composition, &plan.settings.backend())?;
    let network = link.as_deref().map(network).transpose()?;
    let around =
        netshunt_supervisor::surroundings(network.as_ref(), shunt.is_some(), plan.settings.dns == Dns::Auto)
            .context("cannot list the addresses of this host")?;
    let policy = Policy::new(plan.rules, around)?;
    let decision = policy.judge(&to);
    let denied = matches!(decision.verdict, Verdict::Deny(_));
    say::out(&format!("{}: {decision}\n", args.dest))?;
    Ok(Leave::Status(if denied { DENIED } else { 0 }))
}

/// The addresses of a link. Only the open link knows them all.
fn network(link: &dyn Backend) -> anyhow::Result<Network> {
    let link = runtime()?.block_on(link.open())?;
    Ok(link.network().clone())
}

/// Reads `[in:]DEST[:PORT][/PROTO]`. Without a port it is 0, which no rule with ports names.
fn destination(text: &str) -> anyhow::Result<Destination> {
    if let Some(local) = text.strip_prefix("in:") {
        return Ok(Destination { direction: Direction::In, ..destination(local)? });
    }
    let (place, proto) = match text.rsplit_once('/') {
        Some((place, "tcp")) => (place, Proto::Tcp),
        Some((place, "udp")) => (place, Proto::Udp),
        Some((place, "icmp")) => (place, Proto::Icmp),
        Some((_, other)) => bail!("`{text}`: `/{other}` is not a protocol; write /tcp, /udp or /icmp"),
        None => (text, Proto::Tcp),
    };
    let bare = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(place);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => place.parse().map_err(|_| {
            anyhow!("`{text}`: write an address and a port, as in 192.0.2.10:443 or [2001:db8::1]:443/tcp; names are not looked up")
        })?,
    };
    let mut destination = Destination::tcp(address);
    destination.proto = proto;
    Ok(destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_an_address_a_port_and_a_protocol() {
        let read = |text| destination(text).map(|to| (to.address.to_string(), to.proto)).ok();
        let is = |address: &str, proto| Some((address.to_owned(), proto));
        assert_eq!(read("192.0.2.10:443"), is("192.0.2.10:443", Proto::Tcp));
        assert_eq!(read("192.0.2.10:53/udp"), is("192.0.2.10:53", Proto::Udp));
        assert_eq!(read("192.0.2.10/icmp"), is("192.0.2.10:0", Proto::Icmp));
        assert_eq!(read("[2001:db8::1]:443"), is("[2001:db8::1]:443", Proto::Tcp));
        assert_eq!(read("2001:db8::1"), is("[2001:db8::1]:0", Proto::Tcp));
        assert_eq!(read("[2001:db8::1]"), is("[2001:db8::1]:0", Proto::Tcp));
        for wrong in ["example.com:80", "192.0.2.10:65536", "192.0.2.0/24", "", "192.0.2.1:80/sctp"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
