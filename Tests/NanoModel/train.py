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

import numpy as np
import torch

import training
from checkpoint import read_autoencoder, read_networks, write_frame, write_networks
from edits import OPERATIONS, SHARES, Edit, damage_size, family, instruction, operation_between
from networks import Sizes, TextEncoder, VisionTower, denoise, new_transformer, patches_of, unused_parameters
from images import blend, damage, mask, placement, render, shade, shown
from tokenizer import Prompts
from vae import Autoencoder
from world import COLOURS, NARROW, SIDE, WIDE_MIX, Mix, Request, another_prompt, training_request

EMPTY_SHARE = 0.1  # of the prompts is " ", for guidance
EDIT_TEMPLATE_SHARE = 0.25  # of the steps edit with the words of "edit" instead of those of "edit-plus"
FLAT_POSITIONS_SHARE = 0.25  # of the steps number an image's tokens like text, as diffusers with transformers 5 does
NOISE_BINS = 4
ROWS = SIDE // 16  # of tokens


def _digest(vae: Autoencoder) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in vae.state_dict().values())).hexdigest()[:16]


class Album:
    """A fixed set of images of one width as normalised latent tokens, kept in a file beside the state: drawing them anew takes minutes.

    Each process has its own images.
    """

    def __init__(self, team: training.Team, options: argparse.Namespace, mix: Mix, count: int, vae: Autoencoder):
        key = f"{mix} seed {options.seed} images {count} process {team.rank} of {team.size} vae {_digest(vae)}"
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


class EditAlbum:
    """A fixed set of families of images (`edits.family`) and of the edits that lead from one to another; not those that are held out.

    Half of the images that are edited went through the autoencoder once before, as what the model draws does.
    """

    def __init__(self, team: training.Team, options: argparse.Namespace, count: int, vae: Autoencoder):
        """`count` families."""
        key = f"{count} families {list(OPERATIONS)} seed {options.seed} process {team.rank} of {team.size} vae {_digest(vae)}"
        path = options.state.with_name(f"{options.state.name}.edits-{team.rank}")
        stored = torch.load(path, weights_only=True) if path.exists() else None
        if stored is None or stored["key"] != key:
            stored = dict(key=key, **self._draw(f"edits/{options.seed}/{team.rank}", count, vae, team.rank == 0))
            if not training.stop_requested():
                training.save_atomically(stored, path)
        training.stop_together(team)
        self.scenes = [Request(*fields) for fields in stored["scenes"]]
        self.damaged = set(stored["damaged"])
        self.edits: dict[str, list[tuple[int, int]]] = {name: [] for name in SHARES}
        for operation, pairs in stored["edits"].items():
            for before, after in pairs:
                single = operation == "letter" and len(self.scenes[before].content) == 1
                self.edits["character" if single else operation].append((before, after))
        # Normalised latent tokens [images, 16, 64] fp16 of the images as they are, and as they are when edited.
        self.tokens, self.sources = stored["tokens"], stored["sources"]
        self.shown: torch.Tensor = stored["shown"]  # [images, 56, 56, 3] uint8: the latter, for the vision tower

    @classmethod
    def _draw(cls, seed: str, count: int, vae: Autoencoder, tell: bool) -> dict:
        rng = random.Random(seed)
        scenes: list[Request] = []
        damaged: list[int] = []
        edits = {operation: [] for operation in OPERATIONS}
        parts: list[tuple[torch.Tensor, ...]] = []
        for first in range(0, count, 16):
            images = []
            for _ in range(min(16, count - first)):
                images += cls._family(rng, scenes, edits, damaged)
            parts.append(cls._encoded(torch.from_numpy(np.stack(images)), vae, rng))
            if tell and first % 256 == 0:
                print(f"drawing: {first} of {count} families of images to edit", flush=True)
            if training.stop_requested():
                break
        tokens, sources, views = (torch.cat(column) for column in zip(*parts))
        return dict(
            scenes=[dataclasses.astuple(scene) for scene in scenes], damaged=damaged, edits=edits, tokens=tokens.half(),
            sources=sources.half(), shown=views)

    @staticmethod
    def _family(
            rng: random.Random, all_scenes: list[Request], edits: dict[str, list[tuple[int, int]]], damaged: list[int]
    ) -> list[np.ndarray]:
        """Adds the scenes and edits of one family, by their places among `all_scenes`; returns its images."""
        scenes, base = family(rng), len(all_scenes)
        first = scenes[0]
        place = placement(first, rng)
        colours = {first.foreground: shade(first.foreground, rng, 9), first.background: shade(first.background, rng, 9)}
        colour = lambda name: colours.get(name, np.array(COLOURS[name][1]) / 255)
        images = [
            blend(mask(scene, place if scene.position == first.position else None), colour(scene.background), colour(scene.foreground))
            for scene in scenes]
        for i, before in enumerate(scenes):
            for j, after in enumerate(scenes):
                operation = operation_between(before, after) if i != j else None
                if operation and not Edit(operation, before, after).is_held_out:
                    edits[operation].append((base + i, base + j))
        hidden = rng.randrange(len(scenes))
        all_scenes += scenes
        if scenes[hidden].content and not Edit("restore", scenes[hidden], scenes[hidden]).is_held_out:
            damaged.append(len(all_scenes))
            for operation in ("restore", "describe"):
                edits[operation].append((len(all_scenes), base + hidden))
            all_scenes.append(scenes[hidden])
            images.append(damage(images[hidden], damage_size(scenes[hidden]), rng))
        return images

    @staticmethod
    @torch.no_grad()
    def _encoded(images: torch.Tensor, vae: Autoencoder, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens of images [N, 64, 64, 3] as targets and as what is edited, and what the vision tower sees of the latter."""
        encode = lambda x: vae.tokens((x.permute(0, 3, 1, 2) * 2 - 1).contiguous(memory_format=torch.channels_last))
        tokens = encode(images)
        again = torch.tensor(rng.sample(range(len(images)), len(images) // 2))
        edited = images.clone()
        edited[again] = ((vae.images(tokens[again], ROWS, ROWS) + 1) * 127.5).round().div(255).permute(0, 2, 3, 1)
        sources = tokens.clone()
        sources[again] = encode(edited[again])
        return tokens, sources, torch.from_numpy(np.stack([shown(image.numpy()) for image in edited]))

    def draw(self, count: int, rng: random.Random) -> list[tuple[int, int, str]]:
        """Images before and after, and the words that ask for the change."""
        result, shares = [], {name: share for name, share in SHARES.items() if self.edits[name]}
        for name in rng.choices(list(shares), list(shares.values()), k=count):
            before, after = rng.choice(self.edits[name])
            operation = "letter" if name == "character" else name
            prompt = instruction(Edit(operation, self.scenes[before], self.scenes[after], before in self.damaged), rng)
            result.append((before, after, prompt))
        return result


class FlowMatching:
    """The loss: the velocity (noise − image) of images at random noise levels, text and noise drawn anew at every step."""

    def __init__(self, team: training.Team, options: argparse.Namespace, albums: dict[Album, int], edits: tuple[EditAlbum, int] | None,
                 prompts: Prompts, encoder: TextEncoder, tower: VisionTower, transformer):
        """`albums` says how many images of each are in a batch, and so does `edits`."""
        self.team, self.options, self.albums, self.edits, self.prompts = team, options, albums, edits, prompts
        self.encoder, self.tower, self.transformer = encoder, tower, transformer
        self.prefix, self.edit_prefix = (torch.tensor(ids, device=team.device) for ids in (prompts.prefix, prompts.edit_prefix))
        self.by_noise, self.of_edits = torch.zeros(NOISE_BINS), 0.0

    def __call__(self, step: int, progress: float) -> tuple[torch.Tensor, str]:
        """Loss of one step, backward pass done; the remark is the running loss by noise level, lowest first."""
        rng, generator = training.generators(self.options.seed, step, self.team.rank)
        total = 0.0
        for album, count in self.albums.items():
            chosen = [rng.randrange(len(album.requests)) for _ in range(count)]
            ids = [
                self.prompts.ids(" " if rng.random() < EMPTY_SHARE else another_prompt(album.requests[i], rng)) for i in chosen]
            noise, sigma = self._noise(count, album.tokens, generator)
            error = self._errors(ids, album.tokens[chosen].float(), noise, sigma, album.columns)
            loss = error.sum() / self.options.batch
            loss.backward()
            total += loss.detach()
            for level, value in zip((sigma * NOISE_BINS).long().clamp(max=NOISE_BINS - 1).tolist(), error.tolist()):
                self.by_noise[level] = self.by_noise[level] * 0.995 + 0.005 * value if self.by_noise[level] else value
        remark = "by noise " + " ".join(f"{value:.3f}" for value in self.by_noise)
        if self.edits:
            loss = self._edit_errors(*self.edits, rng, generator).sum() / self.options.batch
            loss.backward()
            total += loss.detach()
            value = loss.item() * self.options.batch / self.edits[1]
            self.of_edits = self.of_edits * 0.99 + 0.01 * value if self.of_edits else value
            remark += f" edits {self.of_edits:.3f}"
        return total, remark

    def _noise(self, count: int, tokens: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise shaped as `count` of `tokens`, and noise levels."""
        noise = torch.randn(count, *tokens.shape[1:], generator=generator)
        return noise, torch.sigmoid(torch.randn(count, generator=generator) * self.options.noise_spread + self.options.noise_mean)

    def _edit_errors(self, album: EditAlbum, count: int, rng: random.Random, generator: torch.Generator) -> torch.Tensor:
        drawn = album.draw(count, rng)
        pipeline = "edit" if rng.random() < EDIT_TEMPLATE_SHARE else "edit-plus"
        ids = [self.prompts.edit_ids(" " if rng.random() < EMPTY_SHARE else prompt, pipeline) for _, _, prompt in drawn]
        before, after = ([pair[i] for pair in drawn] for i in (0, 1))
        noise, sigma = self._noise(count, album.tokens, generator)
        views = album.shown[before].to(self.team.device)
        image = ids[0].index(self.prompts.image_pad), views, rng.random() >= FLAT_POSITIONS_SHARE
        return self._errors(ids, album.tokens[after].float(), noise, sigma, ROWS, album.sources[before].float(), image)

    def _errors(self, ids: list[list[int]], clean, noise, sigma, columns: int, reference=None, image=None) -> torch.Tensor:
        """Mean squared error of the velocity of each image [B].

        `reference` are the tokens of the images that are edited; `image` where the prompts have them, how they look, and whether their
        tokens have positions in two dimensions.
        """
        device, longest = self.team.device, max(map(len, ids))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
        mask = torch.tensor([[i < len(row) for i in range(longest)] for row in ids], device=device)
        clean, noise, sigma = clean.to(device), noise.to(device), sigma.to(device)
        level = sigma[:, None, None]
        with torch.autocast(device.type, torch.bfloat16):
            if image is not None:
                reference, image = reference.to(device), (image[0], self.tower(patches_of(image[1])), image[2])
            text = self.encoder(self.prefix if image is None else self.edit_prefix, tokens, image)
            velocity = denoise(self.transformer, (1 - level) * clean + level * noise, text, mask, sigma, ROWS, columns, reference)
        return (velocity.float() - (noise - clean)).square().mean((1, 2))


def parameters(encoder: TextEncoder, tower: VisionTower | None, transformer) -> tuple[dict[str, torch.nn.Parameter], set[str]]:
    """All that is trained, by name; and the names of the hidden matrices, which are Muon's."""
    unused = unused_parameters(transformer)
    named = {"text_encoder." + name: p for name, p in encoder.named_parameters()}
    if tower is not None:
        named |= {"vision." + name: p for name, p in tower.named_parameters()}
    named |= {"transformer." + name: p for name, p in transformer.named_parameters() if name not in unused}
    hidden = lambda name: ".layers." in name or ".transformer_blocks." in name and "_mod." not in name
    return named, {name for name, p in named.items() if p.dim() == 2 and hidden(name)}


def run(team: training.Team, options: argparse.Namespace) -> bool:
    torch.manual_seed(options.seed)
    prompts, vae = Prompts(options.checkpoint), read_autoencoder(options.checkpoint)
    vae = vae.to(memory_format=torch.channels_last)
    editing = round(options.batch * options.edits)
    wide = round((options.batch - editing) * options.wide)
    albums = {}
    for mix, in_batch in ((NARROW, options.batch - editing - wide), (WIDE_MIX, wide)):
        if in_batch:
            count = round(options.images / team.size * in_batch / (options.batch - editing))
            albums[Album(team, options, mix, count, vae)] = in_batch
    if (options.checkpoint / "transformer").exists():
        encoder, tower, transformer, sizes = read_networks(options.checkpoint)
    else:
        sizes = Sizes()
        encoder, tower, transformer = TextEncoder(prompts.vocabulary, sizes), VisionTower(sizes), new_transformer(sizes)
    encoder, tower, transformer = encoder.to(team.device), tower.to(team.device), transformer.to(team.device)
    edits = (EditAlbum(team, options, round(options.families / team.size), vae), editing) if editing else None
    named, matrices = parameters(encoder, tower if editing else None, transformer)
    identity = (
        f"{sizes}; {NARROW}; {WIDE_MIX}; wide {options.wide}; edits {options.edits} of {options.families}; batch {options.batch}; lr {options.lr}, {options.muon_lr}; "
        f"noise {options.noise_mean}, {options.noise_spread}; seed {options.seed}; images {options.images}")
    work = training.Run(team, options, named, matrices, identity)
    if team.rank == 0:
        print(f"{sum(p.numel() for p in named.values()) / 1e6:.2f} million parameters, {options.images} images, "
              f"{team.size} × {options.batch} samples a step on {team.device}, from step {work.step}", flush=True)
    factor = lambda step, progress: min(1, (step + 1) / options.warmup) * min(1, (1.01 - progress) / options.decay)
    finished = training.train(work, FlowMatching(team, options, albums, edits, prompts, encoder, tower, transformer), factor, options.muon_lr)
    if finished and team.rank == 0:
        work.use_average()
        write_networks(options.checkpoint, encoder.cpu(), tower.cpu(), transformer.cpu(), sizes)
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
    parser.add_argument("--edits", type=float, default=0.6, help="share of edits in a batch (default %(default)s)")
    parser.add_argument("--families", type=int, default=6000, help="of images that are edited (default %(default)s)")
    training.launch(run, parser.parse_args())


if __name__ == "__main__":
    main()
