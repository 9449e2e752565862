"""Whether models go from PyTorch to the engine and back, to ONNX and to NumPy, with the same logits. Trains nothing.

    python exchange.py --engine target/release/engine [MODEL ...]

Without MODEL, networks with random weights, dense and with half of all channels zero, begin as PyTorch's `.pt`. Each is
tried as it is and shrunk. A number is the largest difference from the engine's logits, relative to their root mean square.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from models import network
from networks import NETWORKS

SAMPLE = Path(__file__).parents[2] / "src" / "data" / "sample"
IMAGES = 256
# Rounding only; a wrong padding, order of axes or epsilon is far above.
PYTORCH, ONNX = 1e-5, 1e-4


def sample(name):
    """The engine's own test images of a network, as it sees them: [0, 1], NCHW."""
    if name == "lenet":
        raw = gzip.decompress((SAMPLE / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
        images = np.frombuffer(raw, np.uint8).reshape(-1, 1, 28, 28)
    else:
        raw = gzip.decompress((SAMPLE / "cifar-10-batches-bin" / "test_batch.bin.gz").read_bytes())
        images = np.frombuffer(raw, np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
    return torch.tensor(images[:IMAGES]).float() / 255


def half_zero(model):
    """Sets the first half of all channels but the classes to zero, as a hard prune does."""
    layers = list(model.modules())
    classifier = [m for m in layers if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        for module in layers:
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) and module is not classifier:
                for tensor in (module.weight, module.bias, getattr(module, "running_mean", None)):
                    if tensor is not None:
                        tensor[: len(tensor) // 2] = 0.0


def load(path):
    """The usual PyTorch network with the weights of an engine file, loaded strictly; and the engine's name of it."""
    with safe_open(path, "pt") as file:
        info = json.loads(file.metadata()["engine"])
    state = load_file(path)
    model = NETWORKS[info["network"].replace("-", "_")](info["width"])
    if info.get("outputs"):
        # Shrunk to no width: layers take their sizes from the file.
        for name, tensor in state.items():
            layer, leaf = name.rsplit(".", 1)
            if isinstance(getattr(model.get_submodule(layer), leaf), nn.Parameter):
                tensor = nn.Parameter(tensor)
            setattr(model.get_submodule(layer), leaf, tensor)
    model.load_state_dict(state, strict=True)
    return model.eval(), info["network"]


class Checks:
    def __init__(self, engine, directory):
        self.engine, self.directory, self.failed = engine, Path(directory), False

    def run(self, *args):
        subprocess.run([self.engine, *map(str, args)], check=True, stdout=subprocess.DEVNULL)

    def models(self):
        """Random networks, from PyTorch through `engine import`."""
        for name in NETWORKS:
            for kind in ("dense", "masked"):
                model = network(name, 1)
                if kind == "masked":
                    half_zero(model)
                saved, path = self.directory / f"{name}-{kind}.pt", self.directory / f"{name}-{kind}.safetensors"
                torch.save({"state_dict": nn.DataParallel(model).state_dict()}, saved)
                self.run("import", saved, "--out", path, *(["--masked"] if kind == "masked" else []))
                same = all(torch.equal(a, b) for a, b in zip(load(path)[0].parameters(), model.parameters()))
                self.require(same, f"{path.stem}: other weights than PyTorch's")
                yield path

    def check(self, path):
        """One file: a row of the table."""
        model, name = load(path)
        out = {kind: self.directory / f"{path.stem}.{kind}" for kind in ("logits", "onnx", "npz")}
        data = ["--data-set", "mnist" if name == "lenet" else "cifar10", "--sample", "--backend", "cpu"]
        self.run("eval", "--model", path, "--attack", "none", "--logits", out["logits"], "--quiet", *data)
        self.run("export", "--model", path, "--format", "onnx", "--out", out["onnx"], "--force")
        self.run("export", "--model", path, "--format", "numpy", "--out", out["npz"], "--force")

        ours, images = load_file(out["logits"])["logits"][:IMAGES], sample(name)
        with torch.no_grad():
            pytorch = self.difference(model(images), ours)
        onnx.checker.check_model(out["onnx"], full_check=True)
        session = onnxruntime.InferenceSession(out["onnx"], providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        runtime = self.difference(torch.tensor(logits), ours)
        # Any batch, one image among them.
        (one,) = session.run(["logits"], {"images": images[:1].numpy()})
        runtime = max(runtime, self.difference(torch.tensor(one), ours[:1]))
        with np.load(out["npz"]) as arrays:
            state = model.state_dict()
            same = set(arrays) == set(state) and all(np.array_equal(arrays[k], v.numpy()) for k, v in state.items())
        print(f"{path.stem:<28}{sum(p.numel() for p in model.parameters()):>10}{pytorch:>12.1e}{runtime:>12.1e}", flush=True)
        self.require(same, f"{path.stem}: the arrays are not the state dict")
        self.require(pytorch <= PYTORCH and runtime <= ONNX, f"{path.stem}: other logits")
        return ours

    def check_both(self, path):
        """As it is, and shrunk: the logits must be the same."""
        small = self.directory / f"{path.stem}-shrunk.safetensors"
        self.run("export", "--model", path, "--shrink", "--out", small, "--force")
        difference = self.difference(self.check(small), self.check(path))
        self.require(difference <= PYTORCH, f"{small.stem}: shrinking changed the logits by {difference:.1e}")

    @staticmethod
    def difference(got, want):
        return ((got - want).abs().max() / want.square().mean().sqrt()).item()

    def require(self, condition, message):
        if not condition:
            self.failed = True
            print(message)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", default="target/release/engine", help="the binary")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="files of the engine")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        checks = Checks(args.engine, directory)
        print(f"{'':<28}{'parameters':>10}{'PyTorch':>12}{'ONNX':>12}")
        for path in args.models or checks.models():
            checks.check_both(path)
    print("differences" if checks.failed else "all the same")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
