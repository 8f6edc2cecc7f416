"""The autoencoder for single images, on 2-D convolutions: what AutoencoderKLQwenImage computes, several times faster to train.

In the causal 3-D autoencoder a single frame only ever meets the last temporal tap of each 3x3x3 convolution, so a 2-D network with
`weight[:, :, -1]` gives the same numbers. `to_3d` and `from_3d` move the weights between the two; modules carry the library's names.
"""

import torch
import torch.nn.functional as F
from torch import nn

BASE, LATENT_CHANNELS, MULTIPLIERS, BLOCKS = 16, 16, (1, 2, 4, 4), 1
CONFIG = dict(
    base_dim=BASE, z_dim=LATENT_CHANNELS, dim_mult=list(MULTIPLIERS), num_res_blocks=BLOCKS, attn_scales=[],
    temperal_downsample=[False, True, True], dropout=0.0)


class Norm(nn.Module):
    """RMS norm over the channels of [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma, self.scale = nn.Parameter(torch.ones(channels)), channels**0.5

    def forward(self, x):
        return x * (x.square().sum(1, keepdim=True) + 1e-12).rsqrt() * (self.gamma * self.scale)[None, :, None, None]


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.conv1 = Norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = Norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(h))) + self.conv_shortcut(x)


class Attention(nn.Module):
    """One head over all positions; starts as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.to_qkv, self.proj = Norm(channels), nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).mT.chunk(3, -1)
        o = ((q @ k.mT) * c**-0.5).softmax(-1) @ v
        return x + self.proj(o.mT.reshape(b, c, h, w))


class Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels)])
        self.resnets = nn.ModuleList([Residual(channels, channels), Residual(channels, channels)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, 2))

    def forward(self, x):
        return self.resample(x)


class Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(channels, channels // 2, 3, padding=1))

    def forward(self, x):
        return self.resample(x)


class UpBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, up: bool):
        super().__init__()
        self.resnets = nn.ModuleList([Residual(inputs if i == 0 else outputs, outputs) for i in range(BLOCKS + 1)])
        self.upsamplers = nn.ModuleList([Up(outputs)]) if up else None

    def forward(self, x):
        for block in self.resnets:
            x = block(x)
        return self.upsamplers[0](x) if self.upsamplers is not None else x


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [BASE * m for m in (1, *MULTIPLIERS)]
        self.conv_in, blocks = nn.Conv2d(3, widths[0], 3, padding=1), []
        for level, (a, b) in enumerate(zip(widths, widths[1:])):
            blocks += [Residual(a if i == 0 else b, b) for i in range(BLOCKS)]
            if level < len(MULTIPLIERS) - 1:
                blocks.append(Down(b))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block, self.norm_out = Middle(widths[-1]), Norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [BASE * m for m in (MULTIPLIERS[-1], *reversed(MULTIPLIERS))]
        self.conv_in, self.mid_block = nn.Conv2d(LATENT_CHANNELS, widths[0], 3, padding=1), Middle(widths[0])
        self.up_blocks = nn.ModuleList([
            UpBlock(a // 2 if level else a, b, level < len(MULTIPLIERS) - 1)
            for level, (a, b) in enumerate(zip(widths, widths[1:]))])
        self.norm_out, self.conv_out = Norm(widths[-1]), nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """Images [B, 3, H, W] in −1…1 to latents [B, 16, H/8, W/8] and back.

    The buffers `latents_mean` and `latents_std` [16] are the statistics by which the transformer's latents are normalised.
    """

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.post_quant_conv = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        self.register_buffer("latents_mean", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("latents_std", torch.ones(LATENT_CHANNELS))

    def encode(self, x) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance of the latents, both [B, 16, H/8, W/8]."""
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(z))

    def tokens(self, x) -> torch.Tensor:
        """Images as the transformer sees them: normalised latents packed 2 by 2, [B, H/16·W/16, 64]."""
        z = (self.encode(x)[0] - self.latents_mean[:, None, None]) / self.latents_std[:, None, None]
        b, c, h, w = z.shape
        return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


    def images(self, tokens, rows: int, columns: int) -> torch.Tensor:
        """The inverse of `tokens`: images [B, 3, 16·rows, 16·columns] in −1…1."""
        z = tokens.view(len(tokens), rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, 2 * rows, 2 * columns)
        return self.decode(z * self.latents_std[:, None, None] + self.latents_mean[:, None, None]).clamp(-1, 1)


def to_3d(flat: Autoencoder, library: nn.Module) -> nn.Module:
    """Copies the weights into an AutoencoderKLQwenImage of the same configuration; what single images never use becomes zero."""
    source, target = flat.state_dict(), library.state_dict()
    for name, tensor in target.items():
        if name not in source:
            if "time_conv" not in name:
                raise ValueError(f"the library's autoencoder has a tensor {name} that this one lacks")
            tensor.zero_()
        elif tensor.dim() == 5:
            tensor.zero_()
            tensor[:, :, -1] = source[name]
        else:
            tensor.copy_(source[name].reshape(tensor.shape))
    library.load_state_dict(target)
    return library


def from_3d(tensors: dict[str, torch.Tensor], mean: list[float], std: list[float]) -> Autoencoder:
    """The inverse of `to_3d`, from the tensors of a checkpoint file."""
    flat = Autoencoder()
    state = {"latents_mean": torch.tensor(mean), "latents_std": torch.tensor(std)}
    for name, own in flat.state_dict().items():
        if name not in state:
            tensor = tensors[name].float()
            state[name] = (tensor[:, :, -1] if tensor.dim() == 5 else tensor).reshape(own.shape)
    flat.load_state_dict(state)
    return flat
