#!/usr/bin/env python3
"""Trains text encoder and transformer together by flow matching; resumes from the weights of the checkpoint if it has any.

    train.py --checkpoint FOLDER --state FILE [--minutes M | --steps N]

FOLDER needs `tokenizer/` and `vae/`; `text_encoder/` and `transformer/` are written at the end. Stop it with SIGTERM or Ctrl-C and start it
again with the same options: it resumes exactly where it was.
"""

import argparse
import dataclasses
import hashlib
import pathlib
import random

import torch

import training
from checkpoint import read_autoencoder, read_networks, write_frame, write_networks
from networks import PREFIX_TOKENS, Sizes, TextEncoder, denoise, new_transformer, unused_parameters
from images import render
from tokenizer import Prompts
from vae import Autoencoder
from world import NARROW, SIDE, WIDE_MIX, Mix, Request, another_prompt, training_request

EMPTY_SHARE = 0.1  # of the prompts is " ", for guidance
NOISE_BINS = 4
ROWS = SIDE // 16  # of tokens


class Album:
    """A fixed set of images of one width as normalised latent tokens, kept in a file beside the state: drawing them anew takes minutes.

    Each process has its own images.
    """

    def __init__(self, team: training.Team, options: argparse.Namespace, mix: Mix, count: int, vae: Autoencoder):
        weights = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in vae.state_dict().values())).hexdigest()[:16]
        key = f"{mix} seed {options.seed} images {count} process {team.rank} of {team.size} vae {weights}"
        path = options.state.with_name(f"{options.state.name}.album-{mix.width}-{team.rank}")
        stored = torch.load(path, weights_only=True) if path.exists() else None
        if stored is None or stored["key"] != key:
            stored = dict(key=key, **self._draw(f"album/{options.seed}/{team.rank}", count, mix, vae, team.rank == 0))
            if not training.stop_requested():
                training.save_atomically(stored, path)
        training.stop_together(team)
        self.columns = mix.width // 16
        self.requests = [Request(*fields) for fields in stored["requests"]]
        self.tokens: torch.Tensor = stored["tokens"]  # [images, 4·columns, 64] fp16

    @staticmethod
    @torch.no_grad()
    def _draw(seed: str, count: int, mix: Mix, vae: Autoencoder, tell: bool) -> dict:
        rng, requests, tokens = random.Random(seed), [], []
        while len(requests) < count and not training.stop_requested():
            group = [training_request(rng, mix) for _ in range(min(64, count - len(requests)))]
            images = torch.stack([torch.from_numpy(render(asked, rng)) for asked in group]).permute(0, 3, 1, 2)
            tokens.append(vae.tokens((images * 2 - 1).contiguous(memory_format=torch.channels_last)).half())
            requests += [dataclasses.astuple(asked) for asked in group]
            if tell and len(requests) % 2048 == 0:
                print(f"drawing: {len(requests)} of {count} images {mix.width} wide", flush=True)
        return dict(requests=requests, tokens=torch.cat(tokens) if tokens else torch.empty(0))


class FlowMatching:
    """The loss: the velocity (noise − image) of images at random noise levels, text and noise drawn anew at every step."""

    def __init__(self, team: training.Team, options: argparse.Namespace, albums: dict[Album, int], prompts: Prompts,
                 encoder: TextEncoder, transformer):
        """`albums` says how many images of each are in a batch."""
        self.team, self.options, self.albums, self.prompts = team, options, albums, prompts
        self.encoder, self.transformer = encoder, transformer
        self.prefix = torch.tensor(prompts.prefix, device=team.device)
        self.by_noise = torch.zeros(NOISE_BINS)

    def __call__(self, step: int, progress: float) -> tuple[torch.Tensor, str]:
        """Loss of one step, backward pass done; the remark is the running loss by noise level, lowest first."""
        rng, generator = training.generators(self.options.seed, step, self.team.rank)
        total = 0.0
        for album, count in self.albums.items():
            chosen = [rng.randrange(len(album.requests)) for _ in range(count)]
            ids = [
                self.prompts.ids(" " if rng.random() < EMPTY_SHARE else another_prompt(album.requests[i], rng)) for i in chosen]
            noise = torch.randn(count, *album.tokens.shape[1:], generator=generator)
            sigma = torch.sigmoid(torch.randn(count, generator=generator) * self.options.noise_spread + self.options.noise_mean)
            error = self._errors(ids, album.tokens[chosen].float(), noise, sigma, album.columns)
            loss = error.sum() / self.options.batch
            loss.backward()
            total += loss.detach()
            for level, value in zip((sigma * NOISE_BINS).long().clamp(max=NOISE_BINS - 1).tolist(), error.tolist()):
                self.by_noise[level] = self.by_noise[level] * 0.995 + 0.005 * value if self.by_noise[level] else value
        return total, "by noise " + " ".join(f"{value:.3f}" for value in self.by_noise)

    def _errors(self, ids: list[list[int]], clean, noise, sigma, columns: int) -> torch.Tensor:
        """Mean squared error of the velocity of each image [B]."""
        device, longest = self.team.device, max(map(len, ids))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
        mask = torch.tensor([[i < len(row) for i in range(longest)] for row in ids], device=device)
        clean, noise, sigma = clean.to(device), noise.to(device), sigma.to(device)
        level = sigma[:, None, None]
        with torch.autocast(device.type, torch.bfloat16):
            text = self.encoder(self.prefix, tokens)
            velocity = denoise(self.transformer, (1 - level) * clean + level * noise, text, mask, sigma, ROWS, columns)
        return (velocity.float() - (noise - clean)).square().mean((1, 2))


def parameters(encoder: TextEncoder, transformer) -> tuple[dict[str, torch.nn.Parameter], set[str]]:
    """All that is trained, by name; and the names of the hidden matrices, which are Muon's."""
    unused = unused_parameters(transformer)
    named = {"text_encoder." + name: p for name, p in encoder.named_parameters()}
    named |= {"transformer." + name: p for name, p in transformer.named_parameters() if name not in unused}
    hidden = lambda name: ".layers." in name or ".transformer_blocks." in name and "_mod." not in name
    return named, {name for name, p in named.items() if p.dim() == 2 and hidden(name)}


def run(team: training.Team, options: argparse.Namespace) -> bool:
    torch.manual_seed(options.seed)
    prompts, vae = Prompts(options.checkpoint), read_autoencoder(options.checkpoint)
    vae = vae.to(memory_format=torch.channels_last)
    wide = round(options.batch * options.wide)
    albums = {}
    for mix, in_batch in ((NARROW, options.batch - wide), (WIDE_MIX, wide)):
        if in_batch:
            count = round(options.images / team.size * in_batch / options.batch)
            albums[Album(team, options, mix, count, vae)] = in_batch
    if (options.checkpoint / "transformer").exists():
        encoder, transformer, sizes = read_networks(options.checkpoint)
    else:
        sizes = Sizes()
        encoder, transformer = TextEncoder(prompts.vocabulary, sizes), new_transformer(sizes)
    encoder, transformer = encoder.to(team.device), transformer.to(team.device)
    named, matrices = parameters(encoder, transformer)
    identity = (
        f"{sizes}; {NARROW}; {WIDE_MIX}; wide {options.wide}; batch {options.batch}; lr {options.lr}, {options.muon_lr}; "
        f"noise {options.noise_mean}, {options.noise_spread}; seed {options.seed}; images {options.images}")
    work = training.Run(team, options, named, matrices, identity)
    if team.rank == 0:
        print(f"{sum(p.numel() for p in named.values()) / 1e6:.2f} million parameters, {options.images} images, "
              f"{team.size} × {options.batch} samples a step on {team.device}, from step {work.step}", flush=True)
    factor = lambda step, progress: min(1, (step + 1) / options.warmup) * min(1, (1.01 - progress) / options.decay)
    finished = training.train(work, FlowMatching(team, options, albums, prompts, encoder, transformer), factor, options.muon_lr)
    if finished and team.rank == 0:
        work.use_average()
        write_networks(options.checkpoint, encoder.cpu(), transformer.cpu(), sizes)
        write_frame(options.checkpoint)
        print(f"{options.checkpoint}: written after {work.step} steps, {work.seconds / 60:.1f} minutes", flush=True)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training.add_options(parser, minutes=44, batch=64, lr=1e-3)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--muon-lr", type=float, default=0.016, help="Muon's highest rate (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=200, help="steps to the highest rate (default %(default)s)")
    parser.add_argument("--decay", type=float, default=0.45, help="share of the run in which the rate falls to 0 (default %(default)s)")
    parser.add_argument("--noise-mean", type=float, default=0.8, help="of the noise level's logit (default %(default)s)")
    parser.add_argument("--noise-spread", type=float, default=1.2)
    parser.add_argument("--images", type=int, default=48000, help="in the albums (default %(default)s)")
    parser.add_argument("--wide", type=float, default=0.25, help="share of images 128 wide (default %(default)s)")
    training.launch(run, parser.parse_args())


if __name__ == "__main__":
    main()
