#!/usr/bin/env python3
"""Trains the autoencoder and writes FOLDER/vae.

    train_vae.py --checkpoint FOLDER --state FILE [--minutes M | --steps N]

Crops of 32x32 first, whole images in the last fifth. Squared error first and absolute error later: the latter alone settles on a
plateau of flat patches. Stop and resume it like train.py.
"""

import argparse
import pathlib

import numpy as np
import torch

import training
from checkpoint import write_autoencoder
from images import SIDE, render_varied
from vae import Autoencoder

CROP = 32  # side
LATENT_NOISE = 0.15  # the decoder learns to bear it


def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(y: torch.Tensor, x: torch.Tensor, progress: float) -> torch.Tensor:
    absolute = (y - x).abs().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(gradients(y), gradients(x)))
    late = min(1.0, max(0.0, (progress - 0.6) * 5))
    return late * (absolute + 0.5 * edges) + (1 - late) * (3 * (x - y).square().mean() + 0.1 * absolute)


class ImageSet:
    """A fixed set of images, [count, 3, 64, 64] uint8; each process draws its own."""

    def __init__(self, team: training.Team, count: int, seed: int):
        rng, _ = training.generators("vae", seed, team.rank)
        drawn = []
        while len(drawn) < count // team.size and not training.stop_requested():
            drawn.append((render_varied(rng) * 255).round().astype(np.uint8))
        training.stop_together(team)
        self.pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()

    def batch(self, side: int, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random crops as [count, 3, side, side] in −1…1."""
        chosen = torch.randint(len(self.pixels), (count,), generator=generator).tolist()
        corners = (torch.randint(0, (SIDE - side) // 8 + 1, (count, 2), generator=generator) * 8).tolist()
        crops = torch.stack([self.pixels[i, :, y : y + side, x : x + side] for i, (y, x) in zip(chosen, corners)])
        return (crops.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure(vae: Autoencoder, images: torch.Tensor) -> float:
    """Sets the statistics of the latents; returns the mean PSNR of the reconstruction in dB. `images` [N, 3, 64, 64] in −1…1."""
    latents, quality = [], []
    generator = torch.Generator().manual_seed(0)
    for x in images.split(16):
        mean, log_variance = vae.encode(x)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        latents.append(mean + (0.5 * log_variance).exp() * noise)  # with it, unused channels keep a deviation near 1
        quality.append(-10 * ((vae.decode(mean).clamp(-1, 1) - x) / 2).square().mean((1, 2, 3)).log10())
    all_latents = torch.cat(latents)
    vae.latents_mean.copy_(all_latents.mean((0, 2, 3)))
    vae.latents_std.copy_(all_latents.std((0, 2, 3)))
    return torch.cat(quality).mean().item()


def run(team: training.Team, options: argparse.Namespace) -> bool:
    torch.manual_seed(options.seed)
    vae = Autoencoder().to(team.device, memory_format=torch.channels_last)
    images = ImageSet(team, options.images, options.seed)
    identity = f"autoencoder; batch {options.batch}; lr {options.lr}; kl {options.kl}; seed {options.seed}; images {options.images}"
    work = training.Run(team, options, dict(vae.named_parameters()), set(), identity, clip=1.0)

    def compute_loss(step: int, progress: float) -> tuple[torch.Tensor, str]:
        _, generator = training.generators(options.seed, step, team.rank)
        x = images.batch(CROP if progress < 0.8 else SIDE, options.batch, generator)
        mean, log_variance = vae.encode(x.to(team.device))
        noise = torch.randn(2, *mean.shape, generator=generator).to(team.device)
        strength = LATENT_NOISE * torch.rand(len(x), 1, 1, 1, generator=generator).to(team.device)
        y = vae.decode(mean + (0.5 * log_variance).exp() * noise[0] + strength * noise[1])
        spread = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = reconstruction_loss(y, x.to(team.device), progress) + options.kl * spread
        loss.backward()
        return loss.detach(), f"kl {spread.item():.2f}"

    factor = lambda step, progress: min(1, (step + 1) / 50) * min(1, 1.02 - progress) ** 0.7
    finished = training.train(work, compute_loss, factor)
    if finished and team.rank == 0:
        work.use_average()
        sample = images.batch(SIDE, 256, torch.Generator().manual_seed(2)).to(team.device)
        print(f"PSNR {measure(vae, sample):.2f} dB after {work.step} steps", flush=True)
        write_autoencoder(options.checkpoint, vae.cpu())
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training.add_options(parser, minutes=14, batch=4, lr=2e-3)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=16000, help="drawn before training (default %(default)s)")
    parser.add_argument("--kl", type=float, default=5e-4, help="weight of the latents' distance to a normal distribution (default %(default)s)")
    training.launch(run, parser.parse_args())


if __name__ == "__main__":
    main()
