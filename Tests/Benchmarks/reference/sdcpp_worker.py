#!/usr/bin/env python
"""Measures stable-diffusion.cpp for compare.py: the commands of worker.py, but for errors: it gives images only.

    sdcpp_worker.py [--threads N]        needs the packages of requirements-sdcpp.txt

It runs whole models only. So images of 512² (1024 tokens) are made with transformers of one and of three blocks behind a text
encoder of one layer, all at the published widths; a block is half of the difference between their steps. The decoder's time is
what follows the last step.

Kinds: block, vae. Precisions: fp32, bf16, and ggml's q8_0, q4_0, q4_K for the linear layers, which it multiplies by activations
that it quantises to 8 bits.
"""
import argparse
import atexit
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# Its log goes to standard output, which belongs to the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import importlib.metadata  # noqa: E402

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import worker as reference  # noqa: E402

TYPES = {"fp32": "f32", "bf16": "bf16"}
BLOCKS = 1, 3
SIDE_OF_BLOCK = 512
# What is measured, behind a first one.
STEPS = 2
# About 128 tokens, which the template adds a few to.
PROMPT = " ".join(["a red fox in the snow of a quiet forest"] * 12)
RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6", "conv_shortcut": "shortcut"}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def original_name(name):
    """The name that the autoencoder's authors give to a tensor of the decoder; None: it has no part in decoding."""
    words = name.split(".")
    if words[0] == "post_quant_conv":
        return ".".join(["conv2", *words[1:]])
    if words[0] != "decoder":
        return None
    ends = {"conv_in": "decoder.conv1", "norm_out": "decoder.head.0", "conv_out": "decoder.head.2"}
    if words[1] in ends:
        return ".".join([ends[words[1]], *words[2:]])
    if words[1] == "mid_block":
        place, rest = f"decoder.middle.{MIDDLE['.'.join(words[2:4])]}", words[4:]
    else:
        # Three residual blocks and what scales them up make a level; the last one has no scale.
        number = 4 * int(words[2]) + (int(words[4]) if words[3] == "resnets" else 3)
        place, rest = f"decoder.upsamples.{number}", words[5:]
    return ".".join([place, RESIDUAL.get(rest[0], rest[0]), *rest[1:]])


class Checkpoint:
    """Files with the published widths, made when they are asked for."""

    def __init__(self, folder):
        self.folder = folder

    def files(self, blocks):
        return self.transformer(blocks), self.text_encoder(), self.decoder()

    def file(self, name, tensors):
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            save_file({key: value.contiguous() for key, value in tensors().items()}, path)
        return str(path)

    def transformer(self, blocks):
        def tensors():
            from diffusers import QwenImageTransformer2DModel
            return reference.full.fill(QwenImageTransformer2DModel(num_layers=blocks)).to(torch.bfloat16).state_dict()
        return self.file(f"transformer-{blocks}", tensors)

    def text_encoder(self):
        def tensors():
            width, inner, keys = 3584, 18944, 512
            shapes = {"embed_tokens.weight": (152064, width), "norm.weight": (width,), **{f"layers.0.{name}": shape for name, shape in {
                "input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,),
                "self_attn.q_proj.weight": (width, width), "self_attn.q_proj.bias": (width,),
                "self_attn.k_proj.weight": (keys, width), "self_attn.k_proj.bias": (keys,),
                "self_attn.v_proj.weight": (keys, width), "self_attn.v_proj.bias": (keys,),
                "self_attn.o_proj.weight": (width, width), "mlp.gate_proj.weight": (inner, width),
                "mlp.up_proj.weight": (inner, width), "mlp.down_proj.weight": (width, inner)}.items()}}
            torch.manual_seed(0)
            return {f"model.{name}": torch.randn(shape, dtype=torch.bfloat16) * 0.02 for name, shape in shapes.items()}
        return self.file("text-encoder", tensors)

    def decoder(self):
        def tensors():
            state = reference.make_vae().state_dict()
            return {original: value for name, value in state.items() if (original := original_name(name))}
        return self.file("vae", tensors)


class Worker:
    def __init__(self, threads):
        self.threads, self.checkpoint, self.cases = threads, Checkpoint(pathlib.Path(tempfile.mkdtemp(prefix="sdcpp."))), {}
        atexit.register(shutil.rmtree, self.checkpoint.folder, ignore_errors=True)

    def obey(self, words):
        command, *rest = words
        return getattr(self, command)(*rest)

    def case(self, key, kind, size, precision):
        if kind == "block" and int(size) != (SIDE_OF_BLOCK // 16) ** 2:
            raise ValueError(f"a block of {size} tokens")
        for blocks in BLOCKS if kind == "block" else BLOCKS[:1]:
            self.checkpoint.files(blocks)
        self.cases[key] = (self.block, precision) if kind == "block" else (self.decode, int(size))
        return {}

    def run(self, key):
        function, argument = self.cases[key]
        return function(argument)

    def block(self, precision):
        """Half of what two blocks more add to a step."""
        one, three = (statistics.median_low(self.spans(blocks, precision, SIDE_OF_BLOCK, STEPS)) for blocks in BLOCKS)
        return {clock: (b - a) / (BLOCKS[1] - BLOCKS[0]) for clock, a, b in zip(("wall", "processor"), one, three)}

    def decode(self, size):
        (wall, processor), = self.spans(BLOCKS[0], "q8_0", size, 0)
        return {"wall": wall, "processor": processor}

    def spans(self, *arguments):
        """What ``measure`` prints, in a process of its own: nothing else ends an image before it is decoded."""
        command = [sys.executable, __file__, "--threads", self.threads, "--measure", self.checkpoint.folder, *arguments]
        return json.loads(subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE).stdout)


def measure(threads, folder, blocks, precision, size, steps):
    """Prints (wall, processor) of the `steps` of an image behind the first one, or, for 0 steps, of what follows the only one."""
    from stable_diffusion_cpp import StableDiffusion, stable_diffusion_cpp
    marks = []

    @stable_diffusion_cpp.sd_progress_callback
    def mark(step, total, *_):
        if total == max(1, steps + 1) and step:
            marks.append((time.perf_counter(), time.process_time() / threads))
            if steps and step == total:
                finish()

    def finish():
        spans = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(marks, marks[1:])]
        print(json.dumps(spans), file=ANSWERS, flush=True)
        os._exit(0)

    transformer, text_encoder, decoder = Checkpoint(folder).files(blocks)
    model = StableDiffusion(
        diffusion_model_path=transformer, llm_path=text_encoder, vae_path=decoder, vae_decode_only=True, n_threads=threads,
        diffusion_flash_attn=True, verbose=False,
        tensor_type_rules=f"model.diffusion_model.transformer_blocks={TYPES.get(precision, precision)}")
    # The package frees a function that it is given before the library has called it for the last time.
    stable_diffusion_cpp.sd_set_progress_callback(mark, None)
    model.generate_image(
        prompt=PROMPT, width=size, height=size, sample_steps=max(1, steps + 1), cfg_scale=1, seed=1, sample_method="euler")
    marks.append((time.perf_counter(), time.process_time() / threads))
    finish()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--measure", nargs=5, metavar=("FOLDER", "BLOCKS", "PRECISION", "SIZE", "STEPS"))
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.measure:
        folder, blocks, precision, size, steps = options.measure
        measure(options.threads, pathlib.Path(folder), int(blocks), precision, int(size), int(steps))
    about = {"sdcpp": importlib.metadata.version("stable-diffusion-cpp-python"), "threads": options.threads}
    reference.serve(Worker(options.threads), about, ANSWERS)


if __name__ == "__main__":
    main()
