#!/usr/bin/env python3
"""Stopping and resuming a training run changes nothing: N steps in one go give the same bits as N steps with stops in between.

    resume_test.py      # about a minute on two free cores; needs requirements.txt
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import torch

HERE = pathlib.Path(__file__).resolve().parent
CHECKPOINT = HERE.parent.parent / "compose/models/nano-qwen-image"
STEPS = 14
LIMIT_SECONDS = 1200  # of each process; a few seconds on a free machine
STOPPED = 143  # exit status of a run that a signal ended
WRITTEN = ("transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")


class ResumeTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="resume-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, name: str, processes: int, seed: int = 0) -> subprocess.Popen:
        """Starts or resumes the run `name`, which saves its state after every step."""
        checkpoint = self.folder / name / "checkpoint"
        if not checkpoint.exists():
            shutil.copytree(CHECKPOINT, checkpoint)
        arguments = dict(
            checkpoint=checkpoint, state=self.folder / name / "state.pt", steps=STEPS, batch=5, images=64, families=8, warmup=5, processes=processes, seed=seed,
            device="cpu", save_seconds=0, log_seconds=0)
        flags = [str(x) for key, value in arguments.items() for x in ("--" + key.replace("_", "-"), value)]
        log = open(self.folder / f"{name}.log", "ab")
        self.addCleanup(log.close)
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        process = subprocess.Popen([sys.executable, HERE / "train.py", *flags], stdout=log, stderr=log, env=environment)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def finish(self, name: str, processes: int = 1) -> dict:
        process = self.start(name, processes)
        self.assertEqual(process.wait(LIMIT_SECONDS), 0, self.log(name))
        return torch.load(self.folder / name / "state.pt", weights_only=True)

    def interrupt(self, name: str, after: int, number: int, processes: int = 1) -> int:
        """Sends a signal once step `after` is logged; returns the exit status."""
        process = self.start(name, processes)
        end = time.monotonic() + LIMIT_SECONDS
        while f"step {after} " not in self.log(name):
            self.assertIsNone(process.poll(), self.log(name))
            self.assertLess(time.monotonic(), end, self.log(name))
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(LIMIT_SECONDS)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def assert_same_run(self, a: dict, b: dict, path: str = "state"):
        """Every tensor and number of two states is equal, bit for bit; the clock is not part of the result."""
        self.assertEqual(type(a), type(b), path)
        if isinstance(a, dict):
            self.assertEqual(a.keys(), b.keys(), path)
            for key in a.keys() - {"seconds"}:
                self.assert_same_run(a[key], b[key], f"{path}/{key}")
        elif isinstance(a, torch.Tensor):
            self.assertTrue(torch.equal(a, b), path)
        else:
            self.assertEqual(a, b, path)

    def assert_same_checkpoint(self, a: str, b: str):
        for file in WRITTEN:
            self.assertEqual((self.folder / a / "checkpoint" / file).read_bytes(), (self.folder / b / "checkpoint" / file).read_bytes(), file)

    def test_stopped_and_killed_runs_end_as_an_undisturbed_one(self):
        straight = self.finish("straight")
        self.assertEqual(straight["step"], STEPS)
        self.assertEqual(self.interrupt("disturbed", 4, signal.SIGTERM), STOPPED, self.log("disturbed"))
        stopped = torch.load(self.folder / "disturbed/state.pt", weights_only=True)
        self.assertTrue(4 <= stopped["step"] < STEPS, stopped["step"])
        self.assertFalse(torch.equal(*(s["weights"]["transformer.img_in.weight"] for s in (stopped, straight))), "nothing was left to train")
        self.assertEqual(self.interrupt("disturbed", stopped["step"] + 3, signal.SIGKILL), -signal.SIGKILL)
        self.assert_same_run(straight, self.finish("disturbed"))
        self.assert_same_checkpoint("straight", "disturbed")
        self.assertNotIn(self.start("disturbed", 1, seed=1).wait(LIMIT_SECONDS), (0, STOPPED), "the state of another run was taken")
        self.assertIn("state of another run", self.log("disturbed"))

    def test_two_processes_stop_together_and_resume(self):
        straight = self.finish("straight", processes=2)
        self.assertEqual(self.interrupt("stopped", 5, signal.SIGTERM, processes=2), STOPPED, self.log("stopped"))
        self.assert_same_run(straight, self.finish("stopped", processes=2))


if __name__ == "__main__":
    unittest.main()
