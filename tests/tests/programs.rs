//! Unmodified programs, each on both paths: the bytes, their SHA-256, and the path they took.

#[path = "programs/cases.rs"]
mod cases;

macro_rules! on_every_path {
    ($($case:ident),+ $(,)?) => {
        mod bypass {
            $(#[test] fn $case() { super::cases::$case(netshunt_tests::Path::Bypass); })+
        }
        mod stack {
            $(#[test] fn $case() { super::cases::$case(netshunt_tests::Path::Stack); })+
        }
    };
}

on_every_path! {
    curl, curl_ipv6, curl_large, curl_upload, four_at_once, gigabyte_down_and_up, git_clone, iperf3, node,
    python_asyncio, python_blocking, python_settimeout, redis_cli, ssh_bytes, ssh_interactive,
    static_musl, wget,
}
