#!/usr/bin/env python3
"""What compose/quickstart.sh promises: an image, and a command that edits it and works as it is printed.

    quickstart_test.py [DIRECTORY OF THE EXECUTABLES]

The stages run as processes, also where a container engine is: containers.sh tests those.
"""

import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import numpy
from PIL import Image

from cluster import PATIENCE_SECONDS, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
PROMPT = "a red heart on a blue background"


def begin(folder, *arguments):
    """Starts the script in a folder, with no container engine."""
    engine = folder / "no engine" / "docker"
    engine.parent.mkdir()
    engine.write_text("#!/bin/sh\nexit 1\n")
    engine.chmod(0o755)
    environment = {**os.environ, "QWEN_IMAGE_BINARIES": str(BINARIES), "QWEN_IMAGE_PORT": str(free_port()),
                   "PATH": f"{engine.parent}:{os.environ['PATH']}"}
    environment.pop("QWEN_IMAGE_MODEL", None)
    return subprocess.Popen([ROOT / "compose/quickstart.sh", *arguments], cwd=folder, env=environment, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def command(text):
    """The one command among what was said."""
    commands = [line for line in text.splitlines() if line.startswith("  ")]
    assert len(commands) == 1, text
    return commands[0]


def check_edited(folder, line):
    """Runs the command; the heart stays, and its background becomes yellow."""
    result = subprocess.run(["bash", "-c", line], cwd=folder / "no engine", capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert result.returncode == 0, (line, result.stderr)
    drawn, edited = (numpy.asarray(Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB")).astype(int)
                     for name in ("qwen-image.png", "qwen-image-edited.png"))
    assert drawn.shape == edited.shape
    for image, is_yellow in ((drawn, False), (edited, True)):
        red, green, blue = image[2:6, 2:6].mean((0, 1))
        assert (red > 150 and green > 130 and blue < 110) == is_yellow, (line, red, green, blue)
    red, green, blue = edited[28:36, 28:36].mean((0, 1))
    assert red > green + 60 and red > blue + 60, (red, green, blue)


def test_the_command_edits_through_the_cluster_that_goes_on():
    with tempfile.TemporaryDirectory(prefix="a folder ") as folder:
        folder = pathlib.Path(folder)
        process = begin(folder, "--keep", PROMPT)
        said = []
        reader = threading.Thread(target=lambda: said.extend(iter(process.stderr.readline, "")), daemon=True)
        reader.start()
        try:
            wait_until(lambda: "Ctrl-C" in "".join(said) or process.poll() is not None, "running", details=lambda: "".join(said))
            assert process.poll() is None, "".join(said)
            line = command("".join(said))
            assert " edit --gateway " in line, line
            check_edited(folder, line)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        reader.join(PATIENCE_SECONDS)
        assert process.returncode == 0, "".join(said)


def test_the_command_edits_when_everything_has_stopped():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        process = begin(folder, PROMPT)
        said = process.communicate(timeout=2 * PATIENCE_SECONDS)[1]
        assert process.returncode == 0, said
        line = command(said)
        assert " local --model " in line, line
        check_edited(folder, line)


if __name__ == "__main__":
    sys.exit(testing.run("quickstart", testing.functions(globals())))
