//! The ways to a server that are compared.

/// How the measured program reaches the server.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Way {
    /// Without netshunt.
    Native,
    /// Past the stack; there is none.
    Bypass,
    /// Past the stack, which is there for others.
    Both,
    /// Through the stack and libslirp.
    Slirp,
}

impl Way {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Native, Self::Bypass, Self::Both, Self::Slirp];

    /// As it is called in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Bypass => "host-bypass",
            Self::Both => "slirp,host-bypass",
            Self::Slirp => "slirp",
        }
    }

    /// What netshunt is asked for, or `None` without it.
    pub(crate) fn options(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Native => None,
            Self::Bypass => Some(&["--net=host-bypass", "--bypass=192.0.2.0/24/tcp"]),
            Self::Both => Some(&["--net=slirp,host-bypass", "--bypass=192.0.2.0/24/tcp"]),
            Self::Slirp => Some(&["--net=slirp"]),
        }
    }

    /// The verdict that the flow log must show.
    pub(crate) fn verdict(self) -> &'static str {
        match self {
            Self::Native => "",
            Self::Bypass | Self::Both => "bypass",
            Self::Slirp => "stack",
        }
    }
}
