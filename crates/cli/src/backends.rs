//! Which backends this program has. A backend that is only in `Cargo.toml` is silently absent:
//! naming its crate here is what links it.

use netshunt_backend::registry;
use netshunt_bypass as _;
use netshunt_passt as _;
use netshunt_slirp as _;

use crate::say;
use crate::status::Leave;

/// What `--net` is when nobody says.
pub(crate) fn default_net() -> &'static str {
    registry::AUTO
}

/// `netshunt backends`.
pub(crate) fn print() -> anyhow::Result<Leave> {
    let all = registry::all();
    let width = all.iter().map(|backend| backend.name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for backend in all {
        let role = backend.role.to_string();
        table += &format!("{:width$}  {role:5}  {}\n", backend.name, backend.summary);
    }
    say::out(&table)?;
    Ok(Leave::Status(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_backends_are_linked() {
        assert_eq!(registry::names(), ["auto", "host-bypass", "passt", "slirp"]);
    }
}
