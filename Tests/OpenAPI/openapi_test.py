#!/usr/bin/env python3
"""Requests that Schemathesis makes of the OpenAPI document, right and wrong ones, to a gateway without workers: answers
are what the document says, and none is an error of the server.

    openapi_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
sys.path.insert(0, str(ROOT / "Tests/Cluster"))
import testing  # noqa: E402
from cluster import free_port, wait_until  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
CONFIGURATION = pathlib.Path(__file__).resolve().parent / "schemathesis.toml"
# Requests of each kind to each operation.
EXAMPLES = 3
# Always the same requests, in one thread: with random ones in two threads the tool itself failed now and then.
SEED = int(os.environ.get("OPENAPI_TEST_SEED", "11"))
LIMIT_SECONDS = 300


def is_healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as response:
            return response.status == 200
    except OSError:
        return False


def test_answers_are_what_the_document_says():
    url = f"http://127.0.0.1:{(port := free_port())}"
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "gateway.log")
        with open(log, "wb") as output:
            gateway = subprocess.Popen(
                [BINARIES / "gateway", "--http-port", str(port), "--cluster-endpoints", f"tcp://127.0.0.1:{free_port()}",
                 "--journal-path", "off", "--log-level", "error"], stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: is_healthy(url), "healthy", details=log.read_text)
            start = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIGURATION, "run", f"{url}/openapi.yaml",
                 "--max-examples", str(EXAMPLES), "--phases", "coverage,fuzzing", "--seed", str(SEED),
                 "--continue-on-failure", "--no-shrink", "--request-timeout", "30", "--warnings", "off"],
                capture_output=True, text=True, timeout=LIMIT_SECONDS, cwd=folder)
            print(f"{done.stdout[-400:]}\n{time.monotonic() - start:.0f} s", flush=True)
            assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
            assert gateway.poll() is None and is_healthy(url), log.read_text()
            assert not log.read_text(), log.read_text()
        finally:
            gateway.terminate()
            gateway.wait(20)


if __name__ == "__main__":
    sys.exit(testing.run("openapi", testing.functions(globals())))
