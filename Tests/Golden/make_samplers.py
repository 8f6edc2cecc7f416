#!/usr/bin/env python
"""Trajectories of public samplers on an analytic flow model, and noise levels of public schedules.

    make_samplers.py OUT.json

Needs torch, diffusers and scipy. The model is a mixture of two normal distributions in every number, whose velocity is
known exactly (`velocity`). Euler, Heun, DPM-Solver++ (2M, with and without noise) and UniPC are run by diffusers; er_sde and
res_multistep, of which no package was found on PyPI, are the formulas of arXiv 2309.06169 and 2308.02157 in double precision,
with the choices of ComfyUI: 200 points of integration, a noise scale of l (exp(l^0.3) + 10), -log sigma as time.
The levels are ComfyUI's formulas before the shift, and the quantiles scipy's.
"""
import json
import sys

import diffusers
import numpy as np
import scipy
import scipy.stats
import torch
from diffusers import (DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler,
                       UniPCMultistepScheduler)

CENTRE, WIDTH = 1.2, 0.3
SHAPE = (4, 8)
SEED = 0x1_2345_6789
# Pure noise first, as text-to-image, or an image with noise, as image-to-image.
STARTS = {"noise": 1.0, "image": 0.8125}
STEPS = [1, 2, 3, 5, 8, 20]
SHIFT = 2.5


def levels(steps, start):
    even = start * (1 - np.arange(steps) / steps)
    return (SHIFT * even / (1 + (SHIFT - 1) * even)).astype(np.float32).astype(np.float64)


def denoised(x, sigma):
    alpha = 1 - sigma
    variance = alpha**2 * WIDTH**2 + sigma**2
    mean = CENTRE * np.tanh(alpha * CENTRE * x / variance)
    return mean + WIDTH**2 * alpha / variance * (x - alpha * mean)


def velocity(x, sigma):
    return (x - denoised(x, sigma)) / sigma


def start(sigma):
    noise = torch.randn(SHAPE, generator=torch.Generator("cpu").manual_seed(11)).numpy()
    return (sigma * noise + (1 - sigma) * CENTRE).astype(np.float32)


def step_noise(step):
    """Normal numbers of a torch generator whose seed is SplitMix64's output function of (seed, step + 1)."""
    mask = 2**64 - 1
    z = ((SEED & 0xFFFFFFFF) << 32 | step + 1) & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return torch.randn(SHAPE, generator=torch.Generator("cpu").manual_seed((z ^ z >> 31) >> 32))


def by_diffusers(scheduler, sigmas, noisy=False):
    steps = len(sigmas)
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float32)
    scheduler.timesteps = torch.tensor(sigmas * 1000)
    scheduler.set_begin_index(0)
    x, states = torch.from_numpy(start(sigmas[0])), []
    for i, sigma in enumerate(sigmas):
        v = torch.from_numpy(velocity(x.numpy().astype(np.float64), sigma)).float()
        extra = {"variance_noise": step_noise(i)} if noisy else {}
        x = scheduler.step(v, scheduler.timesteps[i], x, return_dict=False, **extra)[0]
        states.append(x.numpy())
    return states


def heun(sigmas):
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(len(sigmas))
    doubled = torch.tensor(sigmas, dtype=torch.float32)
    scheduler.sigmas = torch.cat([doubled[:1], doubled[1:].repeat_interleave(2), torch.zeros(1)])
    scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    scheduler.set_begin_index(0)
    x, states = torch.from_numpy(start(sigmas[0])), []
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas):
        v = torch.from_numpy(velocity(x.numpy().astype(np.float64), sigma.item())).float()
        x = scheduler.step(v, timestep, x, return_dict=False)[0]
        if scheduler.state_in_first_order:
            states.append(x.numpy())
    return [*states, x.numpy()] if len(states) < len(sigmas) else states


def er_sde(sigmas):
    def scale(l):
        return l * (np.exp(l**0.3) + 10)

    sigmas = np.array([*sigmas, 0.0])
    x, states = start(sigmas[0]).astype(np.float64), []
    ratios = [np.inf if sigma == 1 else sigma / (1 - sigma) for sigma in sigmas]
    clean, slopes = [], []
    for i in range(len(sigmas) - 1):
        clean.append(denoised(x, sigmas[i]))
        a, b, alpha = ratios[i], ratios[i + 1], 1 - sigmas[i + 1]
        if i > 0:
            slopes.append(0 * x if ratios[i - 1] == np.inf else (clean[i] - clean[i - 1]) / (a - ratios[i - 1]))
        if b == 0:
            x = clean[i]
        elif a == np.inf:
            x = alpha * clean[i] + alpha * b * step_noise(i).numpy()
        else:
            shrink = scale(b) / scale(a)
            new = alpha / (1 - sigmas[i]) * shrink * x + alpha * (1 - shrink) * clean[i]
            if i > 0:
                width = (a - b) / 200
                points = b + np.arange(200) * width
                new += alpha * ((b - a) + scale(b) * (1 / scale(points)).sum() * width) * slopes[-1]
                if i > 1 and ratios[i - 2] != np.inf:
                    second = (slopes[-1] - slopes[-2]) / ((a - ratios[i - 2]) / 2)
                    linear = ((points - a) / scale(points)).sum() * width
                    new += alpha * ((b - a)**2 / 2 + scale(b) * linear) * second
            x = new + alpha * np.sqrt(b**2 - a**2 * shrink**2) * step_noise(i).numpy()
        states.append(x)
    return states


def res_multistep(sigmas):
    sigmas = np.array([*sigmas, 0.0])
    x, states, before = start(sigmas[0]).astype(np.float64), [], None
    for i in range(len(sigmas) - 1):
        clean = denoised(x, sigmas[i])
        if before is None or sigmas[i + 1] == 0:
            x = x + (sigmas[i + 1] - sigmas[i]) * (x - clean) / sigmas[i]
        else:
            times = -np.log(sigmas[i - 1:i + 2])
            h = times[2] - times[1]
            c = (times[0] - times[1]) / h
            phi1 = np.expm1(-h) / -h
            phi2 = (phi1 - 1) / -h
            x = np.exp(-h) * x + h * ((phi1 - phi2 / c) * clean + phi2 / c * before)
        before = clean
        states.append(x)
    return states


SAMPLERS = {
    "euler": lambda s: by_diffusers(FlowMatchEulerDiscreteScheduler(), s),
    "heun": heun,
    "dpmpp_2m": lambda s: by_diffusers(
        DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++", solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True), s),
    "dpmpp_2m_sde": lambda s: by_diffusers(
        DPMSolverMultistepScheduler(
            algorithm_type="sde-dpmsolver++", solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True),
        s, noisy=True),
    "er_sde": er_sde,
    "res_multistep": res_multistep,
    "unipc": lambda s: by_diffusers(
        UniPCMultistepScheduler(solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True), s),
}


def schedules(steps):
    grid = (1 + np.arange(1000)) / 1000
    quantiles = scipy.stats.beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), 0.6, 0.6)
    return {
        "linear": 1 - np.arange(steps) / steps,
        "simple": grid[[-(1 + int(i * (len(grid) / steps))) for i in range(steps)]],
        "sgm_uniform": np.linspace(1, grid[0], steps + 1)[:-1],
        "beta": grid[np.rint(quantiles * 999).astype(int)],
    }


def main(out):
    cases = []
    for kind, first in STARTS.items():
        for steps in STEPS:
            sigmas = levels(steps, first)
            for name, run in SAMPLERS.items():
                # The reference divides infinities where UniPC's second correction follows pure noise.
                if name == "unipc" and kind == "noise" and steps > 2:
                    continue
                states = [np.asarray(state, np.float64) for state in run(sigmas)]
                assert len(states) == steps and all(np.isfinite(state).all() for state in states), (name, kind, steps)
                cases.append({
                    "sampler": name, "start": kind, "sigmas": sigmas.tolist(),
                    "latents": np.asarray(start(sigmas[0]), np.float64).ravel().tolist(),
                    "states": [[float(f"{value:.9g}") for value in state.ravel()] for state in states],
                })
    points = [0.0, 1e-12, 1e-6, 0.001, 0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99, 0.999, 1 - 1e-6, 1.0]
    document = {
        "versions": {"diffusers": diffusers.__version__, "scipy": scipy.__version__, "torch": torch.__version__},
        "model": {"centre": CENTRE, "width": WIDTH}, "seed": SEED, "shape": list(SHAPE),
        "cases": cases,
        "quantiles": [[p, float(scipy.stats.beta.ppf(p, 0.6, 0.6))] for p in points],
        "cumulative": [[x, float(scipy.stats.beta.cdf(x, 0.6, 0.6))] for x in points],
        "schedules": [{"steps": steps, **{name: list(map(float, values)) for name, values in schedules(steps).items()}}
                      for steps in [1, 2, 3, 4, 7, 8, 20, 30, 50, 100]],
    }
    with open(out, "w") as file:
        json.dump(document, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
