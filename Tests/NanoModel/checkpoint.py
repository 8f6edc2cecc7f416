#!/usr/bin/env python3
"""Reads and writes checkpoints in the published (diffusers) layout, bf16; compares the training networks with the library's classes.

    checkpoint.py --check FOLDER
    checkpoint.py --snapshot STATE FOLDER     # the averaged weights of a training run that is not finished; FOLDER has the tokenizer
"""

import argparse
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file

from networks import (
    EDIT_PREFIX_TOKENS, IMAGE_DEVIATION, IMAGE_MEAN, IMAGE_TOKENS, MERGE, MROPE_SECTION, PATCH, PREFIX_TOKENS, SHOWN_SIDE, Sizes,
    TextEncoder, VisionTower, denoise, new_transformer, patches_of)
from vae import CONFIG, Autoencoder, from_3d, to_3d
from world import SIDE

SCHEDULER = dict(
    base_image_seq_len=256, base_shift=0.5, invert_sigmas=False, max_image_seq_len=8192, max_shift=0.9, num_train_timesteps=1000,
    shift=1.0, shift_terminal=0.02, stochastic_sampling=False, time_shift_type="exponential", use_beta_sigmas=False,
    use_dynamic_shifting=True, use_exponential_sigmas=False, use_karras_sigmas=False)
DIFFUSERS, TRANSFORMERS = "0.36.0.dev0", "4.53.1"  # the versions that the published files name
DEFAULTS = {
    "id": "nano-qwen-image", "width": 64, "height": 64, "steps": 20, "true_cfg_scale": 3.5, "negative_prompt": " ", "min_side": 32,
    "max_side": 256, "recommended_sizes": ["64x64", "128x64"], "reference_area": SIDE * SIDE, "condition_area": SIDE * SIDE}
FEWEST_PIXELS, MOST_PIXELS = SHOWN_SIDE * SHOWN_SIDE, 12845056  # that the vision tower sees; the published values
PROCESSOR = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": IMAGE_MEAN,
    "image_processor_type": "Qwen2VLImageProcessor", "image_std": IMAGE_DEVIATION, "max_pixels": MOST_PIXELS, "merge_size": MERGE,
    "min_pixels": FEWEST_PIXELS, "patch_size": PATCH, "processor_class": "Qwen2VLProcessor", "resample": 3,
    "rescale_factor": 1 / 255, "size": {"longest_edge": MOST_PIXELS, "shortest_edge": FEWEST_PIXELS}, "temporal_patch_size": 2}
TOLERANCE = 1e-5  # relative to the largest value


def _write_json(path: pathlib.Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def _read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from error


def write_frame(folder: pathlib.Path) -> None:
    """The small files that do not depend on any weights."""
    _write_json(folder / "scheduler/scheduler_config.json", dict(
        _class_name="FlowMatchEulerDiscreteScheduler", _diffusers_version=DIFFUSERS, **SCHEDULER))
    _write_json(folder / "model_index.json", dict(
        _class_name="QwenImageEditPlusPipeline", _diffusers_version=DIFFUSERS, processor=["transformers", "Qwen2VLProcessor"],
        scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"],
        text_encoder=["transformers", "Qwen2_5_VLForConditionalGeneration"], tokenizer=["transformers", "Qwen2Tokenizer"],
        transformer=["diffusers", "QwenImageTransformer2DModel"], vae=["diffusers", "AutoencoderKLQwenImage"]))
    for file in (folder / "tokenizer").iterdir():
        (folder / "processor").mkdir(exist_ok=True)
        shutil.copyfile(file, folder / "processor" / file.name)
    _write_json(folder / "processor/preprocessor_config.json", PROCESSOR)
    if not (folder / "generation_defaults.json").exists():
        _write_json(folder / "generation_defaults.json", DEFAULTS)


def text_encoder_config(vocabulary: int, added: dict[str, int], sizes: Sizes) -> dict:
    """config.json of the text encoder; the vision tower, which only edits use, has one block."""
    base = dict(
        attention_dropout=0.0, bos_token_id=added["<|endoftext|>"], eos_token_id=added["<|im_end|>"], hidden_act="silu",
        initializer_range=0.02, max_position_embeddings=128000, max_window_layers=sizes.text_layers, rms_norm_eps=1e-6,
        rope_theta=1000000.0, use_cache=True, rope_scaling=dict(mrope_section=list(MROPE_SECTION), rope_type="default", type="default"),
        sliding_window=32768, use_sliding_window=False, vocab_size=vocabulary, tie_word_embeddings=True, **sizes.text_config())
    text = dict(base, model_type="qwen2_5_vl_text", layer_types=["full_attention"] * sizes.text_layers, sliding_window=None)
    vision = dict(
        depth=1, fullatt_block_indexes=[0], hidden_act="silu", hidden_size=sizes.vision_width, in_channels=3, in_chans=3,
        initializer_range=0.02, intermediate_size=sizes.vision_width, model_type="qwen2_5_vl", num_heads=VisionTower.HEADS,
        out_hidden_size=sizes.text_width, patch_size=PATCH, spatial_merge_size=MERGE, spatial_patch_size=PATCH, temporal_patch_size=2, tokens_per_second=2, window_size=112)
    return dict(
        base, architectures=["Qwen2_5_VLForConditionalGeneration"], model_type="qwen2_5_vl", text_config=text, vision_config=vision,
        image_token_id=added["<|image_pad|>"], video_token_id=added["<|video_pad|>"], vision_start_token_id=added["<|vision_start|>"],
        vision_end_token_id=added["<|vision_end|>"], vision_token_id=added["<|vision_pad|>"], torch_dtype="bfloat16",
        transformers_version=TRANSFORMERS)


def write_autoencoder(folder: pathlib.Path, flat: Autoencoder) -> None:
    from diffusers import AutoencoderKLQwenImage

    statistics = {name: [round(x, 5) for x in getattr(flat, name).tolist()] for name in ("latents_mean", "latents_std")}
    library = to_3d(flat, AutoencoderKLQwenImage(**CONFIG, **statistics))
    library.to(torch.bfloat16).save_pretrained(folder / "vae")
    _write_json(folder / "vae/config.json", dict(
        _class_name="AutoencoderKLQwenImage", _diffusers_version=DIFFUSERS, **CONFIG, **statistics))


def read_autoencoder(folder: pathlib.Path) -> Autoencoder:
    config = _read_json(folder / "vae/config.json")
    for name, value in CONFIG.items():
        if config.get(name) != value:
            raise SystemExit(f"{folder}/vae/config.json: {name} is {config.get(name)}, only {value} is supported")
    return from_3d(load_file(folder / "vae/diffusion_pytorch_model.safetensors"), config["latents_mean"], config["latents_std"])


def write_networks(
        folder: pathlib.Path, encoder: TextEncoder, tower: VisionTower, transformer: torch.nn.Module, sizes: Sizes) -> None:
    """Writes `text_encoder/` and `transformer/`; the folder's tokenizer must be there."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = text_encoder_config(encoder.embed_tokens.num_embeddings, _read_json(folder / "tokenizer/added_tokens.json"), sizes)
    torch.manual_seed(0)
    library = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**json.loads(json.dumps(config))))
    state = library.state_dict()
    for prefix, network in (("model.language_model.", encoder), ("model.visual.", tower)):
        for name, tensor in network.state_dict().items():
            state[prefix + name].copy_(tensor)
    library.load_state_dict(state)
    library.tie_weights()
    library.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    _write_json(folder / "text_encoder/config.json", config)
    copy = new_transformer(sizes)
    copy.load_state_dict(transformer.state_dict())
    copy.to(torch.bfloat16).save_pretrained(folder / "transformer")
    _write_json(folder / "transformer/config.json", dict(
        _class_name="QwenImageTransformer2DModel", _diffusers_version=DIFFUSERS, **sizes.transformer_config()))


def read_sizes(folder: pathlib.Path) -> Sizes:
    text, transformer = _read_json(folder / "text_encoder/config.json"), _read_json(folder / "transformer/config.json")
    sizes = Sizes(
        text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"],
        transformer["num_attention_heads"] * transformer["attention_head_dim"], transformer["num_layers"])
    for name, value in sizes.transformer_config().items():
        if transformer.get(name) != value:
            raise SystemExit(f"{folder}/transformer/config.json: {name} is {transformer.get(name)}, only {value} is supported")
    return sizes


def read_networks(folder: pathlib.Path) -> tuple[TextEncoder, VisionTower, torch.nn.Module, Sizes]:
    """The inverse of `write_networks`, in fp32."""
    sizes, file = read_sizes(folder), folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    encoder, tower = TextEncoder(_read_json(folder / "text_encoder/config.json")["vocab_size"], sizes), VisionTower(sizes)
    for network, is_visual in ((encoder, False), (tower, True)):
        state = {}
        for name in network.state_dict():
            found = [key for key in tensors if key.endswith("." + name) and ("visual." in key) == is_visual]
            if len(found) != 1:
                raise SystemExit(f"{file}: {len(found)} tensors are called {name}, one was expected")
            state[name] = tensors[found[0]].float()
        network.load_state_dict(state)
    transformer = new_transformer(sizes)
    tensors = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    transformer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return encoder, tower, transformer, sizes


def write_snapshot(state: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the averaged weights of a run of train.py; prints its step."""
    saved = torch.load(state, weights_only=True, map_location="cpu")
    if (folder / "transformer").exists():
        encoder, tower, transformer, sizes = read_networks(folder)
    else:
        sizes = Sizes()
        encoder = TextEncoder(len(saved["average"]["text_encoder.embed_tokens.weight"]), sizes)
        tower, transformer = VisionTower(sizes), new_transformer(sizes)
    for prefix, network in (("text_encoder.", encoder), ("vision.", tower), ("transformer.", transformer)):
        own = {name.removeprefix(prefix): tensor for name, tensor in saved["average"].items() if name.startswith(prefix)}
        network.load_state_dict({**network.state_dict(), **own})  # parameters that nothing reads are not trained
    write_networks(folder, encoder, tower, transformer, sizes)
    write_frame(folder)
    print(f"{folder}: step {saved['step']}, {saved['progress']:.1%} of the run")


@torch.no_grad()
def differences(folder: pathlib.Path) -> dict[str, float]:
    """How far the training networks are from the library's classes on the same weights: largest difference over largest value."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    encoder, tower, transformer, sizes = read_networks(folder)
    flat = read_autoencoder(folder)
    far = lambda a, b: ((a - b).abs().max() / b.abs().max()).item()
    ids = torch.randint(0, 700, (2, 50))
    ids[1, :PREFIX_TOKENS] = ids[0, :PREFIX_TOKENS]
    library = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    states = library(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states[-1]
    result = {"text encoder": far(encoder(ids[0, :PREFIX_TOKENS], ids[:, PREFIX_TOKENS:]), states[:, PREFIX_TOKENS:])}
    ids, at = torch.randint(0, 700, (2, 90)), EDIT_PREFIX_TOKENS + 6
    ids[1, :EDIT_PREFIX_TOKENS] = ids[0, :EDIT_PREFIX_TOKENS]
    ids[:, at - 1], ids[:, at : at + IMAGE_TOKENS] = library.config.vision_start_token_id, library.config.image_token_id
    patches = patches_of(torch.randint(0, 256, (2, SHOWN_SIDE, SHOWN_SIDE, 3), dtype=torch.uint8))
    frames = patches.view(2, -1, 3, 1, PATCH * PATCH).expand(-1, -1, -1, 2, -1).reshape(-1, 3 * 2 * PATCH * PATCH)
    side = SHOWN_SIDE // PATCH
    images = dict(pixel_values=frames, image_grid_thw=torch.tensor([[1, side, side]] * 2))
    for name, in_two_dimensions in (("text encoder, image", True), ("text encoder, image, flat positions", False)):
        kinds = dict(mm_token_type_ids=(ids == library.config.image_token_id).int()) if in_two_dimensions else {}
        states = library(
            input_ids=ids, attention_mask=torch.ones_like(ids), **images, **kinds, output_hidden_states=True).hidden_states[-1]
        own = encoder(ids[0, :EDIT_PREFIX_TOKENS], ids[:, EDIT_PREFIX_TOKENS:], (6, tower(patches), in_two_dimensions))
        result[name] = far(own, states[:, EDIT_PREFIX_TOKENS:])
    library = QwenImageTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    x, text, mask, sigma = torch.randn(2, 16, 64), torch.randn(2, 9, sizes.text_width), torch.ones(2, 9, dtype=torch.bool), torch.tensor([0.3, 0.8])
    mask[1, 6:] = False
    for name, reference in (("transformer", None), ("transformer, edit", torch.randn(2, 16, 64))):
        joined, shapes = (x, [(1, 4, 4)]) if reference is None else (torch.cat((x, reference), 1), [(1, 4, 4)] * 2)
        velocity = library(
            hidden_states=joined, encoder_hidden_states=text, encoder_hidden_states_mask=mask, timestep=sigma, img_shapes=[shapes] * 2,
            return_dict=False)[0][:, : x.shape[1]]
        result[name] = far(denoise(transformer, x, text, mask, sigma, 4, 4, reference), velocity)
    library = AutoencoderKLQwenImage.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = flat.encode(image)[0]
    result["VAE encoder"] = far(latents, library.encode(image[:, :, None]).latent_dist.mean[:, :, 0])
    result["VAE decoder"] = far(flat.decode(latents).clamp(-1, 1), library.decode(latents[:, :, None]).sample[:, :, 0])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", type=pathlib.Path, metavar="FOLDER")
    action.add_argument("--snapshot", type=pathlib.Path, nargs=2, metavar=("STATE", "FOLDER"))
    options = parser.parse_args()
    if options.snapshot:
        write_snapshot(*options.snapshot)
        return 0
    found = differences(options.check)
    for name, difference in found.items():
        print(f"{name}: {difference:.1e} {'ok' if difference <= TOLERANCE else f'MORE THAN {TOLERANCE}'}")
    return 1 if max(found.values()) > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
