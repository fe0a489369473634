//! The cases of `programs.rs` without netshunt: when one fails here too, netshunt is not to blame.

#[path = "programs/cases.rs"]
mod cases;

macro_rules! natively {
    ($($case:ident),+ $(,)?) => {
        $(#[test] fn $case() { cases::$case(netshunt_tests::Path::Native); })+
    };
}

natively! {
    curl, curl_ipv6, curl_large, curl_upload, four_at_once, gigabyte_down_and_up, git_clone, iperf3, node,
    python_asyncio, python_blocking, python_settimeout, redis_cli, ssh_bytes, ssh_interactive,
    static_musl, wget,
}
