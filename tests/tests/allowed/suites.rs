//! Where a test of a language runtime's own may say something else in netshunt than natively, and why a user can
//! live with it. An entry that a run does not need fails it.

/// One difference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    suite: &'static str,
    /// How its name begins.
    pub(crate) test: &'static str,
    /// Depends on the machine or on who is faster, so that a run need not show it.
    pub(crate) sometimes: bool,
    pub(crate) reason: &'static str,
}

impl Allowed {
    pub(crate) fn covers(&self, suite: &str, test: &str) -> bool {
        self.suite == suite && test.starts_with(self.test)
    }
}

const NO_VSOCK: &str = "AF_VSOCK leads to the hypervisor and to other machines of it: refused. The test runs where there \
                        is a /dev/vsock, whose presence promises the family";
const SENT_TO_NOBODY: &str = "write(2) on a datagram socket without a peer is native, on the guest's end, and not told \
                              EDESTADDRREQ: what is written is dropped, as nobody could get it";
pub(crate) const ALLOWED: &[Allowed] = &[
    sometimes("cpython", "test.test_socket.BasicVSOCKTest", NO_VSOCK),
    always("net", "TestWriteToUDP", SENT_TO_NOBODY),
];

const fn always(suite: &'static str, test: &'static str, reason: &'static str) -> Allowed {
    Allowed { suite, test, sometimes: false, reason }
}

const fn sometimes(suite: &'static str, test: &'static str, reason: &'static str) -> Allowed {
    Allowed { sometimes: true, ..always(suite, test, reason) }
}
