#!/usr/bin/env python3
"""This project and the reference side by side, on the same machine, in the same minutes.

    compare.py --binary MODEL_BENCHMARK --products DIR --scratch DIR [--threads N] [--rounds N] [--only GROUP,...] [--out FILE.json]

Two processes hold the same modules with the same weights and inputs, and take turns: every round runs each case once, so that
whatever else the machine does falls on all of them. Printed are medians over the rounds, by the clock and by processor time
divided by the number of threads (what the clock would show on an idle machine), and the medians of the rounds' ratios.
Errors are relative, against the same side's fp32; those of this project's fp32 are against the reference's fp32.

Groups:
    ceilings                            what this processor can do at most
    block, edit, attention              a block of the MMDiT; the same with a condition image; its attention alone
    layer, vision                       a layer of Qwen2.5-VL; a quarter of its vision tower
    prompts, guidance                   this project alone: several prompts, or both branches of guidance, in one pass
    vae, vae_encode                     the autoencoder of the first family
    block21                             a block of Qwen-Image-2.1, without and with a reference
    layer21, vision21                   a layer of Qwen3-VL; its whole vision tower
    vae21, vae_encode21                 the autoencoder of Qwen-Image-2.1
    pipeline, pipeline21                whole images of small checkpoints
    http                                the cluster against one process
    openvino, sdcpp                     a block of the MMDiT and the VAE's decoder in OpenVINO, in stable-diffusion.cpp; only where it
                                        is named by --only
"""
import argparse
import datetime
import gzip
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parents[1] / "Cluster"))
import beside  # noqa: E402
import cluster as cluster_module  # noqa: E402
from operations import decoder_operations, decoder_operations_21, encoder_operations, encoder_operations_21  # noqa: E402

GROUPS = (
    "ceilings", "block", "edit", "attention", "layer", "vision", "prompts", "guidance", "vae", "vae_encode",
    "block21", "layer21", "vision21", "vae21", "vae_encode21", "pipeline", "pipeline21", "http")
# Those that need more packages.
FURTHER_GROUPS = ("openvino", "sdcpp")
TEXT_TOKENS = 128
# What the reference takes for an autoencoder, up to 512² and at 1024²; without that much it is left out.
VAE_BYTES = ({"fp32": 3e9, "bf16": 2e9}, {"fp32": 9.6e9, "bf16": 4.9e9})
VAE_21_BYTES = ({"fp32": 7e9, "bf16": 5e9}, {"fp32": 15e9, "bf16": 10.5e9})
MODES = ["bf16", "int8", "q4", "fp32"]
# A block with a condition image: tokens of the image that is made, of a text with an image of 384² pixels, and of the
# condition.
EDITED_TOKENS, EDIT_TEXT_TOKENS, CONDITION_TOKENS = 1024, 256, 4096
SAMPLE_SECONDS = 0.2  # of work, at least, in each sample
CEILING = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "q4": "int8"}


class Failed(Exception):
    pass


class Side:
    """One of the two processes; ended with the `with` block."""

    def __init__(self, name, command, threads):
        self.name = name
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1")
        self.process = subprocess.Popen(
            [*map(str, command), "--threads", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(f"{self.name}: {answer['failed']}")
        return answer

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    def __init__(self, options):
        self.options, self.rows, self.facts = options, [], {}

    def own(self):
        return Side("this project", [self.options.binary], self.options.threads)

    def reference(self):
        return Side("the reference", [sys.executable, HERE / "worker.py"], self.options.threads)

    def rounds(self, sides, cases, rounds, ceilings=(), once=()):
        """Seconds of every case [(side, key)] in every round, and the rates of `ceilings` as the cases ("ceiling", name).

        A first round warms up and is not counted; it tells how often work of a few milliseconds is repeated within a sample.
        Cases with a key of `once` run in the next round only.
        """
        samples = {case: [] for case in [*cases, *(("ceiling", name) for name in ceilings)]}
        times = {case: min(20, math.ceil(SAMPLE_SECONDS / sides[case[0]]("run", case[1])["wall"])) for case in cases}
        for number in range(rounds):
            for side, key in cases:
                if number and key in once:
                    continue
                runs = [sides[side]("run", key) for _ in range(times[side, key])]
                samples[side, key].append({clock: statistics.median(run[clock] for run in runs) for clock in ("wall", "processor")})
            for name in ceilings:
                rate = sides["own"]("ceiling", name)
                samples["ceiling", name].append({"wall": rate["rate"], "processor": rate["processorRate"]})
        return samples

    def group(self, title, kind, size, own, reference, operations, rounds, targets=None, compared=True, once=()):
        """Measures one shape and prints its table. `own` and `reference` are precisions; ratios are to the reference's bf16.

        Those of `once` are measured in one round, where they would take most of the time.
        """
        with self.own() as ours, self.reference() as theirs:
            sides, cases = {"own": ours, "reference": theirs}, []
            for side, precisions in (("reference", reference), ("own", own)):
                for precision in precisions:
                    sides[side]("case", precision, kind, size, precision)
                    cases.append((side, precision))
            samples = self.rounds(sides, cases, rounds, sorted({"fp32", *(CEILING[precision] for precision in own)}), once)
            table = []
            for side, precision in cases:
                row = self.row(title, side, precision, samples, cases, targets)
                ceiling = CEILING[precision] if side == "own" else None
                # A processor without units for bf16 computes in fp32; what it does at most in int8 is not known then.
                if ceiling == "bf16" and not samples["ceiling", "bf16"][0]["wall"]:
                    ceiling = "fp32"
                if ceiling and samples["ceiling", ceiling][0]["wall"]:
                    for clock in ("wall", "processor"):
                        row[f"{clock}_of_ceiling"] = statistics.median(
                            operations / cost[clock] / rate[clock]
                            for cost, rate in zip(samples[side, precision], samples["ceiling", ceiling]))
                if compared and "fp32" in (own if side == "own" else reference):
                    row["error"] = sides[side]("error", precision, "fp32")["error"]
                if compared and (side, precision) == ("own", "fp32") and "fp32" in reference:
                    row["error"] = self.error_to_reference(ours, theirs)
                table.append(row)
            self.print_table(title, table)

    def error_to_reference(self, ours, theirs):
        """Of the last results in fp32."""
        self.options.scratch.mkdir(parents=True, exist_ok=True)
        file = self.options.scratch.resolve() / "result.f32"
        ours("keep", "fp32", file)
        try:
            return theirs("against", "fp32", file)["error"]
        finally:
            file.unlink()

    def row(self, title, side, precision, samples, cases, targets):
        own = samples[side, precision]
        row = {"group": title, "side": side, "precision": precision, "wall_seconds": statistics.median(s["wall"] for s in own),
               "processor_seconds": statistics.median(s["processor"] for s in own), "rounds": len(own)}
        for yardstick in ("bf16", "fp32"):
            other = samples.get(("reference", yardstick))
            if other and side == "own":
                for clock in ("wall", "processor"):
                    row[f"{clock}_ratio_{yardstick}"] = statistics.median(t[clock] / o[clock] for o, t in zip(own, other))
        if targets and side == "own" and precision in targets:
            row["target"] = targets[precision]
        return row

    def print_table(self, title, table):
        print(f"\n### {title}\n")
        print("| who | mode | ms by the clock | ms of processor | × reference bf16: clock, processor | × fp32 | of ceiling: clock, processor | error | target |")
        print("|---|---|---|---|---|---|---|---|---|")
        for row in table:
            self.rows.append(row)
            ratio = lambda name: f"{row[name]:.2f}" if name in row else ""
            both = lambda name: ", ".join(filter(None, (ratio(f"wall_{name}"), ratio(f"processor_{name}"))))
            error = f"{row['error']:.1e}" if row.get("error", -1) >= 0 else ""
            who = "this project" if row["side"] == "own" else "reference"
            print(f"| {who} | {row['precision']} | {row['wall_seconds'] * 1e3:.1f} | {row['processor_seconds'] * 1e3:.1f} | {both('ratio_bf16')} | "
                  f"{ratio('processor_ratio_fp32')} | {both('of_ceiling')} | {error} | {row.get('target', '')} |", flush=True)

    # The groups.

    def ceilings(self):
        with self.own() as ours:
            print(f"\n### Ceilings: {ours.about['instructions']}, {ours.about['threads']} threads\n")
            print("| | G/s by the clock | by processor time |\n|---|---|---|")
            for name in ("fp32", "bf16", "int8", "memory"):
                rate = ours("ceiling", name)
                self.facts[f"ceiling_{name}"] = rate
                print(f"| {name} | {rate['rate'] / 1e9:.0f} | {rate['processorRate'] / 1e9:.0f} |", flush=True)

    def block(self):
        for tokens, targets in ((1024, {"bf16": 1.15, "int8": 1.9}), (4096, {"bf16": 1.4, "int8": 2.2})):
            total = tokens + TEXT_TOKENS
            operations = 24 * 3072 * 3072 * total + 4 * total * total * 3072
            self.group(f"MMDiT block, {tokens} image + 128 text tokens", "block", tokens, ["bf16", "int8", "q4", "fp32"], ["bf16", "fp32"],
                       operations, self.options.rounds if tokens < 4096 else max(3, self.options.rounds // 2), targets)

    def edit(self):
        image = EDITED_TOKENS + CONDITION_TOKENS
        total = image + EDIT_TEXT_TOKENS
        operations = 24 * 3072 * 3072 * total + 4 * total * total * 3072
        for kind, name in (("edit", ""), ("edit0", ", at time 0")):
            title = f"{EDITED_TOKENS} image + {CONDITION_TOKENS} condition{name} + {EDIT_TEXT_TOKENS} text tokens"
            self.group(f"MMDiT block, {title}", kind, CONDITION_TOKENS, MODES, ["bf16", "fp32"], operations,
                       max(3, self.options.rounds // 2), {"bf16": 1.4, "int8": 2.2}, once=["fp32"])

    def block21(self):
        for size in (1024, 4096):
            title = f"{size} image tokens behind {TEXT_TOKENS} of text"
            self.single_stream(title, "block21", size, size, size + TEXT_TOKENS)
        size, before = 4096, 4096 + TEXT_TOKENS
        title = f"{size} image tokens behind {TEXT_TOKENS} of text and {size} of a reference"
        self.single_stream(f"{title}, prefix cache", "block21-edit", size, size, before + size)
        # The reference sees little more than itself; what the text sees does not count.
        tokens = before + size
        self.single_stream(f"{title}, no prefix cache", "block21-edit-whole", size, tokens, size + before * size / tokens)

    def single_stream(self, title, kind, size, tokens, seen):
        """A block of Qwen-Image-2.1 over `tokens`, each of which sees `seen`, on average."""
        operations = 2 * (4 * 4096 * 4096 + 3 * 4096 * 12288) * tokens + 4 * tokens * seen * 4096
        rounds, once = (self.options.rounds, []) if tokens < 4096 else (max(3, self.options.rounds // 2), ["fp32"])
        self.group(f"Single-stream block, {title}", kind, size, MODES, ["bf16", "fp32"], operations, rounds, once=once)

    def attention(self):
        for tokens in (1152, 4224):
            self.group(f"Attention, 24 × 128, {tokens} tokens", "attention", tokens, ["bf16", "fp32"], ["bf16", "fp32"],
                       4 * tokens * tokens * 3072, self.options.rounds)

    def layer(self):
        parameters = 2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944
        for tokens in (128, 512):
            operations = 2 * parameters * tokens + 2 * tokens * tokens * 3584
            self.group(f"Qwen2.5-VL decoder layer, {tokens} tokens", "layer", tokens, ["bf16", "int8", "q4", "fp32"], ["bf16", "fp32"],
                       operations, self.options.rounds, {"bf16": 1.1, "int8": 1.8})

    def vision(self):
        parameters = 4 * 1280 * 1280 + 3 * 1280 * 3420
        for side in (392, 1036):
            patches = (side // 14) ** 2
            products = 2 * patches * (8 * parameters + 1176 * 1280) + 2 * (patches // 4) * 5120 * (5120 + 3584)
            operations = products + 4 * 1280 * patches * (7 * 64 + patches)
            self.group(f"Vision tower, 8 of 32 blocks, {side}² pixels", "vision", side, ["bf16", "fp32"],
                       ["bf16", "fp32"], operations, max(3, self.options.rounds // 2))

    def layer21(self):
        parameters = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288
        for tokens in (128, 512):
            operations = 2 * parameters * tokens + 2 * tokens * tokens * 4096
            self.group(f"Qwen3-VL decoder layer, {tokens} tokens", "layer21", tokens, MODES, ["bf16", "fp32"], operations,
                       self.options.rounds)

    def vision21(self):
        width, inner, merged, blocks = 1152, 4304, 4608, 27
        for side in (512, 1024):
            patches = (side // 16) ** 2
            # Three of the blocks have a merger of their own.
            products = 2 * patches * (blocks * (4 * width * width + 2 * width * inner) + 1536 * width)
            products += 4 * 2 * (patches // 4) * merged * (merged + 4096)
            self.group(f"Qwen3-VL vision tower, {side}² pixels", "vision21", side, ["bf16", "fp32"], ["bf16", "fp32"],
                       products + blocks * 4 * width * patches * patches, max(2, self.options.rounds // 3), once=["fp32"])

    def alternatives(self, title, kinds, names, size, precisions, times=1):
        """Two ways of this project to do something; the first does a `times`-th of the second's work."""
        with self.own() as ours:
            print(f"\n### {title}\n\n| mode | {names[0]}, ms | {names[1]}, ms | gain by processor time |\n|---|---|---|---|")
            for precision in precisions:
                for kind in kinds:
                    ours("case", kind, kind, size, precision)
                samples = self.rounds({"own": ours}, [("own", kind) for kind in kinds], self.options.rounds)
                first, second = (samples["own", kind] for kind in kinds)
                ratio = statistics.median(times * a["processor"] / b["processor"] for a, b in zip(first, second))
                medians = [statistics.median(s["processor"] for s in x) for x in (first, second)]
                self.rows.append({"group": title, "precision": precision, f"{kinds[0]}_processor_seconds": medians[0],
                                  f"{kinds[1]}_processor_seconds": medians[1], "gain": ratio})
                print(f"| {precision} | {medians[0] * 1e3:.1f} | {medians[1] * 1e3:.1f} | {ratio:.2f} |", flush=True)
                for kind in kinds:
                    ours("drop", kind)

    def prompts(self):
        for tokens in (12, 60):
            self.alternatives(f"Text-encoder layer, prompts of {tokens} tokens", ("prompts1", "prompts8"), ("one", "eight in one pass"),
                              tokens, ["bf16", "int8", "q4"], times=8)

    def guidance(self):
        for tokens in (16, 64, 256, 1024):
            self.alternatives(f"Block, both branches of guidance, {tokens} image tokens", ("pair", "shared"), ("apart", "in one pass"), tokens,
                              ["bf16", "int8", "q4"])

    def vae(self):
        self.autoencoder("VAE decode", "vae", decoder_operations, (256, 512, 1024), {"fp32": 4})

    def vae_encode(self):
        self.autoencoder("VAE encode", "vae-encode", encoder_operations, (256, 512, 1024), {"fp32": 4})

    def vae21(self):
        self.autoencoder("Qwen-Image-2.1 VAE decode", "vae21", decoder_operations_21, (512, 1024), needed=VAE_21_BYTES)

    def vae_encode21(self):
        self.autoencoder(
            "Qwen-Image-2.1 VAE encode", "vae21-encode", encoder_operations_21, (512, 1024), needed=VAE_21_BYTES)

    def autoencoder(self, name, kind, operations, sizes, targets=None, needed=VAE_BYTES):
        """Ratios to the ceiling count 3×3 convolutions as direct sums, of which the kernels do a part only."""
        for size in sizes:
            title, table = f"{name} {size}²", []
            rounds = self.options.rounds if size < 1024 else max(1, self.options.rounds // 3)
            with self.own() as ours, self.reference() as theirs:
                sides, cases, peaks = {"own": ours, "reference": theirs}, [], {}
                for side, precision in (("reference", "bf16"), ("reference", "fp32"), ("own", "fp32")):
                    if side == "reference" and available_bytes() < needed[size == 1024][precision] + 2e9:
                        print(f"\n{title}: the reference's {precision} left out, {available_bytes() / 1e9:.1f} GB of memory are free")
                        continue
                    sides[side]("case", precision, kind, size, precision)
                    cases.append((side, precision))
                for case in cases:  # this is the warm-up too
                    sides[case[0]]("memory")
                    sides[case[0]]("run", case[1])
                    peaks[case] = sides[case[0]]("memory")["peak"]
                samples, rates = {case: [] for case in cases}, []
                for _ in range(rounds):
                    for side, key in cases:
                        samples[side, key].append(sides[side]("run", key))
                    rates.append(ours("ceiling", "fp32"))
                for case in cases:
                    row = self.row(title, *case, samples, cases, targets)
                    row["peak_bytes"] = peaks[case]
                    if case[0] == "own":
                        for clock, rate in (("wall", "rate"), ("processor", "processorRate")):
                            row[f"{clock}_of_ceiling"] = statistics.median(
                                operations(size) / cost[clock] / ceiling[rate] for cost, ceiling in zip(samples[case], rates))
                        if ("reference", "fp32") in cases:
                            row["error"] = self.error_to_reference(ours, theirs)
                    if case == ("reference", "bf16") and ("reference", "fp32") in cases:
                        row["error"] = theirs("error", "bf16", "fp32")["error"]
                    table.append(row)
            self.print_table(title, table)
            print("\nPeak resident memory: " + ", ".join(
                f"{'this project' if row['side'] == 'own' else 'reference'} {row['precision']} {row['peak_bytes'] / 1e9:.2f} GB" for row in table))

    def pipeline(self):
        small = self.small_checkpoint()
        for name, folder, size in (("tiny", ROOT / "Tests/Golden/tiny/checkpoint", 64), ("small", small, 256)):
            self.images(f"Whole pipeline, {name} checkpoint", "pipeline", folder, size)

    def pipeline21(self):
        folder = ROOT / "Tests/Golden/tiny-2.1/checkpoint"
        self.images("Whole pipeline of Qwen-Image-2.1, tiny checkpoint", "pipeline21", folder, 64)

    def images(self, title, kind, folder, size):
        model, title = f"{folder}:4", f"{title}, {size}², 4 steps with guidance"
        with self.own() as ours, self.reference() as theirs:
            sides, cases = {"own": ours, "reference": theirs}, []
            for side, precisions in (("reference", ["bf16", "fp32"]), ("own", ["bf16", "int8", "fp32"])):
                for precision in precisions:
                    sides[side]("case", precision, kind if side == "reference" else "pipeline", size, precision, model)
                    cases.append((side, precision))
            samples = self.rounds(sides, cases, self.options.rounds)
            self.print_table(title, [self.row(title, *case, samples, cases, None) for case in cases])

    def small_checkpoint(self):
        folder = self.options.scratch / "small"
        if not (folder / "checkpoint/vae/config.json").exists():
            tokenizer = self.options.scratch / "tokenizer"
            tokenizer.mkdir(parents=True, exist_ok=True)
            for name in ("vocab.json", "merges.txt"):
                with gzip.open(ROOT / f"Tests/Golden/qwen2-tokenizer/{name}.gz") as source, open(tokenizer / name, "wb") as target:
                    shutil.copyfileobj(source, target)
            code = f"import sys; sys.path.insert(0, {str(ROOT / 'Tests/Golden')!r}); import make_reference as m; " \
                   f"m.build({str(folder)!r}, 'small', 0, {str(tokenizer)!r})"
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return folder / "checkpoint"

    def openvino(self):
        beside.groups(self, Side, beside.OPENVINO)

    def sdcpp(self):
        beside.groups(self, Side, beside.SDCPP)

    def http(self):
        """A request to the cluster against the same work in one process, at about a second of compute."""
        model, size = ROOT / "compose/models/nano-qwen-image", 256
        with self.own() as ours, cluster_module.Cluster(self.options.products, model, "bf16", threads=self.options.threads) as gateway:
            ours("case", "once", "pipeline", size, "bf16", f"{model}:10")
            samples = self.rounds({"own": ours}, [("own", "once")], 3)["own", "once"]
            steps = max(1, min(100, round(10 / min(s["processor"] for s in samples))))
            ours("case", "local", "pipeline", size, "bf16", f"{model}:{steps}")
            numbers, local, remote, processor = iter(range(1, 1 << 30)), [], [], []
            pids = [process.pid for process in gateway.processes.values()]
            for number in range(4 * self.options.rounds + 1):
                alone, used = ours("run", "local"), sum(map(processor_seconds, pids))
                seconds = request(gateway.url, size, steps, next(numbers))
                used = (sum(map(processor_seconds, pids)) - used) / self.options.threads
                if number:
                    local.append(alone["wall"])
                    remote.append(seconds)
                    processor.append(used / alone["processor"])
        overhead = statistics.median(r / l for l, r in zip(local, remote)) - 1
        processor_overhead = statistics.median(processor) - 1
        title = f"HTTP overhead of the cluster, nano model, {size}², {steps} steps"
        self.rows.append({"group": title, "local_seconds": statistics.median(local), "cluster_seconds": statistics.median(remote),
                          "local_least": min(local), "cluster_least": min(remote), "overhead": overhead,
                          "processor_overhead": processor_overhead, "target": 0.03})
        print(f"\n### {title}\n\nlocal {statistics.median(local):.3f} s, cluster {statistics.median(remote):.3f} s: {overhead * 100:+.1f} % "
              f"(median of the rounds' ratios; fastest {min(local):.3f} and {min(remote):.3f} s: {(min(remote) / min(local) - 1) * 100:+.1f} %); "
              f"processor time of all processes {processor_overhead * 100:+.1f} %")


def request(url, size, steps, number):
    body = {"prompt": f"a red heart, number {number}", "negative_prompt": " ", "true_cfg_scale": 4, "num_inference_steps": steps,
            "size": f"{size}x{size}", "seed": number}
    start = time.perf_counter()
    message = urllib.request.Request(f"{url}/v1/images/generations", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(message, timeout=600) as response:
        response.read()
    return time.perf_counter() - start


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def available_bytes():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--products", type=pathlib.Path, required=True)
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="check the arguments, and nothing else")
    options = parser.parse_args()
    groups = GROUPS + FURTHER_GROUPS
    unknown = set(options.only.split(",")) - set(groups)
    if unknown:
        parser.error(f"--only {','.join(sorted(unknown))}: the groups are {', '.join(groups)}")
    if options.check:
        return
    bench = Bench(options)
    with bench.reference() as reference:
        bench.facts.update(reference.about)
    bench.facts["processor"] = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    bench.facts["load_before"] = os.getloadavg()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}; {bench.facts['processor']}, {options.threads} threads; torch {bench.facts['torch']}, diffusers {bench.facts['diffusers']}, "
          f"transformers {bench.facts['transformers']}; load average {os.getloadavg()[0]:.1f} before")
    for group in groups:
        if group in options.only.split(","):
            getattr(bench, group)()
    bench.facts["load_after"] = os.getloadavg()
    print(f"\nLoad average {os.getloadavg()[0]:.1f} after.")
    if options.out:
        options.out.write_text(json.dumps({"at": now, **bench.facts, "rows": bench.rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"compare.py: {failure}")
