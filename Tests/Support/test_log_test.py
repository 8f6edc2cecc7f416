#!/usr/bin/env python3
"""What Tests/run.sh counts and shows of the output of its parts."""

import contextlib
import io
import sys
import unittest

import testing
from test_log import count, failures, skipped

SWIFT = """\
◇ Test run started.
◇ Suite "Numbers" started.
◇ Test "adds" started.
✔ Test "adds" passed after 0.001 seconds.
✘ Test divides() recorded an issue at Numbers.swift:3:4: Expectation failed: 1 == 2
↳ by nothing
✘ Test divides() failed after 0.001 seconds with 1 issue.
✔ Test multiplies(a:b:) with 5 test cases passed after 0.001 seconds.
➜ Test subtracts() skipped: "there is no minus"
✘ Suite "Numbers" failed after 1.000 seconds with 1 issue.
✘ Test run with 4 tests in 1 suite failed after 1.000 seconds with 1 issue.
""".splitlines()

CRASH = """\
◇ Test adds() started.
✔ Test adds() passed after 0.001 seconds.
◇ Test divides() started.
Numbers/Divide.swift:12: Fatal error: Division by zero
*** Signal 4: Backtracing from 0x1234... done ***
""".splitlines()

NOTHING = ["◇ Test run started.", "✔ Test run with 0 tests in 0 suites passed after 0.001 seconds."]


class TestLogTest(unittest.TestCase):
    def test_swift_tests(self):
        self.assertEqual(count(SWIFT, 1), (2, 1, 1))
        self.assertEqual(failures(SWIFT), SWIFT[4:7])
        self.assertEqual(skipped(SWIFT), ['subtracts(): "there is no minus"'])

    def test_lines_that_the_runner_has_lost_are_counted(self):
        self.assertEqual(count([line for line in SWIFT if "multiplies" not in line], 1), (2, 1, 1))

    def test_a_crash_is_a_failure(self):
        self.assertEqual(count(CRASH, 132), (1, 1, 0))
        self.assertIn("◇ Test divides() started.", failures(CRASH))

    def test_a_bad_end_is_a_failure_whatever_the_log_says(self):
        self.assertEqual(count(SWIFT[:4], 1), (1, 1, 0))
        self.assertEqual(count(["cluster: 3 passed, 0 failed, 0 skipped"], 1), (3, 1, 0))
        self.assertEqual(failures(["no such file"]), ["no such file"])

    def test_nothing_run_is_a_failure(self):
        self.assertEqual(count(NOTHING, 0), (0, 1, 0))
        self.assertEqual(count([], 0), (0, 1, 0))

    def test_scripts(self):
        def fails():
            raise AssertionError("not ready\n--- log of the gateway\nok   says the log in the middle of a line: ok")

        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = testing.run("cluster", [("test_good", lambda: None), ("test_bad", fails), ("test_better", lambda: None)])
        lines = output.getvalue().splitlines()
        self.assertEqual(status, 1)
        self.assertEqual(count(lines, status), (2, 1, 0))
        self.assertEqual(failures(lines)[0], "FAIL test_bad")
        self.assertIn("AssertionError: not ready", failures(lines))

    def test_skipped_scripts(self):
        lines = ["SKIP containers: no container engine", "containers: 0 passed, 0 failed, 1 skipped"]
        self.assertEqual(count(lines, 0), (0, 0, 1))
        self.assertEqual(skipped(lines), ["containers: no container engine"])


if __name__ == "__main__":
    sys.exit(testing.run_unittest("scripts"))
