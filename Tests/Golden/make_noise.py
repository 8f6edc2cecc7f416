#!/usr/bin/env python
"""Normal numbers of torch CPU generators (torch 2.13).

    make_noise.py OUT.safetensors

Tensor "SEED.COUNT" is torch.randn(COUNT) of a new generator with that seed; "SEED.sequence.K" is the K-th of several draws from one generator.
"""
import sys

import torch
from safetensors.torch import save_file

SEEDS = [0, 1, 42, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 123456789012345, 2**63 - 1, 2**63, 2**64 - 1]
COUNTS = [1, 2, 3, 7, 15, 16, 17, 24, 31, 32, 33, 100, 625, 1003]
SEQUENCE = [3, 16, 2, 33, 1, 1, 15, 4, 40, 5]


def main(out):
    tensors = {}
    for seed in SEEDS:
        for count in COUNTS:
            tensors[f"{seed}.{count}"] = torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed))
        generator = torch.Generator("cpu").manual_seed(seed)
        for k, count in enumerate(SEQUENCE):
            tensors[f"{seed}.sequence.{k}"] = torch.randn(count, generator=generator)
    tensors["7.65536"] = torch.randn(65536, generator=torch.Generator("cpu").manual_seed(7))
    save_file(tensors, out, metadata={"torch": torch.__version__})


if __name__ == "__main__":
    main(sys.argv[1])
