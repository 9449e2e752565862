"""Trains a LeNet in PyTorch for the way into the engine: adversarially on MNIST, saved as PyTorch saves it.

    target/peers/bin/python benches/peers/train_pytorch.py --data DIR --out lenet.pt
    engine import lenet.pt --out lenet.safetensors
    target/peers/bin/python benches/compare_attacks.py --model lenet.safetensors --data DIR --n 1000
"""

import argparse
import gzip
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.append(str(Path(__file__).parents[2] / "tests" / "oracle"))
from networks import LeNet  # noqa: E402

EPS, STEPS, STEP_SIZE = 0.3, 10, 0.06


def training_images(data):
    read = lambda file: gzip.decompress((data / "mnist" / file).read_bytes())
    images = np.frombuffer(read("train-images-idx3-ubyte.gz"), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(read("train-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def attacked(model, clean, labels, eps):
    x = (clean + eps * (2 * torch.rand_like(clean) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        x.requires_grad_()
        (dx,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), [x])
        x = (x.detach() + STEP_SIZE * eps / EPS * dx.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory with the data sets")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .pt")
    parser.add_argument("--width", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=100)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = LeNet(args.width)
    # As many train: the names get the prefix `module.`.
    parallel = torch.nn.DataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    images, labels = training_images(args.data)
    steps = args.epochs * (len(images) // args.batch)
    step = 0
    for epoch in range(args.epochs):
        order = torch.randperm(len(images))
        for places in order[: len(images) // args.batch * args.batch].split(args.batch):
            step += 1
            # The radius grows over the first half; from scratch such networks collapse without that.
            eps = EPS * min(1, 2 * step / steps)
            clean, y = images[places].float() / 255, labels[places]
            loss = F.cross_entropy(model(attacked(model, clean, y, eps)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 100 == 0:
                print(f"step {step} of {steps}, eps {eps:.2f}, loss {loss.item():.3f}", flush=True)
        torch.save({"state_dict": parallel.state_dict(), "epoch": epoch + 1}, args.out)


if __name__ == "__main__":
    main()
