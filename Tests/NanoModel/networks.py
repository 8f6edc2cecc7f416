"""The text encoder and the transformer in a form that trains quickly, numerically equal to the library's classes.

`checkpoint.py --check` compares them. Attention is written out: at 40 tokens torch's fused kernel for the CPU is 7 times slower (backward).
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import QwenImageTransformer2DModel
from torch import nn

from images import SHOWN_SIDE

HEAD = 32  # channels of an attention head, in both networks
MROPE_SECTION = (4, 6, 6)  # rotary frequencies that turn with a token's time, row and column
PREFIX_TOKENS = 34  # of the prompt template: the same for all prompts, and dropped by the pipelines
EDIT_PREFIX_TOKENS = 64  # of the template of edits
PATCH, MERGE = 14, 2  # pixels of a patch's side; patches of a token's side
IMAGE_TOKENS = (SHOWN_SIDE // PATCH // MERGE) ** 2


@dataclass(frozen=True)
class Sizes:
    """What distinguishes this model from the published one. `transformer_width` is a multiple of 32."""

    text_width: int = 128
    text_inner: int = 384
    text_layers: int = 2
    transformer_width: int = 160
    transformer_layers: int = 5
    vision_width: int = 32

    def text_config(self) -> dict:
        heads = self.text_width // HEAD
        return dict(
            hidden_size=self.text_width, intermediate_size=self.text_inner, num_hidden_layers=self.text_layers,
            num_attention_heads=heads, num_key_value_heads=heads)

    def transformer_config(self) -> dict:
        return dict(
            patch_size=2, in_channels=64, out_channels=16, num_layers=self.transformer_layers, attention_head_dim=HEAD,
            num_attention_heads=self.transformer_width // HEAD, joint_attention_dim=self.text_width, guidance_embeds=False,
            axes_dims_rope=[4, 14, 14])


def attend(q, k, v, bias):
    """Softmax attention over [B, heads, tokens, 32]; `bias` is added to the scores."""
    return ((q @ k.mT) * HEAD**-0.5 + bias).softmax(-1).to(v.dtype) @ v


def as_bias(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `allowed`, −∞ elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, float("-inf"))


class _Normalise(torch.autograd.Function):
    """x / RMS(x) over the last axis; torch's own backward pass on a CPU takes several times as long."""

    @staticmethod
    def forward(context, x):
        inverse = (torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square() / x.shape[-1] + 1e-6).rsqrt().to(x.dtype)
        y = x * inverse
        context.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(context, gradient):
        y, inverse = context.saved_tensors
        return torch.addcmul(gradient, y, (gradient * y).mean(-1, keepdim=True), value=-1) * inverse


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, 1e-6)


class TextAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin, bias, past):
        b, n, width = x.shape
        heads = lambda t: t.view(b, n, -1, HEAD).transpose(1, 2)
        turn = lambda t: t * cos + torch.cat((-t[..., HEAD // 2:], t[..., : HEAD // 2]), -1) * sin
        k, v = turn(heads(self.k_proj(x))), heads(self.v_proj(x))
        own = k, v
        if past is not None:
            k, v = (torch.cat((old.expand(b, -1, -1, -1), new), 2) for old, new in zip(past, own))
        o = attend(turn(heads(self.q_proj(x))), k, v, bias)
        return self.o_proj(o.transpose(1, 2).reshape(b, n, width)), own


class TextMLP(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TextLayer(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.self_attn, self.mlp = TextAttention(width), TextMLP(width, inner)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(width), RMSNorm(width)

    def forward(self, x, cos, sin, bias, past=None):
        o, own = self.self_attn(self.input_layernorm(x), cos, sin, bias, past)
        x = x + o
        return x + self.mlp(self.post_attention_layernorm(x)), own


def _image_places(count: int, start: int, device: torch.device) -> torch.Tensor:
    """Positions [count, 16] of each frequency, of a text whose tokens from `start` on are of a square image (M-RoPE)."""
    side = round(IMAGE_TOKENS**0.5)
    plain = torch.arange(count, device=device)
    inside = (plain >= start) & (plain < start + IMAGE_TOKENS)
    after = torch.where(plain >= start + IMAGE_TOKENS, plain - IMAGE_TOKENS + side, plain)
    at = plain - start
    axes = [torch.where(inside, value, after) for value in (start, start + at // side, start + at % side)]
    return torch.stack([axis for axis, share in zip(axes, MROPE_SECTION) for _ in range(share)], 1)


class VisionBlock(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.gate_proj, self.mlp.up_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.mlp.down_proj = nn.Linear(inner, width)

    def forward(self, x, cos, sin):
        b, n, width = x.shape
        head = cos.shape[-1]
        q, k, v = self.attn.qkv(self.norm1(x)).view(b, n, 3, -1, head).permute(2, 0, 3, 1, 4)
        turn = lambda t: t * cos + torch.cat((-t[..., head // 2 :], t[..., : head // 2]), -1) * sin
        o = ((turn(q) @ turn(k).mT) * head**-0.5).softmax(-1).to(v.dtype) @ v
        x = x + self.attn.proj(o.transpose(1, 2).reshape(b, n, width))
        y = self.norm2(x)
        return x + self.mlp.down_proj(F.silu(self.mlp.gate_proj(y)) * self.mlp.up_proj(y))


class VisionTower(nn.Module):
    """The vision tower of Qwen2.5-VL with one block, for images of 56×56; names as in the library."""

    HEADS = 2

    def __init__(self, sizes: Sizes = Sizes()):
        super().__init__()
        width, merged = sizes.vision_width, sizes.vision_width * MERGE**2
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, width, (2, PATCH, PATCH), (2, PATCH, PATCH), bias=False)
        self.blocks = nn.ModuleList([VisionBlock(width, sizes.vision_width)])
        self.merger = nn.Module()
        self.merger.ln_q = RMSNorm(width)
        self.merger.mlp = nn.Sequential(nn.Linear(merged, merged), nn.GELU(), nn.Linear(merged, sizes.text_width))

    @staticmethod
    def _rotation(width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        side = SHOWN_SIDE // PATCH
        rows, columns = (t.flatten() for t in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
        head = width // VisionTower.HEADS
        frequencies = 1.0 / 10000 ** (torch.arange(0, head // 2, 2).float() / (head // 2))
        angles = torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), 1)[patch_order()].repeat(1, 2)
        return angles.cos().to(device), angles.sin().to(device)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """`patches` [B, 16, 3·14·14], in the order of `patch_order`, to [B, 4, text width]."""
        weight = self.patch_embed.proj.weight.sum(2).flatten(1)  # both of two equal frames
        x = F.linear(patches, weight)
        cos, sin = (t.to(x.dtype) for t in self._rotation(weight.shape[0], x.device))
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.merger.ln_q(x)
        return self.merger.mlp(x.reshape(len(x), IMAGE_TOKENS, -1))


def patch_order() -> torch.Tensor:
    """The rows of a 4×4 grid of patches in the order of the tower: those of a token one after the other."""
    side = SHOWN_SIDE // PATCH
    return torch.arange(side * side).view(side // MERGE, MERGE, side // MERGE, MERGE).transpose(1, 2).flatten()


IMAGE_MEAN, IMAGE_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def patches_of(shown: torch.Tensor) -> torch.Tensor:
    """Images [B, 56, 56, 3] uint8 as the tower takes them, [B, 16, 588] fp32."""
    mean, deviation = (torch.tensor(values, device=shown.device) for values in (IMAGE_MEAN, IMAGE_DEVIATION))
    x, side = (shown.float() / 255 - mean) / deviation, SHOWN_SIDE // PATCH
    x = x.view(-1, side, PATCH, side, PATCH, 3).permute(0, 1, 3, 5, 2, 4).reshape(len(shown), side * side, -1)
    return x[:, patch_order().to(x.device)]


class TextEncoder(nn.Module):
    """The language part of Qwen2.5-VL. The template's tokens before the prompt are the same for all, so they are computed once a batch."""

    def __init__(self, vocabulary: int, sizes: Sizes = Sizes()):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, sizes.text_width)
        self.layers = nn.ModuleList([TextLayer(sizes.text_width, sizes.text_inner) for _ in range(sizes.text_layers)])
        self.norm = RMSNorm(sizes.text_width)
        nn.init.normal_(self.embed_tokens.weight, std=0.7)

    def forward(self, prefix: torch.Tensor, ids: torch.Tensor, image: tuple[int, torch.Tensor, bool] | None = None) -> torch.Tensor:
        """`prefix` [P] and `ids` [B, L] tokens to hidden states [B, L, width] of the latter; padding on the right changes nothing before it.

        `image` is the place in `ids` of the tokens of an image, what stands there instead of their embeddings [B, tokens, width], and
        whether they have positions in two dimensions, as the published model was trained with; transformers 5 counts them like text.
        """
        p, n, device = len(prefix), ids.shape[1], ids.device
        frequencies = 1.0 / 1e6 ** (torch.arange(0, HEAD, 2, device=device).float() / HEAD)
        places = torch.arange(p + n, device=device)[:, None].expand(-1, len(frequencies))
        if image is not None and image[2]:
            places = _image_places(p + n, p + image[0], device)
        angles = (places * frequencies).repeat(1, 2)
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        causal = as_bias(torch.ones(p + n, p + n, dtype=torch.bool, device=device).tril(), dtype)
        x, y = self.embed_tokens(prefix)[None], self.embed_tokens(ids)
        if image is not None:
            at, states, _ = image
            y = torch.cat((y[:, :at], states.to(y.dtype), y[:, at + states.shape[1] :]), 1)
        for layer in self.layers:
            x, past = layer(x, cos[:p], sin[:p], causal[:p, :p])
            y, _ = layer(y, cos[p:], sin[p:], causal[p:], past)
        return self.norm(y)


def new_transformer(sizes: Sizes = Sizes()) -> QwenImageTransformer2DModel:
    """A transformer whose blocks start with all gates at one half and whose output starts at zero."""
    model = QwenImageTransformer2DModel(**sizes.transformer_config())
    width = sizes.transformer_width
    zeroed = [model.norm_out.linear, model.proj_out]
    for block in model.transformer_blocks:
        zeroed += [block.img_mod[1], block.txt_mod[1]]
    for linear in zeroed:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    with torch.no_grad():
        for block in model.transformer_blocks:
            for modulation in (block.img_mod[1], block.txt_mod[1]):
                modulation.bias[2 * width : 3 * width] = 0.5
                modulation.bias[5 * width :] = 0.5
    return model


def unused_parameters(model: QwenImageTransformer2DModel) -> set[str]:
    """Names of the last block's parameters that change only the text stream, which nothing reads after it."""
    last = f"transformer_blocks.{len(model.transformer_blocks) - 1}."
    return {name for name, _ in model.named_parameters() if name.startswith(last) and ("txt_mlp" in name or "to_add_out" in name)}


@functools.lru_cache(maxsize=64)
def _rotations(pos_embed, rows: int, columns: int, images: int, texts: int, device: torch.device, dtype: torch.dtype):
    """Cosines and signed sines [1, tokens, 1, 32] of the rotary embedding of `images` images of one size, text first."""
    image, text = pos_embed([[(1, rows, columns)] * images], max_txt_seq_len=texts, device=device)
    angles = torch.cat((text, image))
    cos, sin = angles.real.repeat_interleave(2, -1), angles.imag.repeat_interleave(2, -1)
    sin = sin * torch.tensor([-1.0, 1.0], device=device).repeat(HEAD // 2)
    return cos[None, :, None].to(dtype), sin[None, :, None].to(dtype)


def _joint_attention(attention, x, text, cos, sin, bias):
    """Attention of one block over text and image tokens together: [B, text + image tokens, width]."""
    b, length, count = x.shape[0], text.shape[1], text.shape[1] + x.shape[1]
    project = lambda t, parts: F.linear(t, torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))
    joint = torch.cat((
        project(text, (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj)),
        project(x, (attention.to_q, attention.to_k, attention.to_v))), 1).view(b, count, 3, -1, HEAD)
    qk, v = joint[:, :, :2], joint[:, :, 2]
    scale = torch.cat((
        torch.stack((attention.norm_added_q.weight, attention.norm_added_k.weight)).expand(length, 2, HEAD),
        torch.stack((attention.norm_q.weight, attention.norm_k.weight)).expand(count - length, 2, HEAD)))[None, :, :, None]
    qk = _Normalise.apply(qk) * scale.to(qk.dtype)
    swapped = qk.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    q, k = (qk * cos[:, :, None] + swapped * sin[:, :, None]).permute(2, 0, 3, 1, 4)
    return attend(q, k, v.transpose(1, 2), bias).transpose(1, 2).flatten(2)


def denoise(model: QwenImageTransformer2DModel, x, text, mask, sigma, rows: int, columns: int, reference=None) -> torch.Tensor:
    """The transformer's forward pass on its own modules.

    `x` [B, rows·columns, 64] noisy tokens, `text` [B, L, width] hidden states, `mask` [B, L] bool, `sigma` [B] noise levels in 0…1,
    `reference` the tokens of an image of the same size that is edited; returns the velocity (noise − image), shaped as `x`.
    """
    wanted = x.shape[1]
    if reference is not None:
        x = torch.cat((x, reference), 1)
    b, count, length = *x.shape[:2], text.shape[1]
    angles = sigma[:, None] * 1000 * torch.exp(-math.log(10000) * torch.arange(128, device=x.device) / 128)
    embedder = model.time_text_embed.timestep_embedder
    time = F.silu(embedder.linear_2(F.silu(embedder.linear_1(torch.cat((angles.cos(), angles.sin()), -1)))))
    x = model.img_in(x)
    text = model.txt_in(F.rms_norm(text.float(), (text.shape[-1],), model.txt_norm.weight, 1e-6))
    cos, sin = _rotations(model.pos_embed, rows, columns, count // wanted, length, x.device, x.dtype)
    seen = torch.cat((mask, torch.ones(b, count, dtype=torch.bool, device=x.device)), 1)
    bias = as_bias(seen[:, None, None], x.dtype)
    norm = lambda t: F.layer_norm(t, (t.shape[-1],), None, None, 1e-6)
    modulate = lambda t, shift, scale: torch.addcmul(shift, norm(t), 1 + scale)
    inner = lambda mlp, t: mlp.net[2](F.gelu(mlp.net[0].proj(t), approximate="tanh"))
    for index, block in enumerate(model.transformer_blocks):
        shift1, scale1, gate1, shift2, scale2, gate2 = block.img_mod[1](time)[:, None].chunk(6, -1)
        text_shift1, text_scale1, text_gate1, text_shift2, text_scale2, text_gate2 = block.txt_mod[1](time)[:, None].chunk(6, -1)
        o = _joint_attention(
            block.attn, modulate(x, shift1, scale1), modulate(text, text_shift1, text_scale1), cos, sin, bias)
        if index == len(model.transformer_blocks) - 1:  # of the reference nothing more is needed
            x, o = x[:, :wanted], o[:, : length + wanted]
        x = torch.addcmul(x, gate1, block.attn.to_out[0](o[:, length:]))
        x = torch.addcmul(x, gate2, inner(block.img_mlp, modulate(x, shift2, scale2)))
        if index < len(model.transformer_blocks) - 1:
            text = torch.addcmul(text, text_gate1, block.attn.to_add_out(o[:, :length]))
            text = torch.addcmul(text, text_gate2, inner(block.txt_mlp, modulate(text, text_shift2, text_scale2)))
    scale, shift = model.norm_out.linear(time)[:, None].chunk(2, -1)
    return model.proj_out(modulate(x, shift, scale))
