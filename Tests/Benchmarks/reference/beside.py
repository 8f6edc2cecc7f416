"""Groups of compare.py beside other programs than the reference: OpenVINO."""
import math
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
# A torch process holds the module in fp32, for the errors and its times; bf16 is measured there too.
BLOCK_MODES = {"own": ["bf16", "int8", "q4", "fp32"], "openvino": ["bf16", "int8", "int4", "fp32"], "torch": ["bf16", "fp32"]}
DECODER_MODES = {"own": ["fp32"], "openvino": ["bf16", "fp32"], "torch": ["bf16", "fp32"]}
DECODER_SIDES = 256, 512
NAMES = {"own": "this project", "openvino": "OpenVINO", "torch": "torch"}
# What a mode is compared with: OpenVINO's of the same kind.
COUNTERPARTS = {"bf16": "bf16", "int8": "int8", "q4": "int4", "fp32": "fp32"}
SAMPLE_SECONDS = 0.2


def openvino(bench, side_type):
    """A block and the decoder of the first family, in OpenVINO, torch and this project."""
    run(bench, side_type, "MMDiT block, 1024 image + 128 text tokens", "block", 1024, BLOCK_MODES)
    for size in DECODER_SIDES:
        run(bench, side_type, f"VAE decode {size}²", "vae", size, DECODER_MODES)


def run(bench, side_type, title, kind, size, modes):
    """Processes of their own for each case: the memory of those before does not count."""
    sides = {"own": bench.own()}
    try:
        for name, script in (("openvino", "openvino_worker.py"), ("torch", "worker.py")):
            sides[name] = side_type(NAMES[name], [sys.executable, HERE / script], bench.options.threads)
        bench.facts.update(sides["openvino"].about)
        measure(bench, title, kind, size, sides, modes)
    finally:
        for side in sides.values():
            side.__exit__()


def measure(bench, title, kind, size, sides, modes):
    cases = [(name, mode) for name in ("torch", "openvino", "own") for mode in modes[name]]
    for name, mode in cases:
        sides[name]("case", mode, kind, size, mode)
    # The first run of each warms up; it tells how often short work is repeated.
    times = {case: min(20, math.ceil(SAMPLE_SECONDS / sides[case[0]]("run", case[1])["wall"])) for case in cases}
    samples = {case: [] for case in cases}
    for _ in range(bench.options.rounds):
        for case in cases:
            runs = [sides[case[0]]("run", case[1]) for _ in range(times[case])]
            samples[case].append({clock: statistics.median(run[clock] for run in runs) for clock in ("wall", "processor")})
    print(f"\n### Beside OpenVINO {sides['openvino'].about['openvino']}: {title}\n")
    print("| who | mode | ms by the clock | ms of processor | OpenVINO's time by this project's: clock, processor | error to torch's fp32 |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        row = {"group": f"OpenVINO: {title}", "side": case[0], "precision": case[1], "rounds": len(samples[case]),
               "error": error(bench, sides, *case)}
        for clock in ("wall", "processor"):
            row[f"{clock}_seconds"] = statistics.median(sample[clock] for sample in samples[case])
        other = samples.get(("openvino", COUNTERPARTS.get(case[1])))
        ratios = ""
        if case[0] == "own" and other:
            for clock in ("wall", "processor"):
                row[f"{clock}_gain"] = statistics.median(o[clock] / s[clock] for s, o in zip(samples[case], other))
            ratios = f"{row['wall_gain']:.2f}, {row['processor_gain']:.2f}"
        bench.rows.append(row)
        print(f"| {NAMES[case[0]]} | {case[1]} | {row['wall_seconds'] * 1e3:.1f} | {row['processor_seconds'] * 1e3:.1f} | {ratios} | "
              f"{row['error']:.1e} |", flush=True)


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
