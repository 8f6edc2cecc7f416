#!/usr/bin/env python3
"""How far the latents of each sampler are from those of very many steps, as a table in Markdown.

    samplers.py DIRECTORY_OF_THE_EXECUTABLES [CHECKPOINT]      # needs numpy; a minute or two with the nano model

The numbers are ‖x − x∞‖ / ‖x∞‖ of the last latents, the mean over three prompts and seeds, without guidance and with the model's own noise
levels. x∞ is Heun's method with 200 steps. Samplers that add noise are left out: each of their images is another one.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NANO = ROOT / "compose/models/nano-qwen-image"
PROMPTS = [("a blue star", 7), ("a red heart", 8), ("a green ring", 9)]
SAMPLERS = ["euler", "heun", "dpmpp_2m", "res_multistep", "unipc"]
STEPS = [4, 8, 12, 20, 40]
EXACT_STEPS = 200


def last_latents(path, steps):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        begin, end = header[f"latents.step{steps - 1}"]["data_offsets"]
        file.seek(start + begin)
        return numpy.frombuffer(file.read(end - begin), numpy.float32).astype(float)


def run(binaries, model, prompt, seed, sampler, steps):
    with tempfile.TemporaryDirectory() as folder:
        dump = pathlib.Path(folder) / "dump.safetensors"
        arguments = {
            "model": model, "precision": "fp32", "prompt": prompt, "seed": seed, "steps": steps, "sampler": sampler, "true-cfg-scale": 1,
            "output": pathlib.Path(folder) / "image.png", "dump": dump}
        command = [binaries / "qwen-image", "local", *(f"--{name}={value}" for name, value in arguments.items())]
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600)
        if result.returncode:
            sys.exit(result.stderr)
        return last_latents(dump, steps)


def main(binaries, model=NANO):
    binaries = pathlib.Path(binaries)
    exact = {prompt: run(binaries, model, prompt, seed, "heun", EXACT_STEPS) for prompt, seed in PROMPTS}
    print(f"| `sampler` | {' | '.join(f'{steps} steps' for steps in STEPS)} |")
    print("|---" * (len(STEPS) + 1) + "|")
    for sampler in SAMPLERS:
        cells = []
        for steps in STEPS:
            distances = [
                numpy.linalg.norm(run(binaries, model, prompt, seed, sampler, steps) - exact[prompt]) / numpy.linalg.norm(exact[prompt])
                for prompt, seed in PROMPTS]
            cells.append(f"{numpy.mean(distances):.3f}")
        print(f"| `{sampler}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
