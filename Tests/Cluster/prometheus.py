"""A real Prometheus for tests: scrapes a cluster on loopback, with the rules and the dashboard of compose/monitoring."""

import contextlib
import json
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

from cluster import free_port, wait_until

MONITORING = pathlib.Path(__file__).resolve().parent.parent.parent / "compose/monitoring"


class Prometheus:
    """Asks a Prometheus."""

    def __init__(self, url):
        self.url = url

    def get(self, path, **parameters):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression):
        """The series that an expression has now: [(labels, value)]."""
        return [(series["metric"], float(series["value"][1])) for series in self.get("query", query=expression)["result"]]

    def value(self, expression):
        """The sum over all series; 0 when there is none."""
        return sum(value for _, value in self.query(expression))

    def range(self, expression, seconds, step):
        """[(labels, [(time, value)])] of the last `seconds`."""
        now = time.time()
        data = self.get("query_range", query=expression, start=now - seconds, end=now, step=step)
        return [(series["metric"], [(float(at), float(value)) for at, value in series["values"]]) for series in data["result"]]

    def exemplars(self, selector, seconds=600):
        """[(labels of the series, value, trace id, time)], the largest value first."""
        now = time.time()
        groups = self.get("query_exemplars", query=selector, start=now - seconds, end=now + 1)
        found = [(group["seriesLabels"], float(exemplar["value"]), exemplar["labels"]["trace_id"], float(exemplar["timestamp"]))
                 for group in groups for exemplar in group["exemplars"]]
        return sorted(found, key=lambda item: -item[1])

    def rules(self):
        """The expressions of all rules."""
        return [rule["query"] for group in self.get("rules")["groups"] for rule in group["rules"]]

    def healthy(self, count):
        targets = self.get("targets")["activeTargets"]
        return len(targets) == count and all(target["health"] == "up" for target in targets)


def configuration(gateways, workers, interval="1s"):
    """compose/monitoring/prometheus.yml with these targets instead of names that only compose's network has."""
    text = (MONITORING / "prometheus.yml").read_text().replace("15s", interval)
    text = text.replace("  - alerts.yml", f"  - {MONITORING / 'alerts.yml'}")
    jobs = iter((gateways, workers))
    return re.sub(r"    dns_sd_configs:\n(?:      .*\n)+", lambda _: f"    static_configs: [{{targets: {json.dumps(next(jobs))}}}]\n", text)


@contextlib.contextmanager
def prometheus(tools, gateways, workers):
    """A Prometheus that runs until the block ends; `tools` is the folder of the executables."""
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        folder, port = pathlib.Path(folder), free_port()
        (folder / "prometheus.yml").write_text(configuration(gateways, workers))
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [tools / "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"], stdout=log, stderr=log)
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")

            def is_healthy():
                with contextlib.suppress(OSError):
                    return server.healthy(len(gateways) + len(workers))

            wait_until(is_healthy, "all targets scraped", 60, lambda: (folder / "log").read_text()[-3000:])
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def dashboard():
    """[(title of the panel, [(expression, legend)])] of the dashboard."""
    panels = json.loads((MONITORING / "grafana/dashboards/qwen-image.json").read_text())["panels"]
    return [(panel["title"], [(target["expr"], target["legendFormat"]) for target in panel["targets"]])
            for panel in panels if panel["type"] != "row"]
