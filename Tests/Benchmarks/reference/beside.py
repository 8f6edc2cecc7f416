"""Groups of compare.py beside other programs than the reference: OpenVINO and stable-diffusion.cpp."""
import dataclasses
import math
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
# A torch process holds the module in fp32, for the errors and its times; bf16 is measured there too.
BLOCK_MODES = {"own": ["bf16", "int8", "q4", "fp32"], "torch": ["bf16", "fp32"]}
DECODER_MODES = {"own": ["fp32"], "torch": ["bf16", "fp32"]}
DECODER_SIDES = 256, 512
SAMPLE_SECONDS = 0.2


@dataclasses.dataclass
class Rival:
    name: str
    script: str
    block_modes: list
    decoder_modes: list
    # What a mode of this project is compared with: the fastest of the same kind.
    counterparts: dict
    # Whether it gives the values that it has computed.
    keeps: bool


OPENVINO = Rival(
    "OpenVINO", "openvino_worker.py", ["bf16", "int8", "int4", "fp32"], ["bf16", "fp32"],
    {"bf16": ["bf16"], "int8": ["int8"], "q4": ["int4"], "fp32": ["fp32"]}, True)
SDCPP = Rival(
    "stable-diffusion.cpp", "sdcpp_worker.py", ["bf16", "q8_0", "q4_0", "q4_K", "fp32"], ["fp32"],
    {"bf16": ["bf16"], "int8": ["q8_0"], "q4": ["q4_0", "q4_K"], "fp32": ["fp32"]}, False)


def groups(bench, side_type, rival):
    """A block and the decoder of the first family, by a rival, torch and this project."""
    title = "MMDiT block, 1024 image + 128 text tokens"
    run(bench, side_type, rival, title, "block", 1024, {**BLOCK_MODES, "rival": rival.block_modes})
    for size in DECODER_SIDES:
        run(bench, side_type, rival, f"VAE decode {size}²", "vae", size, {**DECODER_MODES, "rival": rival.decoder_modes})


def run(bench, side_type, rival, title, kind, size, modes):
    """Processes of their own for each case: the memory of those before does not count."""
    sides = {"own": bench.own()}
    try:
        for name, title_of_side, script in (("rival", rival.name, rival.script), ("torch", "torch", "worker.py")):
            sides[name] = side_type(title_of_side, [sys.executable, HERE / script], bench.options.threads)
        bench.facts.update(sides["rival"].about)
        measure(bench, rival, title, kind, size, sides, modes)
    finally:
        for side in sides.values():
            side.__exit__()


def measure(bench, rival, title, kind, size, sides, modes):
    cases = [(name, mode) for name in ("torch", "rival", "own") for mode in modes[name]]
    names = {"own": "this project", "rival": rival.name, "torch": "torch"}
    for name, mode in cases:
        sides[name]("case", mode, kind, size, mode)
    # The first run of each warms up; it tells how often short work is repeated.
    times = {case: min(20, math.ceil(SAMPLE_SECONDS / sides[case[0]]("run", case[1])["wall"])) for case in cases}
    samples = {case: [] for case in cases}
    for _ in range(bench.options.rounds):
        for case in cases:
            runs = [sides[case[0]]("run", case[1]) for _ in range(times[case])]
            samples[case].append({clock: statistics.median(run[clock] for run in runs) for clock in ("wall", "processor")})
    print(f"\n### Beside {rival.name}: {title}\n")
    print(f"| who | mode | ms by the clock | ms of processor | {rival.name}'s time by this project's: clock, processor | error to torch's fp32 |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        row = {"group": f"{rival.name}: {title}", "side": case[0], "precision": case[1], "rounds": len(samples[case])}
        if case[0] != "rival" or rival.keeps:
            row["error"] = error(bench, sides, *case)
        for clock in ("wall", "processor"):
            row[f"{clock}_seconds"] = statistics.median(sample[clock] for sample in samples[case])
        others = [samples["rival", mode] for mode in rival.counterparts.get(case[1], []) if ("rival", mode) in samples]
        ratios = ""
        if case[0] == "own" and others:
            for clock in ("wall", "processor"):
                row[f"{clock}_gain"] = min(
                    statistics.median(o[clock] / s[clock] for s, o in zip(samples[case], other)) for other in others)
            ratios = f"{row['wall_gain']:.2f}, {row['processor_gain']:.2f}"
        bench.rows.append(row)
        shown = f"{row['error']:.1e}" if "error" in row else ""
        print(f"| {names[case[0]]} | {case[1]} | {row['wall_seconds'] * 1e3:.1f} | {row['processor_seconds'] * 1e3:.1f} | {ratios} | "
              f"{shown} |", flush=True)


def error(bench, sides, name, mode):
    if name == "torch":
        return sides["torch"]("error", mode, "fp32")["error"]
    bench.options.scratch.mkdir(parents=True, exist_ok=True)
    file = bench.options.scratch.resolve() / "beside.f32"
    sides[name]("keep", mode, file)
    try:
        return sides["torch"]("against", "fp32", file)["error"]
    finally:
        file.unlink()
