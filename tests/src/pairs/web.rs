//! Web servers.

use std::net::SocketAddr;

use super::{PORT, Pair, Transport};
use crate::{Blob, World};

/// What wrk asks for over and over.
const PAGE: u64 = 16 << 10;

impl Pair {
    /// nginx with workers of another user, and wrk with 100 connections, which compares every body.
    pub fn nginx_wrk(world: &World) -> Self {
        let folder = world.folder().join("pages");
        std::fs::create_dir(&folder).expect("one a world");
        let page = Blob::write(folder.join("page"), PAGE);
        let configuration = world.file(
            "nginx-of-the-pair.conf",
            &format!(
                "worker_processes 2; pid pid; error_log stderr; daemon off; user nobody nogroup;
                 events {{ worker_connections 512; }}
                 http {{ access_log off; sendfile on; client_body_temp_path body; proxy_temp_path proxy;
                     fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                     server {{ listen {PORT} reuseport; listen [::]:{PORT}; root {}; }} }}",
                folder.display()
            ),
        );
        let script = world.program("pairs/wrk.lua");
        Self {
            transport: Transport::Tcp,
            server: ["sh", "-c", "exec nginx -p \"$PWD\" -e stderr -c \"$0\"", &configuration]
                .map(str::to_owned)
                .to_vec(),
            client: Box::new(move |to: SocketAddr| {
                let url = format!("http://{to}/page");
                let page = page.path.display().to_string();
                ["wrk", "-t", "2", "-c", "100", "-d", "1", "-s", &script, &url, "--", &page]
                    .map(str::to_owned)
                    .to_vec()
            }),
            is_right: Box::new(|said| {
                let Some(line) = said.lines().find_map(|line| line.strip_prefix("right ")) else {
                    return false;
                };
                let Some((right, rest)) = line.split_once(' ') else { return false };
                right.parse::<u32>().is_ok_and(|right| right >= 100) && rest == "wrong 0 errors 0"
            }),
            payload: 100 * PAGE,
        }
    }

    /// Python's own web server, and curl with requests side by side.
    pub fn python_http(world: &World) -> Self {
        let folder = world.folder().join("files");
        std::fs::create_dir(&folder).expect("one a world");
        let file = Blob::write(folder.join("file"), 8 << 20);
        let (sum, folder) = (file.sha256, folder.display().to_string());
        Self {
            transport: Transport::Tcp,
            server: ["python3", "-m", "http.server", "--directory", &folder, &PORT.to_string()]
                .map(str::to_owned)
                .to_vec(),
            client: Box::new(|to: SocketAddr| {
                let script = "curl -sS --fail --parallel --remote-name-all --output 'copy-#1' \"$0?[1-4]\"; \
                              sha256sum copy-*; rm copy-*";
                ["sh", "-eu", "-c", script, &format!("http://{to}/file")].map(str::to_owned).to_vec()
            }),
            is_right: Box::new(move |said| said.lines().filter(|line| line.starts_with(&sum)).count() == 4),
            payload: 32 << 20,
        }
    }
}
