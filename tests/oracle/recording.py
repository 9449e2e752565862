"""Tensors of one oracle file: collected, written, compared with the file of before."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = Path(__file__).parent


def f32(value):
    """Rounds a Python number to the nearest float32, still as a Python float."""
    return float(np.float32(value))


def f16(tensor):
    """The nearest values that float16 holds, in the tensor's own type: what an input is made of."""
    return tensor.half().to(tensor.dtype)


class Recording:
    """Named tensors and JSON metadata."""

    def __init__(self):
        self.tensors, self.metadata = {}, {}

    def inputs(self, prefix="", **tensors):
        """Adds tensors as `prefix.name`: integers, or values that float16 holds."""
        for name, tensor in tensors.items():
            tensor = tensor.detach()
            assert torch.equal(tensor, f16(tensor)) or not tensor.is_floating_point(), name
            self.add(prefix, name, tensor.half() if tensor.is_floating_point() else tensor)

    def outputs(self, prefix="", **tensors):
        """Adds tensors as `prefix.name`: integers, or float64 results, rounded to float32."""
        for name, tensor in tensors.items():
            tensor = tensor.detach()
            assert tensor.dtype == torch.float64 or not tensor.is_floating_point(), name
            self.add(prefix, name, tensor.float() if tensor.is_floating_point() else tensor)

    def add(self, prefix, name, tensor):
        key = f"{prefix}.{name}" if prefix else name
        assert key not in self.tensors, key
        assert tensor.isfinite().all(), key
        self.tensors[key] = tensor.contiguous().numpy().copy()

    def describe(self, **values):
        """Adds metadata, each value as JSON."""
        self.metadata |= {key: json.dumps(value) for key, value in values.items()}

    def write(self, name):
        save_file(self.tensors, HERE / f"{name}.safetensors", self.metadata)

    def differences(self, name, rtol=1e-6):
        """What is not as in the file, one line each; `rtol` is relative to a tensor's largest magnitude."""
        with safe_open(HERE / f"{name}.safetensors", "numpy") as file:
            before = {key: file.get_tensor(key) for key in file.keys()}
            metadata = file.metadata() or {}
        for key in sorted(metadata.keys() | self.metadata.keys()):
            # The float32 run's own error depends on the machine.
            if key != "float32_error" and metadata.get(key) != self.metadata.get(key):
                yield f"{name}: metadata {key}"
        for key in sorted(before.keys() ^ self.tensors.keys()):
            yield f"{name}: {key} only in the {'file' if key in before else 'new recording'}"
        for key in sorted(before.keys() & self.tensors.keys()):
            old, new = before[key], self.tensors[key]
            if old.shape != new.shape or old.dtype != new.dtype:
                yield f"{name}: {key} was {old.dtype}{old.shape}, is {new.dtype}{new.shape}"
            elif not np.allclose(new, old, rtol=0.0, atol=rtol * np.abs(old).max(initial=0.0)):
                yield f"{name}: {key} differs by up to {np.abs(new.astype(float) - old).max():.3e}"


def relative_error(got, want):
    """Largest error of a tensor relative to its root mean square, the scale that the tests' comparator uses."""
    want = want.detach().double()
    return ((got.detach().double() - want).abs().max() / want.square().mean().sqrt()).item()
