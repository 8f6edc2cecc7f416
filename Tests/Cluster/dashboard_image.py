#!/usr/bin/env python3
"""Draws the dashboard of compose/monitoring from what a real Prometheus answers about a real cluster under load, to be looked at. It is not
Grafana: it draws the panels that the dashboard's JSON has, at their places, with their queries and legends. Not a part of Tests/run.sh.

    dashboard_image.py [DIRECTORY OF THE EXECUTABLES] [OUTPUT.png] [SECONDS]

It needs matplotlib 3.11.2 beside Tests/requirements.txt.
"""

import contextlib
import json
import math
import random
import sys
import threading
import time

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

sys.argv[1:] = sys.argv[1:] or [".build/release"]
from monitoring_test import Watched  # noqa: E402
from prometheus import MONITORING  # noqa: E402

OUTPUT = sys.argv[2] if len(sys.argv) > 2 else "dashboard.png"
SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 60
COLUMNS = 24


def load(watched, seconds):
    """Clients that ask for images, more and more of them, until the time is over."""
    end = time.monotonic() + seconds

    def client(delay):
        time.sleep(delay)
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                watched.generate(steps=random.choice([4, 8, 30]), size=random.choice([64, 256]), prompt=f"a star {random.random()}")

    threads = [threading.Thread(target=client, args=(number * seconds / 12,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def text(value, unit):
    if math.isnan(value):
        return "–"
    return {"percentunit": f"{100 * value:.1f} %", "s": f"{value:.2f} s", "bytes": f"{value / 1e6:.0f} MB"}.get(unit, f"{value:.3g}")


def legend(template, labels):
    for key, value in labels.items():
        template = template.replace("{{" + key + "}}", value)
    return template


def draw_panel(axes, panel, server, seconds):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], fontsize=9, loc="left")
    expressions = [(target["expr"].replace("$__rate_interval", "15s").replace("[5m]", "[15s]"), target["legendFormat"])
                   for target in panel["targets"]]
    if panel["type"] == "stat":
        axes.axis("off")
        values = [value for expression, _ in expressions for _, value in server.query(expression)]
        axes.text(0.5, 0.45, text(values[0], unit) if values else "no data", ha="center", va="center", fontsize=20)
        return
    start = time.time() - seconds
    count = 0
    for expression, template in expressions:
        for labels, points in server.range(expression, seconds, 1):
            axes.plot([at - start for at, _ in points], [value for _, value in points], label=legend(template, labels), linewidth=1)
            count += 1
    for expression, _ in expressions:
        if "_bucket" in expression:
            metric = expression.split("rate(")[1].split("[")[0]
            for _, value, _, at in server.exemplars(metric, seconds):
                axes.plot(at - start, value, marker="D", color="grey", markersize=3)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit, fontsize=7)
    axes.tick_params(labelsize=7)
    if 0 < count <= 12:
        axes.legend(fontsize=6, loc="upper left")
    if count == 0:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)


def draw(server, seconds):
    board = json.loads((MONITORING / "grafana/dashboards/qwen-image.json").read_text())
    panels = board["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = pyplot.figure(figsize=(22, 0.42 * height))
    figure.suptitle(board["title"], x=0.03, ha="left", fontsize=14)
    for panel in panels:
        at = panel["gridPos"]
        left, bottom = 0.03 + 0.96 * at["x"] / COLUMNS, 0.97 * (1 - (at["y"] + at["h"]) / height)
        if panel["type"] == "row":
            figure.text(0.03, bottom + 0.004, panel["title"], fontsize=11, weight="bold")
            continue
        axes = figure.add_axes((left, bottom + 0.03, 0.96 * at["w"] / COLUMNS - 0.03, 0.97 * at["h"] / height - 0.05))
        draw_panel(axes, panel, server, seconds)
    figure.savefig(OUTPUT, dpi=70)


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        watched = Watched(stack)
        load(watched, SECONDS)
        time.sleep(2)
        draw(watched.prometheus, SECONDS + 5)
    print(f"written: {OUTPUT}")
