#!/usr/bin/env python3
"""Runs the commands of the guides and of the README, as they stand there, against a real cluster of the embedded model.

    docs_test.py [DIRECTORY OF THE EXECUTABLES]

The blocks of a document run one after the other in one folder, in which compose/ is that of the repository, and Python blocks share
their names. A block with `norun: REASON` behind its language is left out; other blocks must end with status 0. The cluster has a free
port instead of 8080. Needs curl and jq.
"""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from PIL import Image, ImageDraw

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
# What a document must have at least, so that no marker or fence hides it: blocks that run, and those that do not.
DOCUMENTS = {
    "Shared/Documentation/user-guide.md": (9, 2), "Shared/Documentation/api-guide.md": (11, 0),
    "Shared/Documentation/templates.md": (2, 0), "Shared/Documentation/operating.md": (5, 2), "README.md": (8, 5)}
SETTINGS = {"webhooks-allow-http": "true", "webhooks-allowed-hosts": "127.0.0.0/8"}
BLOCK = re.compile(r"^```(\S*)[ ]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document):
    """(language, what is behind it, line, text) of each fenced block."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [(match[1], match[2], text[:match.start()].count("\n") + 2, match[3]) for match in BLOCK.finditer(text)]


@contextlib.contextmanager
def folder_of_the_reader():
    """A folder with what the documents speak of: the repository's compose/, and a mask."""
    with tempfile.TemporaryDirectory(prefix="docs-") as name, contextlib.chdir(name):
        pathlib.Path("compose").symlink_to(ROOT / "compose")
        mask = Image.new("L", (64, 64))
        ImageDraw.Draw(mask).rectangle((16, 16, 47, 47), fill=255)
        mask.save("mask.png")
        yield pathlib.Path(name)


def check(document):
    ran, left_out = 0, 0
    environment = {**os.environ, "PATH": f"{BINARIES}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    with Cluster(BINARIES, NANO, settings=SETTINGS) as cluster, folder_of_the_reader():
        environment["QWEN_IMAGE_GATEWAY"] = cluster.url
        names = {}
        for language, more, line, text in blocks(document):
            place = f"{document}:{line}"
            if more:
                assert re.fullmatch(r"norun: \S.*", more), f"{place}: {more}"
                left_out += 1
                continue
            text = text.replace("http://127.0.0.1:8080", cluster.url)
            if language == "sh":
                result = subprocess.run(["bash", "-euo", "pipefail", "-c", text], env=environment, capture_output=True, text=True, timeout=300)
                assert result.returncode == 0, f"{place}: status {result.returncode}\n{text}\n{result.stdout}\n{result.stderr}"
            elif language == "python":
                # In the lines of the document, for tracebacks.
                exec(compile("\n" * (line - 1) + text, place, "exec"), names)
            else:
                continue
            ran += 1
    print(f"     {ran} blocks have run, {left_out} are marked", flush=True)
    least, most = DOCUMENTS[document]
    assert ran >= least and left_out <= most, (ran, left_out)


if __name__ == "__main__":
    tests = [(f"commands_of_{pathlib.Path(name).stem}", lambda name=name: check(name)) for name in DOCUMENTS]
    sys.exit(testing.run("docs", tests))
