#!/usr/bin/env python
"""Measures the reference (torch, diffusers, transformers) for compare.py: the commands of ModelBenchmark, without ceilings.

    worker.py [--threads N] [--scratch DIR]

Weights and inputs are those of Tests/Golden/make_fullsize.py. Kinds: block, attention, layer, vision, vae, vae-encode,
pipeline. Precisions: fp32, bf16.
"""
import argparse
import ctypes
import gc
import json
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "Golden"))
import make_fullsize as full  # noqa: E402

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TEXT_TOKENS = 128


def uniforms(name, *shape):
    return torch.from_numpy(full.uniform(name, torch.Size(shape).numel()).astype("float32")).reshape(shape)


class Weights:
    """Modules filled by the formula once, and their copies in other types."""

    def __init__(self):
        self.modules = {}

    def get(self, name, make, dtype):
        if name not in self.modules:
            self.modules[name] = make()
        module = self.modules[name]
        if dtype == torch.float32:
            return module
        key = (name, dtype)
        if key not in self.modules:
            import copy
            self.modules[key] = copy.deepcopy(module).to(dtype)
        return self.modules[key]


WEIGHTS = Weights()


def block(size, dtype):
    from diffusers import QwenImageTransformer2DModel
    model = WEIGHTS.get("transformer", lambda: full.fill(QwenImageTransformer2DModel(num_layers=1)), dtype)
    side = int(size**0.5)
    calls = []
    hook = model.transformer_blocks[0].register_forward_pre_hook(lambda _, a, k: calls.append((a, k)), with_kwargs=True)
    model(hidden_states=uniforms("input.latents", 1, size, 64).to(dtype),
          encoder_hidden_states=uniforms("input.prompt_embeds", 1, TEXT_TOKENS, 3584).to(dtype),
          timestep=torch.tensor([0.7], dtype=dtype), img_shapes=[[(1, side, size // side)]], return_dict=False)
    hook.remove()
    (arguments, keywords), = calls
    return lambda: model.transformer_blocks[0](*arguments, **keywords)[1]


def attention(size, dtype):
    q, k, v = (uniforms(f"input.{name}", 1, size, 24, 128).transpose(1, 2).to(dtype) for name in "qkv")
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def layer(size, dtype):
    from transformers import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel
    config = Qwen2_5_VLTextConfig(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=1, num_attention_heads=28, num_key_value_heads=4, vocab_size=1024,
        rms_norm_eps=1e-6, max_position_embeddings=128000, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]), attn_implementation="sdpa")
    model = WEIGHTS.get("text_encoder", lambda: full.fill(Qwen2_5_VLTextModel(config), lambda name: "model." + name), dtype)
    ids = torch.tensor([[i * 37 % 1024 for i in range(size)]])
    return lambda: model(input_ids=ids, use_cache=False).last_hidden_state


def vision(size, dtype):
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
    config = Qwen2_5_VLVisionConfig(
        depth=8, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584,
        fullatt_block_indexes=[7], attn_implementation="sdpa")
    make = lambda: full.fill(Qwen2_5_VisionTransformerPretrainedModel(config), lambda name: "visual." + name)
    model, side = WEIGHTS.get("vision", make, dtype), size // 28 * 2
    pixels, grid = uniforms("input.pixels", side * side, 1176).to(dtype), torch.tensor([[1, side, side]])

    def run():
        result = model(pixels, grid_thw=grid)
        # transformers 4 returns the rows alone.
        return getattr(result, "pooler_output", result)
    return run


def vae(size, dtype):
    from diffusers import AutoencoderKLQwenImage
    model = WEIGHTS.get("vae", lambda: full.fill(AutoencoderKLQwenImage()), dtype)
    mean, std = (torch.tensor(getattr(model.config, key)).view(1, 16, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    z = (uniforms("input.latents", 1, 16, 1, size // 8, size // 8) * std + mean).to(dtype)
    # [1, 3, 1, H, W] → [H, W, 3], as this project has it.
    return lambda: model.decode(z, return_dict=False)[0][0, :, 0].permute(1, 2, 0)


def vae_encode(size, dtype):
    from diffusers import AutoencoderKLQwenImage
    model = WEIGHTS.get("vae", lambda: full.fill(AutoencoderKLQwenImage()), dtype)
    mean, std = (torch.tensor(getattr(model.config, key)).view(1, 16, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    x = uniforms("input.pixels", size, size, 3).permute(2, 0, 1)[None, :, None].to(dtype)
    # [1, 16, 1, h, w] → [16, h, w], normalised, as this project has it.
    return lambda: ((model.encode(x).latent_dist.mode() - mean) / std)[0, :, 0]


def pipeline(size, dtype, model):
    import make_reference
    folder, _, steps = model.partition(":")
    pipe = make_reference.load(make_reference.QwenImagePipeline, folder).to(dtype)
    numbers = iter(range(1, 1 << 30))

    def draw():
        number = next(numbers)
        pipe(prompt=f"a red heart, number {number}", negative_prompt=" ", true_cfg_scale=4.0, num_inference_steps=int(steps), width=size,
             height=size, generator=torch.Generator().manual_seed(number))
    return draw


def peak_resident_bytes():
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak


KINDS = {"block": block, "attention": attention, "layer": layer, "vision": vision, "vae": vae, "vae-encode": vae_encode,
         "pipeline": pipeline}


class Worker:
    def __init__(self, threads):
        self.threads, self.cases, self.results = threads, {}, {}

    def obey(self, words):
        command, *rest = words
        return getattr(self, command)(*rest)

    def case(self, key, kind, size, precision, *model):
        self.cases[key] = KINDS[kind](int(size), TYPES[precision], *model)
        return {}

    def run(self, key):
        wall, processor = time.perf_counter(), time.process_time()
        result = self.cases[key]()
        wall, processor = time.perf_counter() - wall, (time.process_time() - processor) / self.threads
        self.results[key] = result
        return {"wall": wall, "processor": processor}

    def error(self, key, reference):
        a, b = self.results[key], self.results[reference]
        return {"error": full.rel(a, b)}

    def drop(self, key):
        self.cases.pop(key)
        self.results.pop(key, None)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return {}

    def memory(self):
        return {"peak": peak_resident_bytes()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    import diffusers
    import transformers
    diffusers.utils.logging.disable_progress_bar()
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(threads)
    versions = dict(torch=torch.__version__, diffusers=diffusers.__version__, transformers=transformers.__version__, threads=threads)
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = worker.obey(line.split())
        except Exception as error:  # reported to compare.py, which stops
            answer = {"failed": f"{line.strip()}: {error!r}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
