"""A Qwen-Image cluster of real processes on loopback, for tests: CURVE keys, any number of workers, faults on demand."""

import json
import os
import pathlib
import pty
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

STAGES = ("text-encoder", "vae-encoder", "denoiser", "vae-decoder")
# How long anything may take before a test gives up waiting for it; far longer than it takes on a slow and busy machine.
PATIENCE_SECONDS = 180


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, what, timeout_seconds=PATIENCE_SECONDS, details=lambda: ""):
    """Waits until `condition` holds; an AssertionError says `what` did not come true."""
    end = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not {what} within {timeout_seconds} s\n{details()}")
        time.sleep(0.05)


class Terminal:
    """A process whose standard error is a terminal, so that it shows its progress; `shown` is what it has written there."""

    def __init__(self, arguments, **options):
        self.shown = ""
        controller, terminal = pty.openpty()
        self.process = subprocess.Popen(list(map(str, arguments)), stdin=subprocess.DEVNULL, stderr=terminal, **options)
        os.close(terminal)
        self._thread = threading.Thread(target=self._read, args=(controller,), daemon=True)
        self._thread.start()

    def _read(self, controller):
        try:
            while data := os.read(controller, 1 << 12):
                self.shown += data.decode(errors="replace")
        except OSError:
            pass  # closed by the last process that had it
        os.close(controller)

    def wait_for(self, text):
        """Waits until the process has written `text`, and runs on."""
        wait_until(lambda: text in self.shown or self.process.poll() is not None, f"{text} shown", details=lambda: self.shown)
        assert text in self.shown and self.process.poll() is None, f"ended with {self.process.poll()}: {self.shown}"


class Cluster:
    """Processes that end with the `with` block, however it is left."""

    def __init__(self, binaries, model, precision="bf16", settings=None, secure=True, threads=1, stage_settings=None):
        self.stage_settings = stage_settings or {}
        self.binaries, self.model, self.precision = pathlib.Path(binaries), pathlib.Path(model), precision
        self.settings, self.secure, self.threads = dict(settings or {}), secure, threads
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="qwen-image-"))
        self.http_port, self.worker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.processes, self.count = {}, 0

    def __enter__(self):
        try:
            subprocess.run([self.binaries / "qwen-image", "keygen", self.folder / "keys"], check=True, stdout=subprocess.DEVNULL)
            self.start_gateway()
            for stage in STAGES:
                self.start(stage)
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in list(self.processes):
            self.stop(name, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_gateway(self):
        keys = self.folder / "keys/gateway"
        security = {"cluster-secret-key-file": keys / "gateway.secret", "cluster-allowed-keys-directory": keys / "workers"}
        self._spawn("gateway", "gateway", {
            "http-port": self.http_port, "cluster-endpoints": f"tcp://127.0.0.1:{self.worker_port}", **(security if self.secure else {}),
            "cluster-heartbeat-seconds": 0.5, "cluster-lease-seconds": 3, "shutdown-grace-seconds": 2,
            "journal-path": self.folder / "gateway.journal", **self.settings})

    def start(self, stage, secret=None, settings=None):
        """Starts one more worker of `stage`, with further settings of its own; returns its name."""
        self.count += 1
        name, keys = f"{stage}-{self.count}", self.folder / "keys/worker"
        security = {"worker-secret-key-file": secret or keys / "worker.secret", "worker-gateway-key-file": keys / "gateway.public"}
        self._spawn(name, stage, {
            "model-directory": self.model, "compute-precision": self.precision, "compute-threads": self.threads,
            "worker-gateways": f"tcp://127.0.0.1:{self.worker_port}", **(security if self.secure else {}),
            "worker-health-file": self.folder / f"{name}.health", "worker-drain-grace-seconds": 5,
            **self.stage_settings.get(stage, {}), **(settings or {})})
        return name

    def _spawn(self, name, program, flags):
        arguments = [str(self.binaries / program)] + [str(x) for flag, value in flags.items() for x in (f"--{flag}", value)]
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self, name, number=signal.SIGKILL):
        """Ends one process by its own id and waits for it."""
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return process.returncode

    def names(self, stage):
        return [name for name in self.processes if name.startswith(stage)]

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def get(self, path):
        """(status, JSON) of a GET request."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def metric(self, name):
        """The sum of a metric of the gateway over all its labels."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))

    def workers(self, stage):
        """The workers of a stage, as /v1/workers lists them."""
        return [worker for worker in self.get("/v1/workers")[1]["data"] if worker["stage"] == stage]

    def wait_until_ready(self, timeout_seconds=PATIENCE_SECONDS):
        def is_ready():
            if self.get("/readyz")[0] != 200:
                return False
            status, workers = self.get("/v1/workers")
            if status in (401, 403):  # only the operator's key shows workers
                return True
            ready = {worker["stage"] for worker in workers["data"] if worker["state"] == "ready"}
            return ready >= {stage for stage in STAGES if self.names(stage)}

        self.wait(is_ready, "ready", timeout_seconds)

    def wait(self, condition, what, timeout_seconds=PATIENCE_SECONDS):
        logs = lambda: "\n".join(f"--- {name}\n{self.log(name)[-2000:]}" for name in self.processes)
        wait_until(condition, what, timeout_seconds, logs)

    def generate(self, output, **flags):
        """Runs `qwen-image generate`; returns the finished process."""
        return self._cli("generate", output, {"gateway": self.url, **flags})

    def local(self, output, **flags):
        """Runs `qwen-image local` on the same model at the same precision."""
        return self._cli("local", output, {"model": self.model, "precision": self.precision, **flags})

    def _cli(self, command, output, flags):
        arguments = [str(self.binaries / "qwen-image"), command, "--output", str(output)]
        arguments += [str(x) for flag, value in flags.items() for x in (f"--{flag.replace('_', '-')}", value)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=300)
