//! Real servers on the far side of a [`World`].

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::FAR;
use crate::{Blob, FAR4, Namespace, World, eventually};

const WEB_PORT: u16 = 8080;
const REDIS_PORT: u16 = 6379;
const IPERF_PORT: u16 = 5201;
const SSH_PORT: u16 = 2222;

/// A server: where it is.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// On [`FAR4`].
    pub port: u16,
}

impl Service {
    /// Its IPv4 address.
    pub fn address(self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(FAR4), self.port)
    }
}

/// nginx, with a file to get and a folder to put files in.
#[derive(Debug)]
pub struct Web {
    /// On every far address.
    pub port: u16,
    /// At `/file`.
    pub file: Blob,
    /// What it serves.
    pub root: PathBuf,
}

impl Web {
    /// The file's.
    pub fn url(&self) -> String {
        format!("http://{}/file", self.address())
    }

    /// The same by IPv6.
    pub fn url6(&self) -> String {
        format!("http://{}/file", self.address6())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(FAR[0], self.port)
    }

    /// The same by IPv6.
    pub fn address6(&self) -> SocketAddr {
        SocketAddr::new(FAR[1], self.port)
    }
}

/// An SSH server that lets its key in as root.
#[derive(Debug)]
pub struct Sshd {
    /// On [`FAR4`].
    pub port: u16,
    /// The client's private key, for the user of netshunt alone.
    pub key: PathBuf,
    /// The server's public one, as ssh wants it.
    pub known_hosts: PathBuf,
}

impl Sshd {
    /// An `ssh` command line up to the remote command. It reads nobody's configuration.
    pub fn client(&self) -> Vec<String> {
        let mut words = ["ssh", "-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
            .map(str::to_owned)
            .to_vec();
        words.extend(["-o".into(), format!("UserKnownHostsFile={}", self.known_hosts.display())]);
        words.extend(["-i".into(), self.key.display().to_string(), "-p".into(), self.port.to_string()]);
        words.push(format!("root@{FAR4}"));
        words
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(FAR[0], self.port)
    }
}

impl World {
    /// nginx with a file of `len` bytes. Files can be PUT under `/put/`.
    pub fn nginx(&self, len: u64) -> Web {
        let folder = self.folder().join("nginx");
        let root = folder.join("root");
        fs::create_dir_all(root.join("put")).expect("a folder of ours");
        let file = Blob::write(root.join("file"), len);
        let at = folder.display();
        let listen: String =
            FAR.iter().map(|&ip| format!("listen {};\n", SocketAddr::new(ip, WEB_PORT))).collect();
        let configuration = format!(
            "user root; worker_processes 2; pid {at}/pid; error_log stderr; daemon off;
             events {{ worker_connections 4096; }}
             http {{
                 access_log off; sendfile on; client_max_body_size 0; default_type application/octet-stream;
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 server {{ {listen} root {at}/root; location /put/ {{ dav_methods PUT; }} }}
             }}"
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, configuration).expect("a folder of ours");
        let path = path.display().to_string();
        self.serve(&["nginx", "-p", &at.to_string(), "-e", "stderr", "-c", &path], WEB_PORT);
        Web { port: WEB_PORT, file, root }
    }

    /// redis, empty.
    pub fn redis(&self) -> Service {
        let (address, port) = (FAR4.to_string(), REDIS_PORT.to_string());
        let folder = self.folder().display().to_string();
        let words = ["redis-server", "--bind", &address, "--port", &port, "--dir", &folder];
        self.serve(&[&words[..], &["--save", "", "--protected-mode", "no"]].concat(), REDIS_PORT)
    }

    /// iperf3.
    pub fn iperf3(&self) -> Service {
        let (address, port) = (FAR4.to_string(), IPERF_PORT.to_string());
        self.serve(&["iperf3", "--server", "--bind", &address, "--port", &port], IPERF_PORT)
    }

    /// A server that sends back what it gets, on each of these ports.
    pub fn echo(&self, ports: &[u16]) {
        let program = self.program("echo.py");
        let mut words = vec!["python3".to_owned(), program, FAR4.to_string(), crate::FAR6.to_string()];
        words.extend(ports.iter().map(u16::to_string));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.serve(&words, *ports.last().expect("at least one port"));
    }

    /// A server that sends datagrams back, on that port of both far addresses (and, for those who ask for it,
    /// from the one above).
    pub fn datagram_echo(&self, port: u16) {
        let (program, port_text) = (self.program("datagram_echo.py"), port.to_string());
        let (v4, v6) = (FAR4.to_string(), crate::FAR6.to_string());
        self.serve(&["python3", &program, &v4, &port_text, &v6, &port_text], port);
    }

    /// A name server at that address of that namespace; name.test is 192.0.2.12.
    pub fn dnsmasq(&self, namespace: &Namespace, address: &str) {
        let listen = format!("--listen-address={address}");
        let at_home = namespace.path() == self.host.path();
        let launch = if at_home { self.native().as_root() } else { self.native().far() };
        let words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"];
        let more = ["--bind-interfaces", "--user=root", "--pid-file=", &listen];
        let names = ["--address=/name.test/192.0.2.12", "--address=/name.test/2001:db8::10"];
        let running = launch.command([&words[..], &more, &names].concat()).start();
        eventually("dnsmasq listens on port 53", || namespace.inside(|| listens(53)));
        running.leave_running();
    }

    /// OpenSSH's server, with keys made for this world.
    pub fn sshd(&self) -> Sshd {
        let folder = self.folder().join("sshd");
        fs::create_dir(&folder).expect("one a world");
        let at = folder.display().to_string();
        for key in ["host", "client"] {
            let path = format!("{at}/{key}");
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).status();
            assert!(made.is_ok_and(|status| status.success()), "openssh-client has ssh-keygen");
        }
        let public = fs::read_to_string(format!("{at}/host.pub")).expect("made above");
        let known_hosts = folder.join("known_hosts");
        fs::write(&known_hosts, format!("[{FAR4}]:{SSH_PORT} {public}")).expect("a folder of ours");
        let configuration = format!(
            "ListenAddress {FAR4}:{SSH_PORT}\nHostKey {at}/host\nAuthorizedKeysFile {at}/client.pub\n\
             PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\nPrintMotd no\n"
        );
        fs::write(folder.join("config"), configuration).expect("a folder of ours");
        // A root account whose password is locked with "!" may not log in at all, and sshd wants a
        // folder under /run that Debian's service makes: both are arranged in a mount namespace of its own.
        fs::write(folder.join("shadow"), "root:*:19000:0:99999:7:::\n").expect("a folder of ours");
        let script = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && \
                      mount --bind \"$1/shadow\" /etc/shadow && exec /usr/sbin/sshd -D -e -f \"$1/config\"";
        self.serve(&["unshare", "--mount", "sh", "-eu", "-c", script, "sshd", &at], SSH_PORT);
        let key = folder.join("client");
        self.user().own(&key);
        Sshd { port: SSH_PORT, key, known_hosts }
    }

    /// Starts a server on the far side and waits until it listens. Without connecting: iperf3 takes that
    /// for a client, and resets the one that comes next.
    fn serve(&self, words: &[&str], port: u16) -> Service {
        let running = self.native().far().command(words.iter().copied()).start();
        let service = Service { port };
        eventually(&format!("{} listens on port {port}", words[0]), || self.far.inside(|| listens(port)));
        running.leave_running();
        service
    }
}

/// Whether there is a TCP listener in the calling thread's network (proc_net(5); 0A is `TCP_LISTEN`).
pub fn listens(port: u16) -> bool {
    has_socket("tcp", "0A", port)
}

/// Whether there is a socket of UDP that is bound to the port and not connected (07 is `TCP_CLOSE`).
pub fn hears_datagrams(port: u16) -> bool {
    has_socket("udp", "07", port)
}

fn has_socket(protocol: &str, wanted: &str, port: u16) -> bool {
    let at = format!(":{port:04X}");
    ["", "6"].into_iter().any(|family| {
        let table = format!("/proc/thread-self/net/{protocol}{family}");
        fs::read_to_string(table).unwrap_or_default().lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().take(4).collect();
            matches!(words[..], [_, local, _, state] if local.ends_with(&at) && state == wanted)
        })
    })
}

/// A listener of the test's own that greets whoever connects, and counts them.
#[derive(Debug)]
pub struct Trap {
    /// Where it listens.
    pub address: SocketAddr,
    caught: Arc<AtomicUsize>,
}

impl Trap {
    /// What it says.
    pub const GREETING: &'static str = "caught\n";

    /// How many have connected.
    pub fn caught(&self) -> usize {
        self.caught.load(Ordering::SeqCst)
    }
}

impl Namespace {
    /// Listens on `address` inside, until the test's process ends.
    pub fn trap(&self, address: &str) -> Trap {
        use std::io::Write;
        let listener =
            self.inside(|| TcpListener::bind(address)).unwrap_or_else(|e| panic!("{address}: {e}"));
        let trap = Trap { address: listener.local_addr().expect("bound"), caught: Arc::default() };
        let caught = Arc::clone(&trap.caught);
        // It ends with the test program; its socket keeps nothing but an empty namespace alive.
        std::thread::spawn(move || {
            for mut peer in listener.incoming().flatten() {
                caught.fetch_add(1, Ordering::SeqCst);
                let _ = peer.write_all(Trap::GREETING.as_bytes());
            }
        });
        trap
    }
}
