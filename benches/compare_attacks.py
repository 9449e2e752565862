"""The engine's attacks beside a public library's (torchattacks) on the same network and images: accuracies and times.

    python3 -m venv target/peers && target/peers/bin/pip install -r tests/oracle/requirements.txt
    target/peers/bin/python benches/compare_attacks.py --model model.safetensors --data DIR --n 1000
    target/peers/bin/python benches/compare_attacks.py --model model.safetensors --data DIR --n 200 --rounds 3 \
        --only autoattack --out docs/bench/2026-11-25-epyc-2-cores/attacks.csv

Builds the engine and runs each attack in turn in both, so that a change of the machine's speed hits both. Settings are
the published ones: torchattacks' own AutoAttack takes 10 steps for the published 100, so its parts are put together here.
Times are of the attacks alone. Before that, the logits are compared. Every measurement is a row of the CSV.
"""

import argparse
import csv
import gzip
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torchattacks
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "oracle"))
from networks import NETWORKS  # noqa: E402

ENGINE = ROOT / "target" / "release" / "engine"
# Radius, and steps and length of a step of PGD, as in the paper.
PUBLISHED = {"mnist": (0.3, 40, 0.01), "fashion-mnist": (0.1, 40, 0.005), "cifar10": (8 / 255, 10, 2 / 255)}
COLUMNS = "round,network,width,data,images,attack,side,accuracy,seconds,verdicts_differ,threads,versions".split(",")


def test_images(data, name, n):
    """The first test images in [0, 1] and their labels."""
    if name == "cifar10":
        records = np.fromfile(data / "cifar-10-batches-bin" / "test_batch.bin", np.uint8).reshape(-1, 3073)[:n]
        images, labels = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    else:
        read = lambda file: gzip.decompress((data / name / file).read_bytes())
        images = np.frombuffer(read("t10k-images-idx3-ubyte.gz"), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
        labels = np.frombuffer(read("t10k-labels-idx1-ubyte.gz"), np.uint8, offset=8)[:n]
    return torch.from_numpy(images.copy()).float() / 255, torch.from_numpy(labels.astype(np.int64))


def load(path):
    """The network of an engine file, and what the file says of it."""
    with safe_open(path, "pt") as file:
        info = json.loads(file.metadata()["engine"])
    model = NETWORKS[info["network"].replace("-", "_")](w=info["width"])
    model.load_state_dict(load_file(path))
    return model.eval(), info


def parts(model, attack, data):
    """The library's attacks that make up `attack`."""
    eps, steps, step_size = PUBLISHED[data]
    ball = dict(norm="Linf", eps=eps)
    one = {
        "pgd": lambda: torchattacks.PGD(model, eps=eps, alpha=step_size, steps=steps),
        "fgsm": lambda: torchattacks.FGSM(model, eps=eps),
        "apgd-ce": lambda: torchattacks.APGD(model, **ball, steps=100, loss="ce"),
        "apgd-dlr": lambda: torchattacks.APGD(model, **ball, steps=100, loss="dlr"),
        "apgd-t": lambda: torchattacks.APGDT(model, **ball, steps=100),
        "fab": lambda: torchattacks.FAB(model, **ball, steps=100, multi_targeted=True),
        "square": lambda: torchattacks.Square(model, **ball, n_queries=5000),
    }
    names = ["apgd-ce", "apgd-t", "fab", "square"] if attack == "autoattack" else [attack]
    return [one[name]() for name in names]


@torch.no_grad()
def predictions(model, images):
    return model(images).argmax(1)


def library(model, images, labels, attack, data, batch):
    """Which images stand, and the seconds; each part attacks what the ones before have left."""
    begun = time.perf_counter()
    standing = torch.cat([predictions(model, x) for x in images.split(batch)]) == labels
    for part in parts(model, attack, data):
        for places in standing.nonzero().flatten().split(batch):
            found = part(images[places], labels[places])
            apart = (found - images[places]).abs().amax((1, 2, 3))
            standing[places] = (predictions(model, found) == labels[places]) | (apart > PUBLISHED[data][0] + 1e-6)
    return standing, time.perf_counter() - begun


def engine(args, attack):
    """The same by the engine."""
    with tempfile.TemporaryDirectory() as out:
        command = [ENGINE, "attack", "--model", args.model, "--data-set", args.data_set, "--data", args.data]
        command += ["--attack", attack, "--n", str(args.n), "--threads", str(args.threads), "--save", "--quiet"]
        text = subprocess.run([*command, "--out", out], check=True, capture_output=True, text=True).stdout
        with open(Path(out) / "verdicts.csv") as file:
            standing = torch.tensor([row["stands"] == "true" for row in csv.DictReader(file)])
    return standing, sum(map(float, re.findall(r"broke \d+ in ([\d.]+) s", text)))


def compare_logits(args, model, images):
    """The largest difference of a logit, relative to the largest logit."""
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "logits.safetensors"
        command = [ENGINE, "eval", "--model", args.model, "--data-set", args.data_set, "--data", args.data]
        subprocess.run([*command, "--attack", "none", "--logits", path, "--quiet"], check=True, capture_output=True)
        ours = load_file(path)["logits"][: args.n]
    theirs = torch.cat([model(x) for x in images.split(args.batch)])
    difference = (ours - theirs).abs().max().item()
    print(f"logits of {args.n} images: largest difference {difference:.1e}, largest logit {theirs.abs().max():.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="an engine model.safetensors")
    parser.add_argument("--data", type=Path, required=True, help="directory with the data sets")
    parser.add_argument("--data-set", choices=PUBLISHED, default="mnist")
    parser.add_argument("--n", type=int, default=200, help="test images, the first ones")
    parser.add_argument("--batch", type=int, default=200, help="images that the library gets at once")
    parser.add_argument("--only", default="pgd,autoattack", help="attacks, comma-separated")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="CSV to append to")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    torch.set_num_threads(args.threads)
    model, info = load(args.model)
    images, labels = test_images(args.data, args.data_set, args.n)
    with torch.no_grad():
        compare_logits(args, model, images)
    versions = f"torch {torch.__version__} torchattacks {importlib.metadata.version('torchattacks')}"
    rows = []
    print(f"{'attack':<12}{'engine':>9}{'library':>9}{'differ':>8}{'engine s':>10}{'library s':>11}{'ratio':>7}")
    for number in range(args.rounds):
        for attack in args.only.split(","):
            ours, our_seconds = engine(args, attack)
            theirs, their_seconds = library(model, images, labels, attack, args.data_set, args.batch)
            differ = (ours != theirs).sum().item()
            percent = [100 * standing.float().mean().item() for standing in (ours, theirs)]
            print(
                f"{attack:<12}{percent[0]:>9.2f}{percent[1]:>9.2f}{differ:>8}"
                f"{our_seconds:>10.2f}{their_seconds:>11.2f}{their_seconds / max(our_seconds, 0.005):>7.1f}",
                flush=True,
            )
            common = [number, info["network"], info["width"], args.data_set, args.n, attack]
            for side, accuracy, seconds in zip(("engine", "library"), percent, (our_seconds, their_seconds)):
                rows.append([*common, side, f"{accuracy:.2f}", f"{seconds:.2f}", differ, args.threads, versions])
    if args.out:
        new = not args.out.exists()
        with open(args.out, "a", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([COLUMNS] if new else [])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
