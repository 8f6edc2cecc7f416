#!/usr/bin/env python3
"""Reads the output of one part of the tests, for Tests/run.sh.

    test_log.py count LOG STATUS      prints "PASSED FAILED SKIPPED"
    test_log.py failures LOG          prints what the log says of the tests that failed
    test_log.py skipped LOG           prints the tests that were skipped, with their reasons

STATUS is the exit status of the part. Understands Swift Testing's output, and scripts whose tests begin a line with "ok", "FAIL" or "SKIP"
and whose last line is "N passed, N failed, N skipped".
"""

import re
import sys

SWIFT_TEST = re.compile(r"^\S+ Test (?!run with )(.+?) (passed|failed) after [0-9.]+ seconds")
SWIFT_SKIP = re.compile(r"^\S+ Test (?!run with )(.+?) skipped(?:: (.*)|\.?)$")
SWIFT_FAILURE = re.compile(r"^\S+ Test (?!run with )(.+) (recorded an issue|failed after)|^(.*: )?Fatal error|^\*\*\* Signal")
CRASH = re.compile(r"^(.*: )?Fatal error|^\*\*\* Signal")
SWIFT_RUN = re.compile(r"^\S+ Test run with (\d+) tests? ")
SUMMARY = re.compile(r"(?:^|: )(\d+) passed, (\d+) failed(?:, (\d+) skipped)?")
SCRIPT_TEST = re.compile(r"^(ok|FAIL|FAILED|SKIP|skipped:)\s+(.*)")
TAIL_LINES = 30


def count(lines, status):
    """(passed, failed, skipped); a part that ended badly, or ran nothing, has failed at least once."""
    passed = failed = skipped = 0
    for line in lines:
        if summary := SUMMARY.search(line):
            passed, failed, skipped = (int(number or 0) for number in summary.groups())
    if passed + failed + skipped == 0:
        for line in lines:
            if test := SWIFT_TEST.match(line):
                passed += test[2] == "passed"
                failed += test[2] == "failed"
            skipped += SWIFT_SKIP.match(line) is not None
        for line in lines:
            # The runner has been seen to lose lines of tests that passed.
            if run := SWIFT_RUN.match(line):
                passed = max(passed, int(run[1]) - failed - skipped)
    if failed == 0 and (status != 0 or passed + skipped == 0):
        failed = 1
    return passed, failed, skipped


def failures(lines):
    """What the log says of failures; and its end when it says nothing of the kind, or of a crash."""
    said, inside = [], ""
    for line in lines:
        if SWIFT_FAILURE.match(line):
            inside = "swift"
        elif test := SCRIPT_TEST.match(line):
            inside = "script" if test[1].startswith("FAIL") else ""
        elif inside == "swift" and not line.startswith(("↳", " ", "\t")) or SUMMARY.search(line):
            inside = ""
        if inside:
            said.append(line)
    if not said or any(CRASH.match(line) for line in said):
        said += lines[-TAIL_LINES:]
    return said


def skipped(lines):
    """The tests that were skipped, one line each."""
    names = []
    for line in lines:
        if test := SWIFT_SKIP.match(line):
            names.append(test[1] + (f": {test[2]}" if test[2] else ""))
        elif (test := SCRIPT_TEST.match(line)) and test[1] in ("SKIP", "skipped:"):
            names.append(test[2])
    return names


def main():
    command, path = sys.argv[1:3]
    with open(path, errors="replace") as file:
        lines = file.read().splitlines()
    if command == "count":
        print(*count(lines, int(sys.argv[3])))
    else:
        for line in {"failures": failures, "skipped": skipped}[command](lines):
            print(line)


if __name__ == "__main__":
    main()
