"""What every training run here shares: processes, optimizers, averaged weights, and a state on disk that is resumed exactly.

A run is a number of steps. What step k sees (images, prompts, noise) is drawn from generators seeded with k, so that the position in
the data is the step itself and a resumed run gives the same bits as one that never stopped. `resume_test.py` proves it.
"""

import argparse
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed
import torch.multiprocessing

STOPPED = 143  # exit status of a run that a signal ended; its state is saved


@dataclass(frozen=True)
class Team:
    """The processes of a run: on small CPUs several single-threaded ones are faster than one with threads; a GPU needs one."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up `tensor` over the processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor


class Stopped(Exception):
    """A signal asked the run to stop before its first step."""


def stop_together(team: Team) -> None:
    """Raises `Stopped` in all processes when any was asked to stop; every process must call it."""
    if team.sum_(torch.tensor([float(_stop_requested)], device=team.device)).item():
        raise Stopped


def stop_requested() -> bool:
    return _stop_requested


def add_options(parser: argparse.ArgumentParser, minutes: float, batch: int, lr: float) -> None:
    """The options that all runs have."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=minutes,
                        help="length of the run in minutes of work; on a CPU of processor time, however busy the machine is (default %(default)s)")
    length.add_argument("--steps", type=int, default=0, help="length of the run in steps: the same result on every run of one machine")
    parser.add_argument("--state", type=pathlib.Path, required=True, help="file to save to, and to resume from when it exists")
    parser.add_argument("--save-seconds", type=float, default=120, help="time between two saves (default %(default)s)")
    parser.add_argument("--log-seconds", type=float, default=20, help="time between two lines of progress (default %(default)s)")
    parser.add_argument("--batch", type=int, default=batch, help="samples of a step in each process (default %(default)s)")
    parser.add_argument("--lr", type=float, default=lr, help="AdamW's highest rate (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0, help="0: one per processor on a CPU, one on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")


_stop_requested = False


def _request_stop(*_):
    global _stop_requested
    _stop_requested = True


def _work(rank: int, size: int, store: str, run: Callable, options: argparse.Namespace) -> bool:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request_stop)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        finished = run(Team(rank, size, device), options)
    except Stopped:
        finished = False
    if size > 1:
        torch.distributed.destroy_process_group()
    return finished


def launch(run: Callable[[Team, argparse.Namespace], bool], options: argparse.Namespace) -> None:
    """Calls `run` in each process; ends this one with status 0 when it is done, `STOPPED` when SIGTERM or SIGINT stopped it."""
    size = options.processes or (1 if options.device != "cpu" else len(os.sched_getaffinity(0)))
    options.state.parent.mkdir(parents=True, exist_ok=True)
    if size == 1:
        sys.exit(0 if _work(0, 1, "", run, options) else STOPPED)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        workers = torch.multiprocessing.spawn(_work, (size, f"{folder}/store", run, options), size, join=False)

        def forward(*_):
            _request_stop()
            for process in workers.processes:
                if process.is_alive():
                    process.terminate()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, forward)
        while not workers.join():
            pass
    sys.exit(STOPPED if _stop_requested else 0)


def save_atomically(value: dict, path: pathlib.Path) -> None:
    """Writes `value` so that `path` holds either the old or the new state, never a part of one."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def generators(*key) -> tuple[random.Random, torch.Generator]:
    """Generators for Python's and torch's random numbers that depend on `key` alone."""
    own = random.Random("/".join(map(str, key)))
    return own, torch.Generator().manual_seed(own.getrandbits(63))


class Muon:
    """Momentum orthogonalised by five Newton–Schulz iterations, for hidden matrices; matrices of one shape are shared out over the team."""

    def __init__(self, matrices: list[torch.nn.Parameter], team: Team):
        self.team, self.groups = team, {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.momentum = {shape: torch.zeros(len(group), *shape, device=team.device) for shape, group in self.groups.items()}

    @staticmethod
    def _orthogonal(x: torch.Tensor) -> torch.Tensor:
        tall = x.shape[1] > x.shape[2]
        x = (x.mT if tall else x).bfloat16()
        x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
        return (x.mT if tall else x).float()

    @torch.no_grad()
    def step(self, lr: float, decay: float = 0.01, momentum: float = 0.95) -> None:
        updates = []
        for shape, group in self.groups.items():
            gradient = torch.stack([matrix.grad for matrix in group])
            self.momentum[shape].lerp_(gradient, 1 - momentum)
            share = -(-len(group) // self.team.size)
            own = slice(self.team.rank * share, (self.team.rank + 1) * share)
            update = torch.zeros(share * self.team.size, *shape, device=gradient.device)
            mine = gradient[own].lerp(self.momentum[shape][own], momentum)
            if len(mine):
                update[own][: len(mine)] = self._orthogonal(mine)
            updates.append(update)
        flat = self.team.sum_(torch.cat([update.flatten() for update in updates]))
        for (shape, group), update in zip(self.groups.items(), flat.split([update.numel() for update in updates])):
            for matrix, delta in zip(group, update.view(-1, *shape)):
                matrix.mul_(1 - lr * decay).add_(delta, alpha=-lr * max(1, shape[0] / shape[1]) ** 0.5)


class Run:
    """The weights, their running average, the optimizers and the position of one training run."""

    def __init__(self, team: Team, options: argparse.Namespace, named: dict[str, torch.nn.Parameter], matrices: set[str], identity: str,
                 average: float = 0.996, clip: float = 0.0):
        """`matrices` names the parameters that Muon moves; the rest is AdamW's. `identity` must be the same when a state is resumed."""
        self.team, self.options, self.named, self.identity = team, options, named, f"{identity}; processes {team.size}"
        self.decay, self.clip = average, clip
        self.parameters = list(named.values())
        self.muon = Muon([p for name, p in named.items() if name in matrices], team) if matrices else None
        self.adam = torch.optim.AdamW(
            [p for name, p in named.items() if name not in matrices], options.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.progress, self.seconds, self.stop = 0, 0.0, 0.0, False
        if options.state.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.options.state, map_location=self.team.device, weights_only=True)
        if state["identity"] != self.identity:
            raise SystemExit(f"{self.options.state}: state of another run ({state['identity']}), not of this one ({self.identity})")
        with torch.no_grad():
            for name, parameter, average in zip(self.named, self.parameters, self.average):
                parameter.copy_(state["weights"][name])
                average.copy_(state["average"][name])
        self.adam.load_state_dict(state["adam"])
        if self.muon:
            self.muon.momentum = state["muon"]
        self.step, self.progress, self.seconds = state["step"], state["progress"], state["seconds"]

    def save(self) -> None:
        """Saves everything that the next step depends on. Only the first process writes."""
        if self.team.rank == 0:
            names = list(self.named)
            save_atomically(
                dict(identity=self.identity, step=self.step, progress=self.progress, seconds=self.seconds,
                     weights=dict(zip(names, [p.detach() for p in self.parameters])), average=dict(zip(names, self.average)),
                     adam=self.adam.state_dict(), muon=self.muon.momentum if self.muon else {}),
                self.options.state)

    @property
    def finished(self) -> bool:
        return self.progress >= 1

    def advance(self, factor: float, muon_lr: float, seconds: float) -> None:
        """Ends a step: averages the gradients, moves the weights at `factor` times their rates, and counts `seconds` of work."""
        self._share_gradients(seconds)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.adam.param_groups:
            group["lr"] = self.options.lr * factor
        self.adam.step()
        if self.muon:
            self.muon.step(muon_lr * factor)
        self.step += 1
        total = self.options.steps
        self.progress = self.step / total if total else self.seconds / 60 / self.options.minutes
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - min(self.decay, self.step / (self.step + 20)))

    def _share_gradients(self, seconds: float) -> None:
        """Also agrees on the clock (the first process's) and on whether to stop (any process's)."""
        news = torch.tensor([seconds if self.team.rank == 0 else 0.0, float(_stop_requested)], device=self.team.device)
        if self.team.size > 1:
            flat = self.team.sum_(torch.cat([p.grad.flatten() for p in self.parameters] + [news]))
            news = flat[-2:]
            for p, gradient in zip(self.parameters, flat.split([p.numel() for p in self.parameters] + [2])):
                p.grad.copy_(gradient.view_as(p)).div_(self.team.size)
        self.seconds += news[0].item()
        self.stop = news[1].item() > 0

    @torch.no_grad()
    def use_average(self) -> None:
        """Puts the averaged weights into the networks; the run is over."""
        for parameter, average in zip(self.parameters, self.average):
            parameter.copy_(average)


def train(run: Run, compute_loss: Callable[[int, float], tuple[torch.Tensor, str]], factor: Callable[[int, float], float],
          muon_lr: float = 0.0) -> bool:
    """Runs steps until the end or a signal. Returns whether the run is finished; its state is saved in both cases.

    `compute_loss(step, progress)` gives this process's loss, backward pass done, and a remark for the log; `factor(step, progress)`
    the share of the highest learning rates.
    """
    leader, began = run.team.rank == 0, time.monotonic()
    worked = time.process_time if run.team.device.type == "cpu" else time.monotonic
    logged = saved = began
    last, first = worked(), run.step
    while not run.finished and not run.stop:
        progress = run.progress
        for parameter in run.parameters:
            parameter.grad = None
        loss, remark = compute_loss(run.step, progress)
        done = worked()
        run.advance(factor(run.step, progress), muon_lr, done - last)
        last, now = done, time.monotonic()
        if leader and (now - logged > run.options.log_seconds or run.finished or run.stop):
            _log(run, first, now - began, float(loss), remark)
            logged = now
        if leader and now - saved > run.options.save_seconds:
            run.save()
            saved = now
    run.save()
    return run.finished


def _log(run: Run, first: int, seconds: float, loss: float, remark: str) -> None:
    rate = (run.step - first) / max(seconds, 1e-6)
    if run.options.steps:
        left = (run.options.steps - run.step) / max(rate, 1e-6) / 60
    else:
        left = run.options.minutes - run.seconds / 60
    samples = run.options.batch * run.team.size
    print(
        f"step {run.step}  {run.progress:6.1%}  {run.step * samples} samples  {rate * samples:.0f}/s  {max(left, 0):.1f} min left  "
        f"loss {loss:.4f}  {remark}", flush=True)
