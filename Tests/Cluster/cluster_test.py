#!/usr/bin/env python3
"""Real processes: a request to the gateway gives an image with the bytes that one process gives.

    cluster_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from cluster import PATIENCE_SECONDS, STAGES, Cluster, Terminal, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
TINY = ROOT / "Tests/Golden/tiny/checkpoint"


def same_bytes(cluster, name, **flags):
    """Both ways of drawing give the same file."""
    through, alone = cluster.folder / f"{name}.cluster.png", cluster.folder / f"{name}.local.png"
    for run, path in ((cluster.generate, through), (cluster.local, alone)):
        result = run(path, **flags)
        assert result.returncode == 0, result.stderr
    assert through.read_bytes() == alone.read_bytes(), f"{name}: generate and local differ"
    return through.read_bytes()


def test_same_bytes_as_one_process():
    with Cluster(BINARIES, NANO) as cluster:
        seen = {
            same_bytes(cluster, "defaults", prompt="a green circle on a white background", seed=1),
            same_bytes(cluster, "negative", prompt="a red heart", negative_prompt="blue", true_cfg_scale=2.5, steps=6, seed=2),
            same_bytes(cluster, "noguidance", prompt="红色背景上写着\"福\"字", true_cfg_scale=1, steps=4, seed=3),
            same_bytes(cluster, "wide", prompt='"OK" in blue letters', width=96, height=48, steps=3, seed=9223372036854775807),
        }
        assert len(seen) == 4
    with Cluster(BINARIES, TINY, precision="fp32") as cluster:
        same_bytes(cluster, "fp32", prompt="fp32 too", width=64, height=80, steps=2, seed=4)


def test_quantised_modes():
    seen = set()
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("int8", "q4"):
            quantised = pathlib.Path(folder, mode)
            command = [BINARIES / "qwen-image", "quantize", "--precision", mode, NANO, quantised]
            table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            assert "attn.to_q.weight" in table and (quantised / "quantisation.json").is_file(), table
            images = set()
            # Quantised while loading, or beforehand.
            for model, precision in ((NANO, mode), (quantised, "auto")):
                with Cluster(BINARIES, model, precision=precision) as cluster:
                    images.add(same_bytes(cluster, mode, prompt="a red heart", steps=4, seed=5))
                    classes = {worker["stage"]: worker["numerics_class"] for worker in cluster.get("/v1/workers")[1]["data"]}
                    assert classes["denoiser"].startswith(mode) and classes["text-encoder"].startswith(mode), classes
                    assert classes["vae-decoder"].startswith("fp32"), classes
            assert len(images) == 1, mode
            seen |= images
    assert len(seen) == 2


def test_interrupted_synth_leaves_nothing():
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [BINARIES / "qwen-image", "synth", "--config", "qwen-image", "--precision", "q4", "--threads", "1", f"{folder}/model"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: any(pathlib.Path(folder).rglob("*.partial")) or process.poll() is not None, "begun")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        # A small disk refuses it at once, which is right too.
        assert process.returncode == 130 or b"MB are free" in errors, (process.returncode, errors)
        assert os.listdir(folder) == [], os.listdir(folder)


def test_parameters_are_in_the_image():
    with Cluster(BINARIES, NANO) as cluster:
        path = cluster.folder / "x.png"
        assert cluster.generate(path, prompt="naïve 猫", seed=77, steps=2).returncode == 0
        data = path.read_bytes()
        for text in ("naïve 猫", "77", "64x64", "nano-qwen-image"):
            assert text.encode() in data, text


def test_openai_client():
    with Cluster(BINARIES, NANO) as cluster:
        environment = dict(os.environ, QWEN_IMAGE_BASE_URL=f"{cluster.url}/v1")
        result = subprocess.run(
            [sys.executable, str(ROOT / "Tests/Cluster/openai_client_test.py")], env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def request(cluster, seed, steps=8, url=None):
    body = json.dumps({"prompt": f"a blue star {seed % 7}", "seed": seed, "num_inference_steps": steps}).encode()
    call = urllib.request.Request(f"{url or cluster.url}/v1/images/generations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=120) as response:
        return base64.b64decode(json.load(response)["data"][0]["b64_json"])


def test_gateways_that_share_workers():
    """Two gateways, each with a journal of its own, and workers that serve both: neither disturbs the other's tasks, and a worker that
    leaves tells both."""
    cluster = Cluster(BINARIES, NANO)
    ports, http = [cluster.worker_port, free_port()], [cluster.http_port, free_port()]
    addresses = ",".join(f"tcp://127.0.0.1:{port}" for port in ports)
    cluster.stage_settings = {stage: {"worker-gateways": addresses} for stage in STAGES}
    with cluster:
        cluster.settings = {
            "http-port": http[1], "cluster-endpoints": f"tcp://127.0.0.1:{ports[1]}", "journal-path": cluster.folder / "other.journal"}
        first = cluster.processes.pop("gateway")
        cluster.start_gateway()
        cluster.processes["other"], cluster.processes["gateway"] = cluster.processes["gateway"], first
        second = cluster.start("denoiser")
        cluster.url = f"http://127.0.0.1:{http[1]}"
        cluster.wait_until_ready()
        cluster.wait(lambda: len(cluster.workers("denoiser")) == 2, "both denoisers there")

        def draw(index):
            return request(cluster, index // 2, 30, f"http://127.0.0.1:{http[index % 2]}")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            images = list(pool.map(draw, range(40)))
            assert images[::2] == images[1::2]
            jobs = [pool.submit(draw, index) for index in range(20)]
            assert cluster.stop(second, signal.SIGTERM) == 0
            assert [job.result() for job in jobs] == images[:20]
        workers = [name for name in cluster.processes if name not in ("gateway", "other")] + [second]
        for name in workers:
            assert cluster.log(name).count('"registered"') == 2, cluster.log(name)
            assert "cancelling a task" not in cluster.log(name), cluster.log(name)
        # The gateways write to one log.
        log = cluster.log("gateway")
        # A gateway whose offer finds the worker gone may notice that before it reads what the worker has said.
        assert "worker draining" in log and log.count("worker disconnected") == 2 and "quarantined" not in log, log


def test_jobs_that_share_a_denoiser():
    """One denoiser with several credits predicts for jobs of different steps, lengths and sizes together; the bytes of none change."""
    jobs = [dict(prompt=f"a blue star {seed}", seed=seed, steps=4 + seed % 5, width=64 + 16 * (seed % 2), height=64) for seed in range(12)]
    with Cluster(BINARIES, NANO) as cluster:
        cluster.start("denoiser", settings={"worker-credits": 6, "batch-wait-seconds": 0.02})
        cluster.wait(lambda: len(cluster.workers("denoiser")) == 2, "both denoisers there")
        cluster.stop(cluster.names("denoiser")[0], signal.SIGTERM)
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as threads:
            paths = [cluster.folder / f"{job['seed']}.png" for job in jobs]
            results = list(threads.map(lambda job, path: cluster.generate(path, **job), jobs, paths))
        assert all(result.returncode == 0 for result in results), [result.stderr for result in results]
        for job, path in zip(jobs[::3], paths[::3]):
            alone = cluster.folder / "alone.png"
            assert cluster.local(alone, **job).returncode == 0
            assert alone.read_bytes() == path.read_bytes(), f"job {job['seed']} differs"


def test_many_seeds_while_denoisers_come_and_go():
    """Denoisers are started, killed and drained while requests run; each request gets its own image, byte for byte."""
    seeds = range(1000, 1060)
    with Cluster(BINARIES, NANO, settings={"jobs-accept-seconds": 2}) as cluster:
        expected = {}
        for seed in seeds[:6]:
            path = cluster.folder / f"{seed}.png"
            result = cluster.local(path, prompt=f"a blue star {seed % 7}", seed=seed, steps=200)
            assert result.returncode == 0, result.stderr
            expected[seed] = path.read_bytes()
        done = threading.Event()
        faults = dict(killed=0, drained=0)

        def disturb():
            while not done.is_set():
                cluster.start("denoiser")
                time.sleep(0.3)
                names = cluster.names("denoiser")
                if len(names) > 2:
                    cluster.stop(names[0], signal.SIGKILL)
                    faults["killed"] += 1
                    cluster.stop(names[1], signal.SIGTERM)
                    faults["drained"] += 1

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                images = dict(zip(seeds, pool.map(lambda seed: request(cluster, seed, 200), seeds)))
        finally:
            done.set()
            disturber.join()
        assert len(set(images.values())) == len(seeds), "two seeds gave one image"
        for seed, image in expected.items():
            assert images[seed] == image, f"seed {seed} got another image"
        assert faults["killed"] >= 2, faults
        print(f"    {len(seeds)} requests, {faults['killed']} denoisers killed, {faults['drained']} drained")


def stage_metrics(port):
    """What a stage tells Prometheus: names with labels, and their values."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if not line.startswith("#"))


class TLSFront:
    """Takes TLS off connections and hands them on to a port of this machine, as a proxy before a gateway does."""

    def __init__(self, target_port, certificate, key):
        self.target_port, self.context = target_port, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()
        except OSError:
            pass  # closed

    def _serve(self, connection):
        try:
            with self.context.wrap_socket(connection, server_side=True) as near, socket.create_connection(
                    ("127.0.0.1", self.target_port)) as far:
                back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
                back.start()
                self._pump(near, far)
                back.join()
        except OSError:
            pass  # the client trusts another certificate, or has left

    def _pump(self, source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_tls_in_front_of_the_gateway():
    """The command line speaks https to servers whose certificate it trusts, and to no others."""
    with Cluster(BINARIES, NANO) as cluster:
        certificate, key = cluster.folder / "certificate.pem", cluster.folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        front = TLSFront(cluster.http_port, certificate, key)

        def generate(host, **variables):
            path = cluster.folder / "tls.png"
            path.unlink(missing_ok=True)
            result = subprocess.run(
                [BINARIES / "qwen-image", "generate", "--gateway", f"https://{host}:{front.port}", "--prompt", "a red heart", "--steps",
                 "4", "--seed", "3", "-o", path], capture_output=True, text=True, timeout=PATIENCE_SECONDS, env={**os.environ, **variables})
            return result, path

        result, path = generate("localhost", SSL_CERT_FILE=str(certificate))
        assert result.returncode == 0, result.stderr
        alone = cluster.folder / "alone.png"
        assert cluster.local(alone, prompt="a red heart", steps=4, seed=3).returncode == 0
        assert path.read_bytes() == alone.read_bytes()
        # Trusted by nothing; of another host.
        for host, variables in (("localhost", {}), ("127.0.0.1", {"SSL_CERT_FILE": str(certificate)})):
            result, path = generate(host, **variables)
            assert result.returncode not in (0, 130) and "certificate" in result.stderr, (host, result.stderr)
            assert not path.exists()
        front.listener.close()


def test_stage_metrics():
    """A stage tells Prometheus of its steps, its load time and its memory."""
    with Cluster(BINARIES, NANO) as cluster:
        port = free_port()
        cluster.stop(cluster.names("denoiser")[0])
        cluster.start("denoiser", settings={"metrics-address": f"127.0.0.1:{port}"})
        request(cluster, seed=5, steps=6)
        lines = stage_metrics(port)
    assert lines['qwenimage_worker_step_seconds_count{stage="denoiser"}'] == "6", lines
    assert lines['qwenimage_worker_tasks_total{outcome="OK",stage="denoiser"}'] == "1", lines
    assert float(lines["qwenimage_stage_load_seconds"]) > 0
    assert float(lines["process_resident_memory_peak_bytes"]) > 10_000_000


def test_interrupt_cancels():
    """Ctrl-C ends the command with status 130, leaves no file, and the cluster stops working on the job."""
    with Cluster(BINARIES, NANO) as cluster:
        for command, flags in (("generate", ["--gateway", cluster.url]), ("local", ["--model", str(NANO)])):
            path = cluster.folder / f"{command}.png"
            terminal = Terminal(
                [BINARIES / "qwen-image", command, *flags, "--prompt", "x", "--steps", "200", "--width", "256", "--height", "256",
                 "--output", path], stdout=subprocess.DEVNULL)
            terminal.wait_for("/200")
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.process.wait(PATIENCE_SECONDS) == 130, terminal.shown
            assert not path.exists()
        cluster.wait(lambda: "cancelled" in cluster.log("gateway").lower(), "cancelled at the gateway")
        assert request(cluster, 5, steps=2)


def test_bad_input_is_named():
    with Cluster(BINARIES, NANO) as cluster:
        for flags, word in (
            (dict(prompt="x", width=65, height=64), "width"), (dict(prompt="x", steps=100000), "steps"),
            (dict(prompt="word " * 600), "prompt"), (dict(prompt="x", true_cfg_scale="nan"), "cfg"),
        ):
            for run in (cluster.generate, cluster.local):
                result = run(cluster.folder / "never.png", **flags)
                assert result.returncode not in (0, 130) and word in result.stderr, (flags, result.returncode, result.stderr)
        assert not (cluster.folder / "never.png").exists()


def jobs(cluster, *arguments, key=None, status=0):
    """Runs `qwen-image jobs`; returns what it prints."""
    environment = dict(os.environ, **({"QWEN_IMAGE_API_KEY": key} if key else {}))
    result = subprocess.run(
        [str(BINARIES / "qwen-image"), "jobs", *map(str, arguments), "--gateway", cluster.url], capture_output=True, text=True, timeout=120,
        env=environment)
    assert result.returncode == status, (arguments, result.stdout, result.stderr)
    return result.stdout.strip()


def test_a_job_outlives_the_gateway():
    """The gateway is killed during a job; the next one resumes it, and the command line keeps watching it."""
    with Cluster(BINARIES, NANO) as cluster:
        size = dict(width=256, height=256, steps=200)
        flags = ["--prompt", "a green star", "--seed", "11", "--width", "256", "--height", "256", "--steps", "200", "--key", "once"]
        job = jobs(cluster, "submit", *flags)
        watcher = Terminal([BINARIES / "qwen-image", "jobs", "watch", job, "--gateway", cluster.url], stdout=subprocess.PIPE, text=True)
        watcher.wait_for("/200")
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1]["step"] > 20, "making steps")
        step = cluster.get(f"/v1/jobs/{job}")[1]["step"]
        cluster.stop("gateway", signal.SIGKILL)
        time.sleep(0.5)  # the watcher finds nothing there once or twice
        cluster.start_gateway()
        assert watcher.process.wait(PATIENCE_SECONDS) == 0 and watcher.process.stdout.read().strip() == "succeeded", watcher.shown
        assert jobs(cluster, "submit", *flags) == job
        path = cluster.folder / "fetched.png"
        jobs(cluster, "fetch", job, "-o", path)
        alone = cluster.folder / "alone.png"
        assert cluster.local(alone, prompt="a green star", seed=11, **size).returncode == 0
        assert path.read_bytes() == alone.read_bytes(), "the job was resumed with another image"
        print(f"    killed after step {step} or so of 200")
        assert job in jobs(cluster, "list") and json.loads(jobs(cluster, "show", job))["status"] == "succeeded"
        other = jobs(cluster, "submit", "--prompt", "x", "--width", "256", "--height", "256", "--steps", "200")
        assert jobs(cluster, "cancel", other) == "cancelled"
        assert json.loads(jobs(cluster, "show", other))["status"] == "cancelled"
        jobs(cluster, "show", "job-x", status=1)


def test_a_batch_continues_where_it_was_interrupted():
    with Cluster(BINARIES, NANO) as cluster:
        folder, images = cluster.folder / "batch", cluster.folder / "batch/images"
        folder.mkdir()
        names = [f"set/{number}" for number in range(1, 9)]
        rows = [f'"a red circle, {number}",{number},100,256x256,{name}' for number, name in enumerate(names, 1)]
        (folder / "rows.csv").write_text("prompt,seed,steps,size,output\n" + "\n".join(rows) + "\n")
        command = [BINARIES / "qwen-image", "batch", folder / "rows.csv", "--output-directory", images, "--gateway", cluster.url]

        def made():
            return sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))

        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        cluster.wait(lambda: len(made()) >= 2, "two images are there")
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 130 and "the same command again" in errors, (process.returncode, errors)
        before = {name: (images / name).stat().st_mtime_ns for name in made()}
        assert len(before) < len(names), before
        result = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        assert made() == [f"{name}.png" for name in names]
        assert all((images / name).stat().st_mtime_ns == at for name, at in before.items()), "written again"
        done = [json.loads(line) for line in result.stdout.splitlines()]
        assert sorted(report["row"] for report in done) == list(range(1, 9))
        assert sum("job" not in report for report in done) == len(before)
        assert len(cluster.get("/v1/jobs?limit=100")[1]["data"]) == len(names), "a row was made twice"
        path = cluster.folder / "alone.png"
        assert cluster.local(path, prompt="a red circle, 3", seed=3, steps=100, width=256, height=256).returncode == 0
        assert (images / "set/3.png").read_bytes() == path.read_bytes()
        # A row that fails says so, and the others are made.
        (folder / "more.jsonl").write_text('{"prompt": "x", "steps": 2, "output": "x"}\n{"prompt": "y", "steps": -1}\n')
        result = subprocess.run([*command[:2], folder / "more.jsonl", *command[3:]], capture_output=True, text=True, timeout=600)
        assert result.returncode == 1 and "row 2 (line 2): " in result.stderr and "steps" in result.stderr, result.stderr
        assert (images / "x.png").exists()


def test_previews_on_a_terminal():
    with Cluster(BINARIES, NANO) as cluster:
        for style, sign in (("blocks", "▀"), ("kitty", "\x1b_Ga=T"), ("sixel", "\x1bP0;1;0q"), ("off", "denoising")):
            flags = ["--prompt", "a red circle", "--steps", "60", "--width", "256", "--height", "256", "--preview", style]
            terminal = Terminal([BINARIES / "qwen-image", "generate", *flags, "--gateway", cluster.url, "-o", cluster.folder / "x.png"],
                                stdout=subprocess.DEVNULL)
            assert terminal.process.wait(120) == 0, terminal.shown
            wait_until(lambda: sign in terminal.shown, f"{sign!r} shown", details=lambda: terminal.shown[:500])
            assert (style == "off") == ("\x1b[2K" not in terminal.shown), terminal.shown[:500]


def test_a_denoiser_resumes_from_the_last_checkpoint():
    """The only denoiser is killed; the next one computes the steps after the last checkpoint, with the sampler's history, and no others."""
    # Every step is a checkpoint, so that the last one shown is the last one kept.
    with Cluster(BINARIES, NANO, settings={"jobs-checkpoint-seconds": 0}) as cluster:
        request = dict(prompt="a green star", seed=11, width=256, height=256, steps=200, sampler="unipc")
        job = jobs(cluster, "submit", *(text for name, value in request.items() for text in (f"--{name}", f"{value}")))
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1]["step"] > 60, "at step 60")
        cluster.stop(cluster.names("denoiser")[0], signal.SIGKILL)
        cluster.wait(lambda: not cluster.workers("denoiser"), "without a denoiser")
        before, port = cluster.get(f"/v1/jobs/{job}")[1]["step"], free_port()
        cluster.start("denoiser", settings={"metrics-address": f"127.0.0.1:{port}"})
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", "finished")
        computed = int(stage_metrics(port)['qwenimage_worker_step_seconds_count{stage="denoiser"}'])
        assert computed == 200 - before, (before, computed)
        path, alone = cluster.folder / "resumed.png", cluster.folder / "alone.png"
        jobs(cluster, "fetch", job, "-o", path)
        assert cluster.local(alone, **request).returncode == 0
        assert path.read_bytes() == alone.read_bytes(), "the job was resumed with another image"
        print(f"    killed after step {before} of 200")


def test_api_keys_are_read_again():
    def make(tenant, *flags):
        result = subprocess.run([BINARIES / "qwen-image", "api-key", tenant, *flags], check=True, capture_output=True, text=True)
        return result.stderr.split()[-1], result.stdout

    (first, line), (second, other) = make("acme"), make("zeta", "--max-steps", "3")
    with Cluster(BINARIES, NANO) as cluster:
        keys = cluster.folder / "api-keys"
        keys.write_text(line)
        cluster.stop("gateway", signal.SIGTERM)
        cluster.settings = {"http-api-keys-file": keys}
        cluster.start_gateway()
        cluster.wait_until_ready()
        flags = ["submit", "--prompt", "x", "--steps", "2", "--wait", "-o", cluster.folder / "x.png"]
        jobs(cluster, *flags, key=first)
        jobs(cluster, *flags, status=1)
        jobs(cluster, *flags, key=second, status=1)
        keys.write_text(line + other)
        cluster.processes["gateway"].send_signal(signal.SIGHUP)
        cluster.wait(lambda: "keys were read" in cluster.log("gateway"), "read again")
        jobs(cluster, *flags, key=second)
        jobs(cluster, "submit", "--prompt", "x", "--steps", "4", key=second, status=1)
        assert jobs(cluster, "list", key=second).count("job-") == 1, "a tenant sees its own jobs only"
        assert first not in cluster.log("gateway") and second not in cluster.log("gateway")


def test_strangers_stay_out():
    """A worker whose key is not on the list never joins; one that is joins while the gateway runs."""
    with Cluster(BINARIES, NANO) as cluster:
        subprocess.run([BINARIES / "qwen-image", "keygen", cluster.folder / "other"], check=True, stdout=subprocess.DEVNULL)
        refusals = "qwenimage_transport_refused_connections_total"
        stranger = cluster.start("denoiser", secret=cluster.folder / "other/worker/worker.secret")
        cluster.wait(lambda: cluster.metric(refusals) >= 2, "refused twice")
        assert len(cluster.workers("denoiser")) == 1
        # The stranger tries again and again: once its key is on the list it is let in.
        listed = cluster.folder / "keys/gateway/workers/guest.public"
        listed.write_bytes((cluster.folder / "other/gateway/workers/worker.public").read_bytes())
        cluster.wait(lambda: len(cluster.workers("denoiser")) == 2, "joined by the guest")
        subprocess.run(
            [BINARIES / "qwen-image", "keygen", cluster.folder / "keys", "--worker", "third"], check=True, stdout=subprocess.DEVNULL)
        cluster.start("denoiser", secret=cluster.folder / "keys/worker/third.secret")
        cluster.wait(lambda: len(cluster.workers("denoiser")) == 3, "joined by a third")
        cluster.stop(stranger)


def test_bench():
    with Cluster(BINARIES, NANO) as cluster:
        cluster.start("denoiser")
        bench = [BINARIES / "qwen-image", "bench", "--gateway", cluster.url, "--steps", "4", "-p", "a red heart", "-p", "a blue star"]
        done = subprocess.run(bench + ["-n", "6", "-c", "2", "--warm-up", "2", "--json"], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done
        report = json.loads(done.stdout)
        assert (report["requests"], report["failed"], report["size"], report["steps"]) == (6, 0, "64x64", 4), report
        latency, queue, step = report["latency_seconds"], report["queue_seconds"], report["step_seconds"]
        assert latency["p50"] <= latency["p90"] <= latency["p99"] == latency["max"] <= report["seconds"], report
        assert queue["max"] <= latency["max"] and 0 < step["mean"] < latency["max"], report
        assert abs(report["images_per_second"] * report["seconds"] - 6) < 0.01, report
        assert len(cluster.get("/v1/jobs")[1]["data"]) == 8
        failing = subprocess.run(bench + ["-n", "3", "--warm-up", "0", "--width", "17"], capture_output=True, text=True, timeout=300)
        assert failing.returncode == 1 and "failed    3" in failing.stdout and "multiple of" in failing.stdout, failing


if __name__ == "__main__":
    sys.exit(testing.run("cluster", testing.functions(globals())))
