#!/usr/bin/env python
"""Measures the reference (torch, diffusers, transformers) for compare.py: the commands of ModelBenchmark, without ceilings.

    worker.py [--threads N] [--scratch DIR]

Weights and inputs are those of Tests/Golden/make_fullsize.py. Kinds: block, edit, edit0, attention, layer, vision, vae,
vae-encode, pipeline, and of Qwen-Image-2.1 block21, block21-edit, block21-edit-whole, layer21, vision21, vae21,
vae21-encode, pipeline21. Precisions: fp32, bf16.
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
# A block with a condition image: tokens of the image that is made, and of a text with an image of 384² pixels.
EDITED_TOKENS, EDIT_TEXT_TOKENS = 1024, 256
# Tokens of a text before its reference.
TEXT_BEFORE_REFERENCE = 8


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


def second(name):
    """Names of the only block or layer here are those of the second one, which this project measures."""
    return name.replace("transformer_blocks.0.", "transformer_blocks.1.").replace("layers.0.", "layers.1.")


def grid(tokens):
    side = int(tokens**0.5)
    return 1, side, tokens // side


def first_call(model, **inputs):
    """The only block, and what a forward pass hands to it."""
    block, calls = model.transformer_blocks[0], []
    hook = block.register_forward_pre_hook(lambda _, a, k: calls.append((a, k)), with_kwargs=True)
    model(**inputs, return_dict=False)
    hook.remove()
    (arguments, keywords), = calls
    return block, arguments, keywords


def first_block(model, **inputs):
    block, arguments, keywords = first_call(model, **inputs)
    return lambda: block(*arguments, **keywords)


def dual_stream_call(dtype, latents, text_tokens, shapes, zero_cond_t=False):
    from diffusers import QwenImageTransformer2DModel
    make = lambda: full.fill(QwenImageTransformer2DModel(num_layers=1, zero_cond_t=zero_cond_t), second)
    return first_call(
        WEIGHTS.get("transformer", make, dtype), hidden_states=latents.to(dtype),
        encoder_hidden_states=uniforms("input.prompt_embeds", 1, text_tokens, 3584).to(dtype),
        timestep=torch.tensor([0.7], dtype=dtype), img_shapes=[shapes])


def dual_stream_block(*arguments, **keywords):
    block, arguments, keywords = dual_stream_call(*arguments, **keywords)
    return lambda: block(*arguments, **keywords)[1]


def block_call(size, dtype):
    return dual_stream_call(dtype, uniforms("input.latents", 1, size, 64), TEXT_TOKENS, [grid(size)])


def block(size, dtype):
    return dual_stream_block(dtype, uniforms("input.latents", 1, size, 64), TEXT_TOKENS, [grid(size)])


def edit(size, dtype, zero_cond_t=False):
    latents = torch.cat([uniforms("input.latents", 1, EDITED_TOKENS, 64), uniforms("input.reference", 1, size, 64)], 1)
    return dual_stream_block(dtype, latents, EDIT_TEXT_TOKENS, [grid(EDITED_TOKENS), grid(size)], zero_cond_t)


def edit0(size, dtype):
    return edit(size, dtype, zero_cond_t=True)


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
    make = lambda: full.fill(Qwen2_5_VLTextModel(config), lambda name: second("model." + name))
    model = WEIGHTS.get("text_encoder", make, dtype)
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


def latents_of(model, size, downscale):
    mean, std = statistics(model)
    channels, side = mean.shape[1], size // downscale
    return uniforms("input.latents", 1, channels, 1, side, side) * std + mean


def decoded(name, make, size, downscale, dtype):
    model = WEIGHTS.get(name, make, dtype)
    z = latents_of(model, size, downscale).to(dtype)
    # [1, 3 or 4, 1, H, W] → [H, W, 3 or 4], as this project has it.
    return lambda: model.decode(z, return_dict=False)[0][0, :, 0].permute(1, 2, 0)


def encoded(name, make, size, channels, dtype):
    model = WEIGHTS.get(name, make, dtype)
    mean, std = statistics(model)
    x = uniforms("input.pixels", size, size, channels).permute(2, 0, 1)[None, :, None].to(dtype)
    # [1, latent channels, 1, h, w] → [latent channels, h, w], normalised, as this project has it.
    return lambda: ((model.encode(x).latent_dist.mode() - mean) / std)[0, :, 0]


def statistics(model):
    return (torch.tensor(getattr(model.config, key)).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))


def make_vae():
    from diffusers import AutoencoderKLQwenImage
    return full.fill(AutoencoderKLQwenImage())


def make_vae21():
    from diffusers import AutoencoderKLQwenImage21
    return full.fill(AutoencoderKLQwenImage21(
        base_dim=96, decoder_base_dim=144, z_dim=64, dim_mult=[1, 2, 4, 8, 8], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True, True], is_residual=True, in_channels=4, out_channels=4, patch_size=None,
        scale_factor_spatial=16, scale_factor_temporal=8))


def vae(size, dtype):
    return decoded("vae", make_vae, size, 8, dtype)


def vae_encode(size, dtype):
    return encoded("vae", make_vae, size, 3, dtype)


def vae21(size, dtype):
    return decoded("vae21", make_vae21, size, 16, dtype)


def vae21_encode(size, dtype):
    return encoded("vae21", make_vae21, size, 4, dtype)


def single_stream_block(size, dtype, has_reference, uses_cache):
    """The block over the tokens of the image, with keys and values that an earlier step left, or over all tokens."""
    from diffusers import QwenImage21Transformer2DModel
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache
    make = lambda: full.fill(QwenImage21Transformer2DModel(
        num_layers=1, attention_head_dim=128, num_attention_heads=32, context_in_dim=4096, mlp_ratio=3,
        axes_dims_rope=(16, 56, 56), eps=1e-6, causal_condition=True), second)
    model = WEIGHTS.get("transformer21", make, dtype)
    # Each row of the text encoder's images stands for four tokens. It is not used, but it is there.
    rows, slots = uniforms("input.prompt_embeds", 1, TEXT_TOKENS, 4096), size // 4
    reference_slots = slots if has_reference else 0
    before = TEXT_BEFORE_REFERENCE
    embeds = torch.cat([rows[:, :before], torch.zeros(1, reference_slots, 4096), rows[:, before:]], 1)
    mask = torch.zeros(1, embeds.shape[1] + slots, dtype=torch.bool)
    mask[:, before:before + reference_slots] = True
    mask[:, embeds.shape[1]:] = True
    names = ["input.reference", "input.latents"] if has_reference else ["input.latents"]
    inputs = dict(
        hidden_states=torch.cat([uniforms(name, 1, size, 64) for name in names], 1).to(dtype),
        encoder_hidden_states=embeds.to(dtype),
        timestep=torch.tensor([0.7], dtype=dtype), img_shapes=[[grid(size)] * len(names)], img_mask=mask)
    if not uses_cache:
        return first_block(model, **inputs)
    cache = QwenImage21KVCache(1)
    model(**inputs, kv_cache=cache, kv_cache_mode="extract")
    return first_block(model, **inputs, kv_cache=cache, kv_cache_mode="cached")


def block21(size, dtype):
    return single_stream_block(size, dtype, has_reference=False, uses_cache=True)


def block21_edit(size, dtype):
    return single_stream_block(size, dtype, has_reference=True, uses_cache=True)


def block21_edit_whole(size, dtype):
    return single_stream_block(size, dtype, has_reference=True, uses_cache=False)


def layer21(size, dtype):
    from transformers import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel
    config = Qwen3VLTextConfig(
        hidden_size=4096, intermediate_size=12288, num_hidden_layers=1, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, vocab_size=1024, rms_norm_eps=1e-6, max_position_embeddings=262144, attn_implementation="sdpa",
        rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20], mrope_interleaved=True))

    def make():
        model = full.fill(Qwen3VLTextModel(config), lambda name: second("model.language_model." + name))
        model.norm = torch.nn.Identity()  # the pipeline takes what comes before it
        return model
    model = WEIGHTS.get("text_encoder21", make, dtype)
    ids = torch.tensor([[i * 37 % 1024 for i in range(size)]])
    return lambda: model(input_ids=ids, use_cache=False).last_hidden_state


def vision21(size, dtype):
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
    config = Qwen3VLVisionConfig(
        depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, patch_size=16, temporal_patch_size=2,
        spatial_merge_size=2, num_position_embeddings=2304, deepstack_visual_indexes=[8, 16, 24], out_hidden_size=4096,
        attn_implementation="sdpa")
    make = lambda: full.fill(Qwen3VLVisionModel(config), lambda name: "model.visual." + name)
    model, side = WEIGHTS.get("vision21", make, dtype), size // 16
    pixels, shape = uniforms("input.pixels", side * side, 1536).to(dtype), torch.tensor([[1, side, side]])

    def run():
        result = model(pixels, grid_thw=shape)
        return torch.cat([result.pooler_output, *result.deepstack_features])
    return run


def pipeline(size, dtype, model):
    import make_reference
    folder, _, steps = model.partition(":")
    return drawing(make_reference.load(make_reference.QwenImagePipeline, folder).to(dtype), size, steps)


def pipeline21(size, dtype, model):
    from diffusers import QwenImage21Pipeline
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen3VLProcessor, Qwen3VLVideoProcessor
    folder, _, steps = model.partition(":")
    # The checkpoint has no configuration for videos, without which the processor is not read in one go.
    images, tokenizer = (kind.from_pretrained(f"{folder}/processor") for kind in (AutoImageProcessor, AutoTokenizer))
    processor = Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=tokenizer.chat_template)
    pipe = QwenImage21Pipeline.from_pretrained(folder, processor=processor, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return drawing(pipe, size, steps)


def drawing(pipe, size, steps):
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


KINDS = {
    "block": block, "edit": edit, "edit0": edit0, "attention": attention, "layer": layer, "vision": vision, "vae": vae,
    "vae-encode": vae_encode, "pipeline": pipeline, "block21": block21, "block21-edit": block21_edit,
    "block21-edit-whole": block21_edit_whole, "layer21": layer21, "vision21": vision21, "vae21": vae21,
    "vae21-encode": vae21_encode, "pipeline21": pipeline21}


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

    def against(self, key, path):
        """How far what the other side kept is from the last result of `key`."""
        result = self.results[key]
        kept = torch.frombuffer(bytearray(pathlib.Path(path).read_bytes()), dtype=torch.float32)
        if kept.numel() != result.numel():
            raise ValueError(f"{kept.numel()} values instead of {result.numel()}")
        return {"error": full.rel(kept.reshape(result.shape), result)}

    def drop(self, key):
        self.cases.pop(key)
        self.results.pop(key, None)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return {}

    def memory(self):
        return {"peak": peak_resident_bytes()}


def serve(worker, about, answers):
    """Says `about` what it is, and answers the lines of standard input."""
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = worker.obey(line.split())
        except Exception as error:  # reported to compare.py, which stops
            answer = {"failed": f"{line.strip()}: {error!r}"}
        print(json.dumps(answer), file=answers, flush=True)


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
    serve(worker, versions, answers)


if __name__ == "__main__":
    main()
