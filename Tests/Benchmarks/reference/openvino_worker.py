#!/usr/bin/env python
"""Measures OpenVINO for compare.py: the commands of worker.py, with the same weights and inputs.

    openvino_worker.py [--threads N]        needs the packages of requirements-openvino.txt

Kinds: block, vae. Precisions: fp32; bf16 (the inference precision hint); int8 (8-bit weights by NNCF, one scale per row, which
OpenVINO multiplies by activations that it quantises as they arrive, where it can); int4 (4-bit weights by NNCF, symmetric, one
scale per 32 inputs, multiplied by such activations too).
"""
import argparse
import os
import sys
import time

# NNCF shows its progress on standard output, which belongs to the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import nncf  # noqa: E402
import openvino  # noqa: E402
import torch  # noqa: E402

import worker as reference  # noqa: E402

GROUP = 32


class Block(torch.nn.Module):
    """A block as a function of its two streams; all else is the same in every call."""

    def __init__(self, size):
        super().__init__()
        self.block, arguments, keywords = reference.block_call(size, torch.float32)
        if arguments:
            raise ValueError(f"the transformer calls its blocks with {len(arguments)} arguments without names")
        self.keywords = keywords
        self.inputs = keywords["hidden_states"], keywords["encoder_hidden_states"]

    def forward(self, image, text):
        return self.block(**{**self.keywords, "hidden_states": image, "encoder_hidden_states": text})[1]


class Decoder(torch.nn.Module):
    """The decoder of the autoencoder as a function of latents."""

    def __init__(self, size):
        super().__init__()
        self.vae = reference.make_vae()
        for module in self.vae.modules():
            # Twice the size, both give the same; converters know this one only.
            if getattr(module, "mode", None) == "nearest-exact":
                module.mode = "nearest"
        self.inputs = (reference.latents_of(self.vae, size, 8),)

    def forward(self, latents):
        # [1, 3, 1, H, W] → [H, W, 3], as this project has it.
        return self.vae.decode(latents, return_dict=False)[0][0, :, 0].permute(1, 2, 0)


MODULES = {"block": Block, "vae": Decoder}


def rotated(x, frequencies, use_real=True, use_real_unbind_dim=-1):
    """The rotation of queries and keys by complex numbers, without complex numbers, which converters do not know well."""
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = frequencies.real.unsqueeze(1), frequencies.imag.unsqueeze(1)
    real, imaginary = pairs[..., 0], pairs[..., 1]
    return torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), -1).flatten(3).type_as(x)


def converted(module, precision):
    model = openvino.convert_model(module, example_input=module.inputs)
    model.reshape({port: list(value.shape) for port, value in zip(model.inputs, module.inputs)})
    if precision == "int8":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    if precision == "int4":
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=GROUP, ratio=1.0, all_layers=True)
    return model


class Worker:
    def __init__(self, threads):
        self.threads, self.core, self.cases, self.results, self.modules = threads, openvino.Core(), {}, {}, {}

    def obey(self, words):
        command, *rest = words
        return getattr(self, command)(*rest)

    def case(self, key, kind, size, precision):
        if (kind, size) not in self.modules:
            self.modules[kind, size] = MODULES[kind](int(size)).eval()
        module = self.modules[kind, size]
        settings = {
            "INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
            # Modes with few bits have the other types as the processor does best, as this project's have.
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision in ("int8", "int4") else 0}
        compiled = self.core.compile_model(converted(module, precision), "CPU", settings)
        request = compiled.create_infer_request()
        for index, value in enumerate(module.inputs):
            request.set_input_tensor(index, openvino.Tensor(value.contiguous().numpy()))
        self.cases[key] = request
        return {"precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string()}

    def run(self, key):
        wall, processor = time.perf_counter(), time.process_time()
        self.cases[key].infer()
        return {"wall": time.perf_counter() - wall, "processor": (time.process_time() - processor) / self.threads}

    def keep(self, key, path):
        """Writes what the last run has made as fp32."""
        self.cases[key].get_output_tensor(0).data.astype("float32").tofile(path)
        return {}

    def memory(self):
        return {"peak": reference.peak_resident_bytes()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    import diffusers
    from diffusers.models.transformers import transformer_qwenimage
    diffusers.utils.logging.disable_progress_bar()
    transformer_qwenimage.apply_rotary_emb_qwen = rotated
    worker = Worker(threads)
    reference.serve(worker, {"openvino": openvino.__version__, "nncf": nncf.__version__, "threads": threads}, ANSWERS)


if __name__ == "__main__":
    main()
