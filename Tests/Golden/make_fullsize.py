#!/usr/bin/env python
"""Reference outputs of full-size modules whose weights both sides compute from a formula.

    make_fullsize.py [OUT_DIR]        needs torch, diffusers, transformers, safetensors

Tiny checkpoints hide mistakes that only appear at the published widths (128 channels per head, 3584 hidden, 18944 inner).
Full-size weights do not fit in a repository, so every tensor is a function of its name, shape and element index; see
`formula` below and SyntheticWeights.swift. Four cases are recorded as every STRIDE-th value of each tensor:

    fullsize_transformer   one MMDiT block with its input and output layers, 18 x 22 image tokens, 45 text tokens, sigma 0.7
    fullsize_text_encoder  one Qwen2.5-VL decoder layer and the final norm, 77 tokens (vocabulary cut to 1024)
    fullsize_vae_decoder   the whole decoder, 12 x 20 latent pixels
    fullsize_vae_encoder   the whole encoder, 80 x 112 pixels

and `bf16.*` holds the relative error of the same run in torch bf16, a yard-stick for tolerances.
"""
import math, os, sys
import numpy as np
import torch
from safetensors.torch import save_file
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

torch.set_grad_enabled(False)
STRIDE = 61
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "fullsize")


def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name, count):
    """`count` numbers in [-1, 1): splitmix64 of (FNV-1a of the name + index), top 24 bits."""
    z = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(fnv1a(name))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * (2.0 / (1 << 24)) - 1.0


def formula(name, shape):
    """Gain scales around 1, biases within 0.05, weights uniform with variance 1 / fan-in; all rounded to bf16."""
    values = uniform(name, math.prod(shape))
    if "norm" in name.split(".")[-2] or name.endswith("gamma") or "layernorm" in name:
        values = values * 0.1 + 1.0
    elif len(shape) == 1:
        values = values * 0.05
    else:
        fan_in = shape[1] * (shape[-1] * shape[-2] if len(shape) > 2 else 1)
        values = values * math.sqrt(3.0 / fan_in)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape).to(torch.bfloat16).float()


def fill(module, rename=lambda n: n):
    for name, p in module.named_parameters():
        p.copy_(formula(rename(name), tuple(p.shape)))
    return module.eval()


def rel(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def record(case, run, module):
    full = run(module)
    half = run(module.to(torch.bfloat16))
    tensors = {k: v.float().flatten()[::STRIDE].clone() for k, v in full.items()}
    tensors["norms"] = torch.tensor([full[k].norm().item() for k in sorted(full)])
    for k in full:
        tensors["bf16." + k] = torch.tensor([rel(half[k], full[k])])
        print(f"{case:24s} {k:16s} {str(list(full[k].shape)):22s} rms {full[k].pow(2).mean().sqrt().item():8.4f}  bf16 error {rel(half[k], full[k]):.2e}")
    save_file(tensors, f"{OUT}/{case}.safetensors")


def transformer():
    gh, gw, text, sigma = 18, 22, 45, 0.7
    model = fill(QwenImageTransformer2DModel(num_layers=1))
    x = torch.from_numpy(uniform("input.latents", gh * gw * 64).astype(np.float32)).reshape(1, gh * gw, 64)
    c = torch.from_numpy(uniform("input.prompt_embeds", text * 3584).astype(np.float32)).reshape(1, text, 3584)

    def run(m):
        t, dtype = {}, next(m.parameters()).dtype
        block = m.transformer_blocks[0]
        hooks = [block.attn.register_forward_hook(lambda _, a, o: t.update({"block.0.attn.img": o[0], "block.0.attn.txt": o[1]})),
                 block.register_forward_hook(lambda _, a, o: t.update({"block.0.img": o[1], "block.0.txt": o[0]}))]
        t["out"] = m(hidden_states=x.to(dtype), encoder_hidden_states=c.to(dtype), timestep=torch.tensor([sigma], dtype=dtype),
                     img_shapes=[[(1, gh, gw)]], return_dict=False)[0]
        [h.remove() for h in hooks]
        return t
    record("fullsize_transformer", run, model)


def text_encoder():
    config = Qwen2_5_VLTextConfig(hidden_size=3584, intermediate_size=18944, num_hidden_layers=1, num_attention_heads=28, num_key_value_heads=4,
                                  vocab_size=1024, rms_norm_eps=1e-6, max_position_embeddings=128000, bos_token_id=0, eos_token_id=1, pad_token_id=2,
                                  rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]), attn_implementation="sdpa")
    model = fill(Qwen2_5_VLTextModel(config), lambda n: "model." + n)
    ids = torch.tensor([[(i * 37) % 1024 for i in range(77)]])

    def run(m):
        t = {}
        hook = m.layers[0].register_forward_hook(lambda _, a, o: t.update({"layer.0": o[0] if isinstance(o, tuple) else o}))
        t["last_hidden_state"] = m(input_ids=ids, use_cache=False).last_hidden_state
        hook.remove()
        return t
    record("fullsize_text_encoder", run, model)


def vae_decoder():
    h, w = 12, 20
    model = fill(AutoencoderKLQwenImage())
    mean, std = (torch.tensor(getattr(model.config, k)).view(1, 16, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    z = torch.from_numpy(uniform("input.latents", 16 * h * w).astype(np.float32)).reshape(1, 16, 1, h, w) * std + mean

    def run(m):
        t, d = {}, m.decoder
        hooks = [d.mid_block.attentions[0].register_forward_hook(lambda _, a, o: t.update({"dec.mid_attn": o})),
                 d.mid_block.register_forward_hook(lambda _, a, o: t.update({"dec.mid": o}))]
        hooks += [u.register_forward_hook(lambda _, a, o, i=i: t.update({f"dec.up.{i}": o})) for i, u in enumerate(d.up_blocks)]
        t["decode0.out"] = m.decode(z.to(next(m.parameters()).dtype), return_dict=False)[0]
        [k.remove() for k in hooks]
        return t
    record("fullsize_vae_decoder", run, model)


def vae_encoder():
    h, w = 80, 112
    model = fill(AutoencoderKLQwenImage())
    x = torch.from_numpy(uniform("input.pixels", h * w * 3).astype(np.float32)).reshape(h, w, 3).permute(2, 0, 1)[None, :, None]

    def run(m):
        t, e = {}, m.encoder
        hooks = [e.conv_in.register_forward_hook(lambda _, a, o: t.update({"enc.conv_in": o})),
                 e.mid_block.attentions[0].register_forward_hook(lambda _, a, o: t.update({"enc.mid_attn": o})),
                 e.mid_block.register_forward_hook(lambda _, a, o: t.update({"enc.mid": o}))]
        hooks += [d.register_forward_hook(lambda _, a, o, i=i: t.update({f"enc.down.{i}": o})) for i, d in enumerate(e.down_blocks)]
        t["encode0.moments"] = m.encode(x.to(next(m.parameters()).dtype)).latent_dist.parameters
        [k.remove() for k in hooks]
        return t
    record("fullsize_vae_encoder", run, model)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    transformer()
    text_encoder()
    vae_decoder()
    vae_encoder()
