"""Runs modules of CPython's own tests and writes a verdict for each test: `NAME<tab>VERDICT<tab>WHY`.

Each module runs in a process of its own, as `python3 -m test` has it. One that hangs is ended, with
a trace of where it was on standard error; the test that it was in counts as hung.
"""

import faulthandler
import os
import subprocess
import sys
import tempfile
import time
import unittest

# A module that takes longer hangs: the slowest takes two minutes.
LIMIT = 300


class Verdicts(unittest.TestResult):
    """Of a test with several failures, or failed parts, the first is told."""

    def __init__(self, out):
        super().__init__()
        self.out = out
        self.verdict = None

    def startTest(self, test):
        super().startTest(test)
        self.verdict = None
        self.write("begun", test)

    def stopTest(self, test):
        super().stopTest(test)
        self.write(*(self.verdict or ("skipped?", test)))

    def write(self, verdict, test, why=""):
        why = " ".join(str(why).split())[:300]
        self.out.write(f"{test.id()}\t{verdict}\t{why}\n")
        self.out.flush()

    def note(self, verdict, test, why=""):
        if not hasattr(test, "_testMethodName"):
            # setUpClass or setUpModule: its tests do not begin.
            self.write(verdict, test, why)
        elif self.verdict is None or self.verdict[0] in ("passed", "skipped"):
            self.verdict = (verdict, test, why)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note("passed", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note("skipped", test, reason)

    def addError(self, test, err):
        super().addError(test, err)
        self.bad("failed", test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.bad("failed", test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.bad("failed", test, err)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note("passed", test, "fails, as expected")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note("failed", test, "succeeds, unexpectedly")

    def bad(self, verdict, test, err):
        self.note(verdict, test, f"{err[0].__name__}: {err[1]}")
        sys.stderr.write(f"\n=== {test.id()}\n{self._exc_info_to_string(err, test)}\n")


# Natively it hangs where a hypervisor takes the connection and nobody answers.
LEFT_OUT = ["test.test_socket.ThreadedVSOCKSocketStreamTest"]


def chosen(suite):
    kept = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.addTest(chosen(test))
        elif not test.id().startswith(tuple(LEFT_OUT)):
            kept.addTest(test)
    return kept


def run(name, path):
    from test import support

    support.verbose = 0
    # What takes gigabytes or asks servers outside is left out. This one says `network` and means the loopback.
    support.use_resources = ["cpu", "subprocess", "walltime"] + ["network"] * (name == "test_socketserver")
    faulthandler.enable()
    faulthandler.dump_traceback_later(LIMIT - 5, exit=False)
    with open(path, "a") as out:
        try:
            suite = unittest.defaultTestLoader.loadTestsFromName("test." + name)
        except unittest.SkipTest as why:
            out.write(f"test.{name}\tskipped\t{why}\n")
            return
        chosen(suite)(Verdicts(out))


def main(path, modules):
    for name in modules:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.Popen([sys.executable, __file__, "--one", path, name], cwd=folder)
            try:
                child.wait(LIMIT)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with open(path, "a") as out:
            out.write(f"{name}\tmodule {child.returncode}\t{time.monotonic() - start:.1f} s\n")


if sys.argv[1] == "--one":
    run(sys.argv[3], sys.argv[2])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that a failed test left behind are not waited for.
    os._exit(0)
main(os.path.abspath(sys.argv[1]), sys.argv[2:])
