#!/usr/bin/env python
"""Adapters for the tiny checkpoints, and what the reference makes of them (diffusers 0.42 with peft 0.21).

    make_adapters.py OUT

Reads `tiny/` and `tiny-2.1/` beside this script. Writes adapters with random weights, each as one program writes them:
    style.safetensors        diffusers: PEFT's names, configuration in the header, ranks and alphas by patterns
    kohya.safetensors        kohya's scripts: underscores, alpha for each layer
    comfy.safetensors        ComfyUI: diffusion_model., lora_down and lora_up, alpha for some layers
    loha/, lokr/             PEFT: adapter_model.safetensors, adapter_config.json
    style21.safetensors      as style, for the second family
and `reference.safetensors`: for each case the first step's prediction and the last latents, all in fp32.
"""
import json, math, os, sys
import torch
import peft
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import load_file, save_file
from diffusers import QwenImageTransformer2DModel, QwenImage21Transformer2DModel
from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin

torch.set_grad_enabled(False)
GOLDEN = os.path.dirname(os.path.abspath(__file__))
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
MLP = ["img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"]
REST = ["img_mod.1", "txt_mod.1", "img_in", "txt_in", "proj_out", "norm_out.linear", "linear_1", "linear_2"]
MLP21 = ["img_mlp.gate_layer", "img_mlp.proj", "img_mlp.out"]
REST21 = ["modulation.1", "img_in", "txt_in.in_layer", "txt_in.out_layer", "proj_out", "norm_out.linear", "linear_1", "linear_2"]


def transformer():
    return QwenImageTransformer2DModel.from_pretrained(f"{GOLDEN}/tiny/checkpoint", subfolder="transformer", torch_dtype=torch.float32).eval()


def transformer21():
    return QwenImage21Transformer2DModel.from_pretrained(f"{GOLDEN}/tiny-2.1/checkpoint", subfolder="transformer", torch_dtype=torch.float32).eval()


def bf16(x):
    return x.bfloat16().float()


def fill(model, generator, keys):
    """Random numbers for the parameters of an adapter; those that PEFT begins with zeros would hide the others."""
    for name, parameter in model.named_parameters():
        if any(key in name for key in keys):
            std = next((s for x, s in (("lora_B", 0.2), ("hada_w1_a", 0.8), ("hada_w2_a", 0.8), ("lokr_w1", 0.4)) if x in name), 1 / math.sqrt(parameter.shape[-1]))
            parameter.copy_(bf16(torch.randn(parameter.shape, generator=generator) * std))


def shapes(model, targets):
    return {name: module.weight.shape for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and any(name == t or name.endswith("." + t) for t in targets)}


def write_diffusers(model, out, name, config, generator):
    model.add_adapter(config, adapter_name=name)
    fill(model, generator, ["lora_"])
    model.save_lora_adapter(out, adapter_name=name, weight_name=f"{name}.safetensors")
    model.delete_adapters(name)


def write_plain(model, path, generator, targets, key, rank, alpha):
    tensors = {}
    for index, (name, (rows, columns)) in enumerate(shapes(model, targets).items()):
        r = rank(index)
        # In fp32, or diffusers would round products with alpha.
        tensors[key(name) + ".lora_down.weight"] = bf16(torch.randn(r, columns, generator=generator) / math.sqrt(columns))
        tensors[key(name) + ".lora_up.weight"] = bf16(torch.randn(rows, r, generator=generator) * 0.15)
        if alpha(index) is not None: tensors[key(name) + ".alpha"] = torch.tensor(alpha(index))
    assert tensors
    save_file(tensors, path)


def load(model, path, name):
    state, metadata = QwenImageLoraLoaderMixin.lora_state_dict(path, return_lora_metadata=True)
    has_prefix = any(key.startswith("transformer.") for key in state)
    model.load_lora_adapter(state, adapter_name=name, metadata=metadata, prefix="transformer" if has_prefix else None)


def loop(model):
    """The recorded call t2i_64x64 without encoder and decoder: the first prediction, the last latents."""
    r = load_file(f"{GOLDEN}/tiny/reference/t2i_64x64.safetensors")
    latents, sigmas, first = r["prepare_latents.0"], r["sigmas"], None
    for step, t in enumerate(r["timesteps"]):
        cond, uncond = (model(hidden_states=latents, timestep=(t / 1000).reshape(1), encoder_hidden_states=r[f"prompt_embeds.{x}"],
                              encoder_hidden_states_mask=None, img_shapes=[[(1, 4, 4)]], return_dict=False)[0] for x in ("cond", "uncond"))
        first = cond if first is None else first
        guided = uncond + 4.0 * (cond - uncond)
        guided = guided * (cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        latents = latents + (sigmas[step + 1] - sigmas[step]) * guided
    return first, latents


def loop21(model):
    """The same of the second family's t2i_64x64_nocache."""
    r = load_file(f"{GOLDEN}/tiny-2.1/reference/t2i_64x64_nocache.safetensors")
    latents, sigmas, first = r["prepare_latents.0"], r["sigmas"], None
    for step, t in enumerate(r["timesteps"]):
        all_tokens = model(hidden_states=latents, timestep=(t / 1000).reshape(1), encoder_hidden_states=r["prompt_embeds.cond"],
                           img_shapes=[[(1, 4, 4)]], img_mask=r["dit.step0.cond.in.img_mask"].bool(), return_dict=False)[0]
        velocity = all_tokens[:, -latents.shape[1]:]
        first = velocity if first is None else first
        latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
    return first, latents


def check(latents, name):
    expected = load_file(f"{GOLDEN}/{name}.safetensors")["latents.step3"]
    assert (latents - expected).norm() / expected.norm() < 1e-5, f"the loop of this script is not the pipeline's: {name}"


def lycoris(out, name, config, generator, scale):
    model = transformer()
    peft.inject_adapter_in_model(config, model, "default")
    fill(model, generator, ["hada_", "lokr_"])
    state = peft.get_peft_model_state_dict(model, adapter_name="default")
    os.makedirs(f"{out}/{name}", exist_ok=True)
    save_file({f"base_model.model.{k}": v.contiguous().bfloat16() for k, v in state.items()}, f"{out}/{name}/adapter_model.safetensors")
    fields = {k: (sorted(v) if isinstance(v, set) else v) for k, v in config.to_dict().items()}
    json.dump(fields, open(f"{out}/{name}/adapter_config.json", "w"), indent=1, sort_keys=True, default=str)
    for module in model.modules():
        if isinstance(module, LycorisLayer): module.set_scale("default", scale)
    return loop(model)


def main(out):
    os.makedirs(out, exist_ok=True)
    g, model, recorded = torch.Generator().manual_seed(15), transformer(), {}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=ATTENTION + MLP + REST, init_lora_weights=False,
                             rank_pattern={"transformer_blocks.0.attn.to_q": 2, "img_in": 7}, alpha_pattern={"transformer_blocks.1.attn.to_v": 1})
    write_diffusers(model, out, "style", config, g)
    model = transformer()  # PEFT leaves its modules where an adapter was
    write_plain(model, f"{out}/kohya.safetensors", g, ATTENTION + MLP, lambda n: "lora_unet_" + n.replace(".", "_"), lambda i: 1 + i % 5, lambda i: 1.5 + i % 3)
    write_plain(model, f"{out}/comfy.safetensors", g, ["to_q", "to_out.0"] + MLP, lambda n: "diffusion_model." + n, lambda i: 3, lambda i: 2.0 if i % 2 else None)

    plain = loop(model)
    check(plain[1], "tiny/reference/t2i_64x64")
    for name in ("style", "kohya", "comfy"): load(model, f"{out}/{name}.safetensors", name)
    for case, names, scales in (("style", ["style"], [0.8]), ("kohya", ["kohya"], [1.0]), ("set", ["style", "kohya", "comfy"], [0.8, 1.25, -0.5])):
        model.set_adapters(names, weights=scales)
        recorded[case] = loop(model)
    recorded["loha"] = lycoris(out, "loha", peft.LoHaConfig(r=3, alpha=4, target_modules=ATTENTION + MLP, rank_pattern={"to_k": 2}), g, 0.7)
    recorded["lokr"] = lycoris(out, "lokr", peft.LoKrConfig(r=2, alpha=3, decompose_both=True, target_modules=ATTENTION + MLP, rank_pattern={"to_k": 16}), g, -0.6)

    model = transformer21()
    config = peft.LoraConfig(r=3, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"] + MLP21 + REST21, init_lora_weights=False)
    write_diffusers(model, out, "style21", config, g)
    model = transformer21()
    check(loop21(model)[1], "tiny-2.1/reference/t2i_64x64_nocache")
    load(model, f"{out}/style21.safetensors", "style21")
    model.set_adapters(["style21"], weights=[1.1])
    recorded["style21"] = loop21(model)

    for case, tensors in recorded.items():
        base = plain if case != "style21" else (recorded[case][0] * 0, recorded[case][1] * 0)
        print(case, [f"{((x - b).norm() / x.norm()).item():.3f} of {x.norm().item():.1f}" for x, b in zip(tensors, base)])
    save_file({f"{case}.{part}": x.contiguous() for case, pair in recorded.items() for part, x in zip(("step0", "latents"), pair)}, f"{out}/reference.safetensors")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
