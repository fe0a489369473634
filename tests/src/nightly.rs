//! The sizes of the tests that search: small in CI, large at night.

use std::env;

/// Set to 1 by `cargo xtask test --nightly`.
const VARIABLE: &str = "NETSHUNT_NIGHTLY";

/// Whether there is time for the large sizes.
pub fn is_nightly() -> bool {
    env::var(VARIABLE).is_ok_and(|value| value == "1")
}
