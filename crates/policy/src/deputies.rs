//! Host services that act for whoever connects to them.
//!
//! A *deputy* runs programs, opens connections or resolves names with its own rights and in the
//! host's network, so a guest that may speak to one needs no network of its own. The list is what
//! `--unix=default` refuses; it cannot be complete (any program may listen anywhere), which is
//! why `--strict` does not use a list.
//!
//! Looked at, and left open because they only do what their client could do itself, or because
//! their own access checks stand between:
//! - ssh-agent and gpg-agent sign and decrypt, but neither run a named program nor connect; the
//!   key files are as readable, since netshunt confines sockets and not files.
//! - X11, Wayland and PipeWire (`pipewire-0`): a display. An X11 client can type into other
//!   windows; use `--unix=deny` where that matters.
//! - syslog, the journal's log sockets and sd_notify take text, one way.
//! - nslcd and SSSD look up users at a directory server that the administrator chose.
//! - PostgreSQL, MySQL, Redis and other servers of one application: what they do for a client is
//!   a matter of that client's account there.
//! - wpa_supplicant, NetworkManager, lvm, udev, chrony: for root or a group only.

/// One entry of [`DEPUTIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deputy {
    /// An absolute path name in which `*` is any run of bytes within one component and a
    /// component `**` any number of components. Written with `/run`, never with `/var/run`.
    pub pattern: &'static str,
    /// What the service would do for a guest, for the log.
    pub reason: &'static str,
}

const fn deputy(pattern: &'static str, reason: &'static str) -> Deputy {
    Deputy { pattern, reason }
}

const RESOLVES: &str = "resolves names in the host's network";
const STARTS: &str = "starts programs outside";
const BUS: &str = "D-Bus: reaches services that start programs outside";
const CONTAINERS: &str = "container engine: starts programs outside";
const MACHINES: &str = "starts virtual machines and containers with networks of their own";
const DIALS: &str = "opens connections in the host's network";
const EDITOR: &str = "runs commands in an editor outside";
const SYSTEMD: &str = "systemd's control interface: starts and changes services outside";

/// What `--unix=default` refuses, and why.
pub const DEPUTIES: &[Deputy] = &[
    // Name services. glibc asks nscd before it makes a socket of its own.
    deputy("/run/nscd/socket", RESOLVES),
    deputy("/run/.nscd_socket", RESOLVES),
    deputy("/run/systemd/resolve/**", RESOLVES),
    deputy("/run/avahi-daemon/socket", RESOLVES),
    deputy("/run/mdnsd", RESOLVES),
    // D-Bus, and private buses that speak it.
    deputy("/run/dbus/system_bus_socket", BUS),
    deputy("/run/user/*/bus", BUS),
    deputy("/run/user/*/dbus-*", BUS),
    deputy("/run/user/*/at-spi/**", BUS),
    deputy("/run/user/*/.dbus-proxy/**", BUS),
    deputy("/tmp/dbus-*", BUS),
    deputy("/run/user/*/gvfsd/**", DIALS),
    // systemd: varlink interfaces stand in folders of their own (machine, userdb, import, …).
    deputy("/run/systemd/private", SYSTEMD),
    deputy("/run/systemd/userdb/**", SYSTEMD),
    deputy("/run/systemd/machine/**", SYSTEMD),
    deputy("/run/systemd/**/io.systemd.*", SYSTEMD),
    deputy("/run/user/*/systemd/private", SYSTEMD),
    deputy("/run/user/*/systemd/**/io.systemd.*", SYSTEMD),
    // Container engines, rootless ones included. Docker Desktop and its kin keep their socket in
    // the home folder, hence the patterns without a root.
    deputy("/**/docker.sock", CONTAINERS),
    deputy("/run/docker/**", CONTAINERS),
    deputy("/run/user/*/docker/**", CONTAINERS),
    deputy("/run/user/*/dockerd-rootless/**", CONTAINERS),
    deputy("/**/podman.sock", CONTAINERS),
    deputy("/run/podman/**", CONTAINERS),
    deputy("/run/user/*/podman/**", CONTAINERS),
    deputy("/run/libpod/**", CONTAINERS),
    deputy("/run/user/*/libpod/**", CONTAINERS),
    deputy("/**/containerd.sock", CONTAINERS),
    deputy("/run/containerd/**", CONTAINERS),
    deputy("/run/user/*/containerd/**", CONTAINERS),
    deputy("/run/user/*/containerd-rootless/**", CONTAINERS),
    deputy("/run/buildkit/**", CONTAINERS),
    deputy("/run/user/*/buildkit/**", CONTAINERS),
    deputy("/run/crio/**", CONTAINERS),
    deputy("/run/cri-dockerd.sock", CONTAINERS),
    deputy("/run/k3s/**", CONTAINERS),
    deputy("/var/lib/kubelet/**", CONTAINERS),
    // Machine managers.
    deputy("/run/libvirt/**", MACHINES),
    deputy("/run/user/*/libvirt/**", MACHINES),
    deputy("/var/lib/lxd/**", MACHINES),
    deputy("/var/snap/lxd/common/lxd/**", MACHINES),
    deputy("/var/lib/incus/**", MACHINES),
    deputy("/run/incus/**", MACHINES),
    deputy("/run/multipass_socket", MACHINES),
    deputy("/tmp/.vbox-*-ipc/ipcd", MACHINES),
    // Package managers and builders: they download, and run what they downloaded.
    deputy("/run/snapd.socket", STARTS),
    deputy("/run/snapd-snap.socket", STARTS),
    deputy("/nix/var/nix/daemon-socket/socket", STARTS),
    deputy("/var/guix/daemon-socket/socket", STARTS),
    // Process supervisors and application servers that run what the request names.
    deputy("/run/supervisor.sock", STARTS),
    deputy("/run/supervisor/**", STARTS),
    deputy("/run/php/**", STARTS),
    deputy("/run/uwsgi/**", STARTS),
    deputy("/run/watchman/**", STARTS),
    deputy("/run/user/*/kdeinit5_*", STARTS),
    // Windows programs, from WSL.
    deputy("/run/WSL/*", STARTS),
    // Terminal multiplexers: a new window is a shell outside.
    deputy("/tmp/tmux-*/**", STARTS),
    deputy("/run/user/*/tmux-*/**", STARTS),
    deputy("/run/screen/**", STARTS),
    deputy("/tmp/screens/**", STARTS),
    deputy("/**/.screen/**", STARTS),
    deputy("/run/user/*/zellij/**", STARTS),
    deputy("/tmp/zellij-*/**", STARTS),
    deputy("/run/user/*/wezterm/**", STARTS),
    // Editors with a remote control.
    deputy("/run/user/*/emacs/**", EDITOR),
    deputy("/tmp/emacs*/**", EDITOR),
    deputy("/run/user/*/nvim.*", EDITOR),
    deputy("/tmp/nvim.*/**", EDITOR),
    deputy("/run/user/*/vscode-*", EDITOR),
    deputy("/tmp/vscode-*", EDITOR),
    // Browsers: a second start hands its URL to the running one.
    deputy("/**/SingletonSocket", DIALS),
    // Proxies, tunnels and links. A ControlMaster forwards to anywhere (ssh -W); its usual places
    // are directly in ~/.ssh and in these folders, while ~/.ssh/agent holds agents.
    deputy("/**/.ssh/*", DIALS),
    deputy("/**/.ssh/c*/*", DIALS),
    deputy("/**/.ssh/sockets/*", DIALS),
    deputy("/**/.ssh/master*/*", DIALS),
    deputy("/run/tor/**", DIALS),
    deputy("/run/tailscale/**", DIALS),
    deputy("/run/rpcbind.sock", DIALS),
    deputy("/run/usbmuxd", DIALS),
    deputy("/run/vde*/**", DIALS),
    deputy("/tmp/passt_*", DIALS),
    // dirmngr fetches any URL (KS_FETCH), CUPS prints to any (CUPS-Create-Local-Printer),
    // PulseAudio loads modules that connect (module-tunnel-sink).
    deputy("/**/S.dirmngr", DIALS),
    deputy("/run/cups/**", DIALS),
    deputy("/run/user/*/pulse/**", DIALS),
];

/// The same folder under another name: compared under the second.
pub(crate) const ALIASES: &[(&str, &str)] =
    &[("/var/run/", "/run/"), ("/run/host/run/", "/run/"), ("/run/host/var/run/", "/run/")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_canonical_sane_and_without_duplicates() {
        for (index, deputy) in DEPUTIES.iter().enumerate() {
            let Deputy { pattern, reason } = deputy;
            assert!(!reason.is_empty() && reason.is_ascii(), "{pattern}");
            assert!(pattern.starts_with('/') && !pattern.ends_with('/'), "{pattern}");
            assert!(ALIASES.iter().all(|(alias, _)| !pattern.starts_with(alias)), "{pattern}");
            for part in pattern[1..].split('/') {
                assert!(!part.is_empty() && part != "." && part != "..", "{pattern}");
                assert!(part == "**" || !part.contains("**"), "{pattern}");
            }
            assert_ne!(*pattern, "/**", "would refuse everything");
            assert!(DEPUTIES[..index].iter().all(|other| other.pattern != *pattern), "{pattern} twice");
        }
    }
}
