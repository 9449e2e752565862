"""`pgd.safetensors`: l-infinity PGD, ten steps from a given start, every iterate and gradient sign.

The weights attacked are `state.*` of the network's own file.
"""

import copy
import itertools
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from models import images
from networks import NETWORKS, cross_entropy, freeze_running_stats, margin, pgd_step
from recording import HERE, Recording, f16, f32

STEPS = 10
LENET = {"network": "lenet", "images": 3, "eps": 0.3, "step_size": 0.01, "bn": "eval"}
RESNET = {"network": "resnet18", "images": 2, "eps": 8 / 255, "step_size": 2 / 255}
CASES = {
    "lenet_cross_entropy": {**LENET, "loss": "cross-entropy"},
    "lenet_margin": {**LENET, "loss": "margin"},
    "resnet18_eval": {**RESNET, "loss": "cross-entropy", "bn": "eval"},
    "resnet18_train": {**RESNET, "loss": "cross-entropy", "bn": "train"},
}
LOSSES = {"cross-entropy": cross_entropy, "margin": margin}
# Smallest nonzero |gradient| taken, relative to the root mean square of its step: twice the largest error that the
# engine was seen to make in float32.
MARGIN = 4e-5
# Smallest |input| of a ReLU taken, relative to its root mean square. On the other side of the kink the gradients of a
# whole patch of pixels jump, by far more than rounding errors.
KINK = 1e-6


def load(name):
    """The network of `name`.safetensors, float32."""
    model = NETWORKS[name]()
    tensors = load_file(HERE / f"{name}.safetensors")
    weights = {key.removeprefix("state."): t for key, t in tensors.items() if key.startswith("state.")}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return model


def random_start(clean, eps):
    """A random point of the ball and of [0, 1]; two percent inside, so that rounding does not put it outside."""
    noise = 0.98 * eps * (2 * torch.rand(clean.shape) - 1)
    start = f16((clean + noise).clamp(0.0, 1.0))
    assert (start - clean).abs().max() < eps
    return start


def margin_of(values):
    """Smallest nonzero |value| relative to the root mean square."""
    return (values[values != 0].abs().min() / values.square().mean().sqrt()).item()


@contextmanager
def watch_relus():
    """Yields a list that receives the margin of every ReLU's input."""
    relu, found = F.relu, []

    def watched(x, inplace=False):
        found.append(margin_of(x.detach()))
        return relu(x, inplace)

    F.relu = watched
    try:
        yield found
    finally:
        F.relu = relu


def trajectory(model, case, clean, labels, start):
    """Yields of each step the iterate, the gradient and whether neither a sign nor a ReLU is in doubt."""
    x = start
    for _ in range(STEPS):
        with watch_relus() as relus:
            x, dx = pgd_step(model, LOSSES[case["loss"]], x, labels, clean, f32(case["eps"]), f32(case["step_size"]))
        yield x, dx, margin_of(dx) >= MARGIN and min(relus) >= KINK


def attack(out, prefix, case):
    """Draws until no sign is in doubt: no ReLU is near its kink, no gradient but exact zeros is tiny, and float32 agrees
    with float64."""
    model = load(case["network"])
    model.train(case["bn"] == "train")
    freeze_running_stats(model)
    exact_model = copy.deepcopy(model).double()
    for seed in itertools.count(1):
        torch.manual_seed(seed)
        clean, labels = images(model, case["images"])
        start = random_start(clean, case["eps"])
        steps = trajectory(exact_model, case, clean.double(), labels, start.double())
        certain = list(itertools.takewhile(lambda step: step[2], steps))
        if len(certain) < STEPS:
            continue
        iterates, dx = torch.stack([x for x, _, _ in certain]), torch.stack([dx for _, dx, _ in certain])
        single = torch.stack([dx for _, dx, _ in trajectory(model, case, clean, labels, start)])
        if torch.equal(single.sign().double(), dx.sign()):
            break
    out.inputs(prefix, clean=clean, labels=labels, start=start)
    out.outputs(prefix, smallest=torch.tensor([margin_of(step) for step in dx]).double())
    for step in range(STEPS):
        out.outputs(f"{prefix}.step{step}", x=iterates[step], sign=dx[step].sign().to(torch.int8))
    return seed


def record():
    out = Recording()
    seeds = {name: attack(out, name, case) for name, case in CASES.items()}
    out.describe(cases={name: {**case, "steps": STEPS} for name, case in CASES.items()}, seed=seeds)
    return out
