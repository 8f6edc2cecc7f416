#!/usr/bin/env python3
"""Metrics, alerts, dashboard and traces of a real cluster, seen by a real Prometheus and by a collector of spans.

    monitoring_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

from cluster import STAGES, Cluster, free_port, wait_until
from otlp import collector
from prometheus import MONITORING, dashboard, prometheus

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
PAGE = (ROOT / "Shared/Documentation/monitoring.md").read_text()
CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"
NAME = re.compile(r"(?<![:\w])(?:qwenimage_[a-z0-9_]+|process_[a-z0-9_]+)")
# Metrics that the page says are there only with something that this cluster does not have.
SOMETIMES = set(re.findall(r"^\| `((?:qwenimage|process)_\w+)` .*\| only ", PAGE, re.MULTILINE))
# With a suffix of histograms, and what rules record.
RECORDED = re.compile(r"\bstage:[a-z_:]+")


class Watched:
    """A cluster whose metrics Prometheus scrapes and whose spans a collector takes; all tests share it."""

    def __init__(self, stack):
        self.tools = pathlib.Path(subprocess.run(
            [ROOT / "Tests/Support/prometheus.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
        self.address, self.collector = stack.enter_context(collector())
        self.ports = {}
        settings = {"tracing-endpoint": self.address}
        stages = {stage: {**settings, **self.metrics_of(f"{stage}-{number}")} for number, stage in enumerate(STAGES, 1)}
        # On a busy machine an idle denoiser would assist, and have spans of its own.
        gateway = {**settings, "jobs-assisted-step-seconds": 0}
        self.cluster = stack.enter_context(Cluster(BINARIES, NANO, settings=gateway, stage_settings=stages))
        second = f"denoiser-{len(STAGES) + 1}"
        self.cluster.start("denoiser", settings=self.metrics_of(second))
        self.cluster.wait(lambda: len(self.cluster.workers("denoiser")) == 2, "two denoisers")
        self.prometheus = stack.enter_context(prometheus(
            self.tools, [f"127.0.0.1:{self.cluster.http_port}"], [f"127.0.0.1:{port}" for port in self.ports.values()]))
        # Some metrics are there from the first image on.
        self.generate()

    def metrics_of(self, name):
        self.ports[name] = free_port()
        return {"metrics-address": f"127.0.0.1:{self.ports[name]}"}

    def generate(self, steps=4, size=256, trace=None, **fields):
        """Makes an image; (seconds that it took, answer)."""
        body = {"prompt": "a red heart", "seed": 3, "steps": steps, "size": f"{size}x{size}", **fields}
        headers = {"content-type": "application/json"}
        if trace:
            headers["traceparent"] = f"00-{trace}-{CLIENT_SPAN}-01"
        request = urllib.request.Request(f"{self.cluster.url}/v1/images/generations", json.dumps(body).encode(), headers)
        start = time.monotonic()
        with urllib.request.urlopen(request, timeout=120) as response:
            return time.monotonic() - start, json.load(response)

    def expositions(self, accept=""):
        """The text of /metrics of every process, by its name."""
        urls = {"gateway": f"{self.cluster.url}/metrics", **{name: f"http://127.0.0.1:{port}/metrics" for name, port in self.ports.items()}}
        texts = {}
        for name, url in urls.items():
            with urllib.request.urlopen(urllib.request.Request(url, headers={"accept": accept}), timeout=10) as response:
                texts[name] = response.read().decode()
        return texts

    def families(self):
        """Names of all metrics, without what histograms add."""
        return {line.split(" ")[2] for text in self.expositions().values() for line in text.splitlines() if line.startswith("# TYPE ")}

    def running_denoiser(self):
        """(process id, worker id) of the denoiser that runs a task; None when none does."""
        return next(((worker["pid"], worker["id"]) for worker in self.cluster.workers("denoiser") if worker["running"]), None)


watched = None


def family(name, families):
    return name if name in families else re.sub(r"_(bucket|sum|count)$", "", name)


def test_promtool_finds_nothing_to_complain_about():
    for name, text in watched.expositions().items():
        result = subprocess.run([watched.tools / "promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert result.returncode == 0, f"{name}: {result.stdout}{result.stderr}"
    for arguments in (["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        result = subprocess.run([watched.tools / "promtool", *arguments], cwd=MONITORING, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_test_and_a_paragraph():
    alerts = set(re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (MONITORING / "alerts_test.yml").read_text()))
    assert alerts == tested and len(alerts) > 10, alerts ^ tested
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) & alerts
    assert documented == alerts, alerts - documented


def test_the_page_has_every_metric_and_no_other():
    families = watched.families()
    documented = set(re.findall(r"^\| `((?:qwenimage|process)_\w+)` ", PAGE, re.MULTILINE))
    assert families <= documented, f"not on the page: {families - documented}"
    assert documented - SOMETIMES <= families, f"not there: {documented - SOMETIMES - families}"


def test_images_are_counted_and_demand_is_seen():
    for _ in range(3):
        watched.generate()
    server = watched.prometheus
    wait_until(lambda: server.value('qwenimage_gateway_jobs_total{outcome="finished"}') >= 3, "three images counted", 20)

    def is_wanted():
        watched.generate(steps=30)
        return server.value('stage:qwenimage_workers_wanted:ratio{stage="denoiser"}') > 0

    wait_until(is_wanted, "a ratio while there is work", 20)
    assert server.value("qwenimage_gateway_jobs_admitted_total") >= 3
    assert server.value('qwenimage_stage_workers_ready{stage="denoiser"}') == 2
    for stage in ("text-encoder", "denoiser", "vae-decoder"):
        assert server.query(f'qwenimage_stage_workers_wanted{{stage="{stage}"}}'), stage
        assert server.value(f'qwenimage_stage_task_seconds_count{{stage="{stage}"}}') >= (1 if stage == "text-encoder" else 3), stage
        assert server.value(f'qwenimage_worker_task_seconds_count{{stage="{stage}"}}') >= (1 if stage == "text-encoder" else 3), stage
    assert server.value("qwenimage_journal_write_seconds_count") > 3 and server.value("qwenimage_journal_written_bytes_total") > 1000
    assert server.value("qwenimage_gateway_prompt_cache_hits_total") >= 2
    assert server.value("qwenimage_worker_credits") >= len(STAGES) + 1


def test_no_expression_names_what_is_not_there():
    server, families = watched.prometheus, watched.families()
    expressions = [expression for _, targets in dashboard() for expression, _ in targets]
    assert len(expressions) > 20
    rules = server.rules()
    for expression in expressions + rules:
        names = {family(name, families) for name in NAME.findall(expression)}
        assert names <= families | SOMETIMES, f"{names - families} of {expression}"
        assert names or RECORDED.search(expression) or "up{" in expression, expression
    # Rates need a second scrape; and a panel without a series would be empty.
    empty = lambda: [x for x in expressions if not server.query(x.replace("$__rate_interval", "1m"))]
    wait_until(lambda: not empty(), "a series for every panel", 20, lambda: "\n".join(empty()))
    # Of alerts, the metrics with the labels that they name.
    for expression in rules:
        for name, labels in re.findall(r"(qwenimage_\w+)\{([^}]*)\}", expression):
            if name in SOMETIMES:
                continue
            keys = re.findall(r"(\w+)(?:=~|!=|!~|=)", labels)
            selector = f'{name}{{{",".join(f"""{key}!="" """.strip() for key in keys)}}}'
            assert server.query(selector), f"{selector} of {expression}"


def test_a_request_is_one_trace_through_all_processes():
    watched.generate(prompt="a blue star", steps=8, trace=CLIENT_TRACE)
    names = {f"{what} {stage}" for what in ("wait", "attempt", "process") for stage in ("text-encoder", "denoiser", "vae-decoder")}
    names |= {"POST /v1/images/generations", "image"}
    seen = lambda: {span.name for span in watched.collector.trace(CLIENT_TRACE)}
    wait_until(lambda: seen() >= names, "all spans", 20, lambda: f"{names - seen()} {watched.collector.errors}")
    spans = {span.name: span for span in watched.collector.trace(CLIENT_TRACE)}
    request, image = spans["POST /v1/images/generations"], spans["image"]
    assert request.parent == CLIENT_SPAN and image.parent == request.id and request.kind == 2
    assert request.attributes["http.request.method"] == "POST" and request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.route"] == "/v1/images/generations" and request.service == "qwen-image-gateway"
    workers = {worker["id"]: worker["stage"] for worker in watched.cluster.get("/v1/workers")[1]["data"]}
    for stage in ("text-encoder", "denoiser", "vae-decoder"):
        wait, attempt, process = (spans[f"{what} {stage}"] for what in ("wait", "attempt", "process"))
        assert wait.parent == attempt.parent == image.id and process.parent == attempt.id, stage
        assert attempt.kind == 3 and process.kind == 2 and process.service == f"qwen-image-{stage}", stage
        assert workers[attempt.attributes["qwenimage.worker.id"]] == stage
        assert process.attributes["qwenimage.worker.id"] == attempt.attributes["qwenimage.worker.id"]
        assert process.seconds <= attempt.seconds + 0.05 and attempt.seconds <= image.seconds + 0.05, stage
        assert process.resource["service.instance.id"] and process.resource["service.version"]
    steps = [event for event in spans["process denoiser"].events if event[1] == "step"]
    assert steps and steps[-1][2]["qwenimage.step.completed"] == 8 and steps[-1][0] <= spans["process denoiser"].end + 0.001
    assert "prompt" not in str([span.attributes for span in spans.values()]), "prompts are private"
    assert not watched.collector.errors, watched.collector.errors


def test_spans_survive_a_collector_that_is_busy():
    trace = "1" * 32
    watched.collector.refuse = 2
    watched.generate(trace=trace)
    wait_until(lambda: {"image", "process denoiser"} <= {span.name for span in watched.collector.trace(trace)}, "spans sent again", 20)
    server = watched.prometheus
    wait_until(lambda: server.value('qwenimage_trace_spans_total{outcome="exported"}') > 10, "spans counted", 20)
    assert server.value('qwenimage_trace_spans_total{outcome=~"dropped|failed"}') == 0


def test_a_slow_image_leads_to_its_worker_and_step():
    """One denoiser is stopped in the middle of an image; the exemplar of the slowest step names the trace of that image."""
    thread = threading.Thread(target=watched.generate, kwargs={"steps": 100, "prompt": "a slow heart"})
    thread.start()
    found = []

    def is_running():
        found[:] = [watched.running_denoiser()]
        return found[0] is not None

    wait_until(is_running, "a denoiser at work", 20)
    pid, worker = found[0]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.8)
    os.kill(pid, signal.SIGCONT)
    thread.join(60)
    name = next(name for name, process in watched.cluster.processes.items() if process.pid == pid)
    server, instance = watched.prometheus, f"127.0.0.1:{watched.ports[name]}"
    selector = 'qwenimage_worker_step_seconds_bucket{stage="denoiser"}'
    slowest = lambda: next(iter(server.exemplars(selector)), None)
    wait_until(lambda: slowest() and slowest()[0]["instance"] == instance, "an exemplar of the stopped worker", 20,
               lambda: str(server.exemplars(selector)))
    _, seconds, trace, _ = slowest()
    # From the panel's point to the trace, and in it to the worker and the step.
    named = lambda name: next((span for span in watched.collector.trace(trace) if span.name == name), None)
    wait_until(lambda: named("process denoiser") and named("image"), "the trace of the exemplar", 20)
    span = named("process denoiser")
    assert span.attributes["qwenimage.worker.id"] == worker and span.seconds > 1.8, (span.attributes, worker)
    times = [span.start] + [at for at, _, _ in span.events]
    gaps = [(later - earlier, event) for earlier, later, event in zip(times, times[1:], span.events)]
    gap, event = max(gaps, key=lambda item: item[0])
    assert gap >= 1.7, gaps
    assert abs(event[2]["qwenimage.step.seconds"] - seconds) < 1e-6, (event, seconds)
    assert named("image").attributes["qwenimage.job.steps"] == 100
    print(f"     exemplar {seconds:.2f} s → trace {trace} → {worker}, step {event[2]['qwenimage.step.completed']}")


if __name__ == "__main__":
    with contextlib.ExitStack() as resources:
        watched = Watched(resources)
        sys.exit(testing.run("monitoring", testing.functions(globals())))
