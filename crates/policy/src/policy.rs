//! An ordered list of rules, and the one place where it is decided who may go where.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::group::Groups;
use crate::net::{embedded, host, normal};
use crate::rule::Dest;
use crate::{Action, Decision, Destination, Direction, Errno, Group, Proto, Reason, Rule, Verdict};

/// What the supervisor knows about the place it runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// A link is there: the stack leads out.
    pub link: bool,
    /// A shunt is there.
    pub shunt: bool,
    /// The host's own addresses, and every address by which the link reaches the host. Of an
    /// entry with host bits (`192.0.2.7/24`) the whole network counts: too much is closed, never
    /// too little.
    pub host: Vec<IpNet>,
    /// The guest's own addresses, 127.0.0.0/8 and ::1 among them. Of an
    /// entry with host bits (`10.0.2.15/24`) only the address counts: its neighbours are not the
    /// guest's, and one of them is the way to the host.
    pub guest: Vec<IpNet>,
    /// The link's DNS forwarder, open on port 53 while `--dns` is on; ignored without a link.
    pub dns: Option<IpAddr>,
}

/// Rules that cannot be kept in these surroundings. The message names the rule and what to add.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// An allow rule without a link: there is no stack to go through.
    #[error("--allow {rule}: no stack to go through; add a link, as in --net=slirp")]
    AllowWithoutLink {
        /// The first such rule.
        rule: String,
    },
    /// A bypass rule without a shunt: nothing connects on the host.
    #[error(
        "--bypass {rule}: nothing to connect on the host with; add a shunt, as in --net=slirp,host-bypass"
    )]
    BypassWithoutShunt {
        /// The first such rule.
        rule: String,
    },
}

/// Gives every destination a verdict.
///
/// - The first rule that decides wins; without one, the stack if there is a link, else a refusal.
/// - A deny rule decides whatever it matches.
/// - An allow or bypass rule decides on a protected address only if it names the address' group
///   or a destination wholly inside it; a wider rule is passed over.
/// - The guest's own addresses stay in the stack. Only a bypass rule with ports and a destination
///   wholly inside them leads out. `host-local` does not mean them.
/// - What comes in is judged by the local address, once, when the guest is about to listen. The host's
///   addresses are not protected then, but for its loopback: without a rule the stack listens.
/// - The link's DNS forwarder needs no rule on port 53, and no wide rule turns it elsewhere.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<(Action, Rule)>,
    groups: Groups,
    guest: Vec<IpNet>,
    /// None without a link.
    dns: Option<IpNet>,
    link: bool,
}

impl Policy {
    /// A policy of `rules` in their order.
    ///
    /// # Errors
    /// An allow rule without a link, a bypass rule without a shunt.
    // By value: the rules move in, and the surroundings are read once, when they are known.
    #[allow(clippy::needless_pass_by_value)]
    pub fn new(rules: Vec<(Action, Rule)>, around: Surroundings) -> Result<Policy, PolicyError> {
        for (action, rule) in &rules {
            match action {
                Action::Allow if !around.link => {
                    return Err(PolicyError::AllowWithoutLink { rule: rule.to_string() });
                }
                Action::Bypass if !around.shunt => {
                    return Err(PolicyError::BypassWithoutShunt { rule: rule.to_string() });
                }
                Action::Allow | Action::Bypass | Action::Deny => {}
            }
        }
        let guest: Vec<IpNet> = around.guest.iter().copied().map(own).collect();
        Ok(Policy {
            rules,
            groups: Groups::new(&around.host),
            guest: IpNet::aggregate(&guest),
            dns: around.dns.filter(|_| around.link).map(host),
            link: around.link,
        })
    }

    /// Adds an address that turned out to be the host's after all: from now on it is protected as
    /// the others are. Returns whether that is news; the guest's own addresses stay the guest's.
    pub fn learn_host(&mut self, address: IpAddr) -> bool {
        let address = host(address);
        if self.guest.iter().any(|own| own.contains(&address)) {
            return false;
        }
        self.groups.learn_host(address)
    }

    /// The verdict for one flow. Total: every destination has one.
    #[must_use]
    pub fn judge(&self, to: &Destination) -> Decision<'_> {
        let address = host(to.address.ip());
        let place = self.place(address, to);
        for (index, (action, rule)) in self.rules.iter().enumerate() {
            if !rule.fits(to) || !self.matches(*action, rule, address, place) {
                continue;
            }
            return match action {
                Action::Allow if place == Place::Guest => {
                    Decision { rule: Some(rule), ..stack(Reason::GuestOwn) }
                }
                Action::Allow => Decision { rule: Some(rule), ..stack(Reason::Rule(index)) },
                Action::Bypass => Decision {
                    verdict: Verdict::Bypass,
                    rule: Some(rule),
                    action: Action::Bypass,
                    why: Reason::Rule(index),
                },
                Action::Deny => Decision { rule: Some(rule), ..deny(Reason::Rule(index)) },
            };
        }
        match place {
            Place::Dns => stack(Reason::Dns),
            Place::Guest => stack(Reason::GuestOwn),
            Place::Open if self.link || to.direction == Direction::In => stack(Reason::Default),
            Place::Open => deny(Reason::Default),
            Place::Protected(group) => deny(Reason::Protected(group)),
        }
    }

    fn place(&self, address: IpNet, to: &Destination) -> Place {
        if self.is_guest(address) {
            return Place::Guest;
        }
        // To listen on the host's own addresses is what an `in:` rule is for. Its loopback is another matter.
        if to.direction == Direction::In && !to.address.ip().to_canonical().is_loopback() {
            let group = self.groups.of(address).filter(|&group| group != Group::HostLocal);
            return group.map_or(Place::Open, Place::Protected);
        }
        if self.dns == Some(address)
            && to.direction == Direction::Out
            && to.proto != Proto::Icmp
            && to.address.port() == DNS_PORT
        {
            return Place::Dns;
        }
        self.groups.of(address).map_or(Place::Open, Place::Protected)
    }

    fn is_guest(&self, net: IpNet) -> bool {
        self.guest.iter().any(|own| own.contains(&net))
    }

    /// Whether `rule`, which fits but for the address, decides on `address`.
    fn matches(&self, action: Action, rule: &Rule, address: IpNet, place: Place) -> bool {
        let dest = rule.meaning.dest;
        let hit = match dest {
            Dest::Any => true,
            Dest::Group(group) => place != Place::Guest && self.groups.covers(group, address),
            // What closes sees through a translated address, what opens does not: see `net`.
            Dest::Net(net) if action == Action::Deny => {
                net.contains(&address) || embedded(address).is_some_and(|v4| net.contains(&v4))
            }
            Dest::Net(net) => net.contains(&address),
        };
        hit && match (action, place) {
            (Action::Deny, _) | (_, Place::Open) | (Action::Allow, Place::Guest) => true,
            (_, Place::Protected(group)) => self.inside(dest, group),
            (Action::Bypass, Place::Guest) => {
                rule.meaning.ports.is_some() && matches!(dest, Dest::Net(net) if self.is_guest(net))
            }
            // A bypass rule for everything must not ask the host for an address of the link's.
            (_, Place::Dns) => self.groups.of(address).is_none_or(|group| self.inside(dest, group)),
        }
    }

    fn inside(&self, dest: Dest, group: Group) -> bool {
        match dest {
            Dest::Any => false,
            Dest::Group(named) => named == group,
            Dest::Net(net) => self.groups.covers(group, net),
        }
    }
}

/// What an address is before any rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The link's DNS forwarder, on its port.
    Dns,
    /// The guest's own.
    Guest,
    /// Nothing special.
    Open,
    /// In a protected group, and not the guest's own.
    Protected(Group),
}

/// DNS over UDP and TCP (RFC 1035 4.2).
const DNS_PORT: u16 = 53;

/// An address of the guest's without the network around it.
fn own(net: IpNet) -> IpNet {
    if net.addr() == net.network() { normal(net) } else { host(net.addr()) }
}

fn stack(why: Reason) -> Decision<'static> {
    Decision { verdict: Verdict::Stack, rule: None, action: Action::Allow, why }
}

fn deny(why: Reason) -> Decision<'static> {
    Decision { verdict: Verdict::Deny(Errno::EACCES), rule: None, action: Action::Deny, why }
}
