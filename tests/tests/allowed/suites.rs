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
const DEEP: &str = "The test fills a connection until a send waits. Behind a guest's socket are the queues of the relay and of \
                    the stack: the ten megabytes of sendfile's test may find room, and twenty thousand small calls \
                    may take longer than the five seconds of sendmsg's";
const SENT_TO_NOBODY: &str = "write(2) on a datagram socket without a peer is native, on the guest's end, and not told \
                              EDESTADDRREQ: what is written is dropped, as nobody could get it";
const AT_ONCE: &str = "The test sends both ways between two sockets of its own and wants both to be readable in the next \
                       epoll_wait(2). Between a guest's sockets bytes pass through the stack: either may be first";

pub(crate) const ALLOWED: &[Allowed] = &[
    sometimes("cpython", "test.test_epoll.TestEPoll.test_control_and_wait", AT_ONCE),
    sometimes("cpython", "test.test_socket.BasicVSOCKTest", NO_VSOCK),
    sometimes("cpython", "test.test_socket.SendmsgTCPTest.testSendmsgDontWait", DEEP),
    sometimes("cpython", "test.test_socket.SendmsgTCPTest.testSendmsgTimeout", DEEP),
    sometimes("cpython", "test.test_socket.SendfileUsingSendTest.testWithTimeoutTriggeredSend", DEEP),
    sometimes("cpython", "test.test_socket.SendfileUsingSendfileTest.testWithTimeoutTriggeredSend", DEEP),
    always("net", "TestWriteToUDP", SENT_TO_NOBODY),
];

const fn always(suite: &'static str, test: &'static str, reason: &'static str) -> Allowed {
    Allowed { suite, test, sometimes: false, reason }
}

const fn sometimes(suite: &'static str, test: &'static str, reason: &'static str) -> Allowed {
    Allowed { sometimes: true, ..always(suite, test, reason) }
}
