"""Runs the tests of a script, one after the other, and prints what Tests/Support/test_log.py reads."""

import os
import random
import sys
import time
import traceback
import unittest

SEED_VARIABLE = "QWEN_IMAGE_TEST_SEED"


def seed():
    """The seed of this run: of the environment, else a new one. Printed, so that the run can be repeated."""
    text = os.environ.get(SEED_VARIABLE)
    value = int(text) if text else random.randrange(1 << 32)
    print(f"{SEED_VARIABLE}={value} repeats the random numbers of this run", flush=True)
    return value


def run(name, tests):
    """Runs `tests`, pairs of a name and a function, to the end whichever of them fail; returns the exit status."""
    failed = 0
    for test, function in tests:
        start = time.monotonic()
        try:
            function()
            print(f"ok   {test} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL {test}\n{traceback.format_exc()}", flush=True)
    print(f"{name}: {len(tests) - failed} passed, {failed} failed, 0 skipped", flush=True)
    return 1 if failed else 0


def functions(module):
    """The functions of a module that are tests, by their names, in the order of the file."""
    return [(name, function) for name, function in module.items() if name.startswith("test_")]


def run_unittest(name, module="__main__"):
    """Runs the `unittest` tests of a module in the same way."""

    def check(test):
        result = unittest.TestResult()
        test.run(result)
        problems = [text for _, text in result.failures + result.errors]
        assert not problems, "\n".join(problems)

    def flatten(suite):
        return [test for part in suite for test in (flatten(part) if isinstance(part, unittest.TestSuite) else [part])]

    tests = flatten(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[module]))
    return run(name, [(test.id().rsplit(".", 1)[1], lambda test=test: check(test)) for test in tests])
