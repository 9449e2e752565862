"""`suite.safetensors`: APGD, FAB, Square and C&W of torchattacks, every point at which they ask the network.

The network attacked is LeNet of `lenet.safetensors`. Random choices are made here and given to the attack.
"""

import copy
import importlib.metadata
import itertools
from contextlib import contextmanager

import torch
import torchattacks

from attacks import KINK, MARGIN, load, margin_of, random_start, watch_relus
from models import images
from recording import Recording, f16, f32

IMAGES = 2
EPS = 0.02
SQUARE_QUERIES = 60
CASES = {
    "apgd_ce": {"attack": "apgd", "loss": "cross-entropy", "steps": 12},
    "apgd_dlr": {"attack": "apgd", "loss": "dlr", "steps": 12},
    "apgd_t": {"attack": "apgd", "loss": "targeted-dlr", "steps": 12, "target": 3},
    "fab": {"attack": "fab", "steps": 8, "target": 2},
    "square": {"attack": "square", "steps": SQUARE_QUERIES},
    "cw_l2": {"attack": "cw-l2", "steps": 20, "weight": 100.0, "kappa": 50.0},
}


class Watched(torch.nn.Module):
    """Notes every batch that the network is asked for."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, x):
        self.asked.append(x.detach().clone())
        return self.model(x)


@contextmanager
def patched(target, name, value):
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


@contextmanager
def watch_gradients():
    """Yields a list that receives the margin of every gradient with respect to the images."""
    grad, found = torch.autograd.grad, []

    def watched(outputs, inputs, **kwargs):
        gradients = grad(outputs, inputs, **kwargs)
        found.append(margin_of(gradients[0].detach()))
        return gradients

    with patched(torch.autograd, "grad", watched):
        yield found


def apgd(model, case, clean, labels, start):
    """The iterates. The attack's own random start is replaced by one that leads to `start`."""
    watched, common = Watched(model), dict(norm="Linf", eps=f32(EPS), steps=case["steps"])
    if case["loss"] == "targeted-dlr":
        attack = torchattacks.APGDT(watched, **common)
        attack.target_class = case["target"]
    else:
        attack = torchattacks.APGD(watched, **common, loss={"cross-entropy": "ce", "dlr": "dlr"}[case["loss"]])
    # One pixel of each image is at the end of the ball, so that the attack's normalisation changes nothing.
    noise = (start - clean) / f32(EPS)
    uniform = (noise / noise.abs().flatten(1).amax(1).view(-1, 1, 1, 1) + 1) / 2
    with patched(torch, "rand", lambda *_: uniform):
        attack.attack_single_run(clean, labels)
    # The targeted attack asks for the clean images first.
    return watched.asked[-case["steps"] - 1 :]


def fab(model, case, clean, labels, _start):
    """The points after each step, before any stepping back, and the nearest ones found."""
    watched = Watched(model)
    attack = torchattacks.FAB(watched, norm="Linf", eps=f32(EPS), steps=case["steps"], multi_targeted=True)
    attack.target_class = case["target"]
    # The attack would go down to single precision.
    with patched(torch.Tensor, "float", lambda tensor: tensor.to(torch.get_default_dtype())):
        found = attack.attack_single_run_targeted(clean, labels)
    # Twice the clean images, then in turn where the gradient is taken and where the step has led.
    return [*watched.asked[3::2], found]


def square(model, case, clean, labels, _start, choices):
    """The start and the best points at the end. `choices` receives stripes, windows and their signs."""
    watched = Watched(model)
    attack = torchattacks.Square(watched, norm="Linf", eps=f32(EPS), n_queries=case["steps"])
    attack.init_hyperparam(clean)
    attack.targeted = False
    generator = torch.Generator().manual_seed(case["seed"])

    def random_choice(shape):
        signs = torch.randint(2, tuple(shape), generator=generator).to(clean.dtype) * 2 - 1
        choices["signs"].append(signs)
        return signs

    def random_int(low, high, shape=(1,)):
        at = torch.randint(low, high, tuple(shape), generator=generator)
        choices["corners"].append(at)
        return at

    attack.random_choice, attack.random_int = random_choice, random_int
    _, best = attack.attack_single_run(clean, labels)
    return [watched.asked[0], best]


def cw_l2(model, case, clean, labels, _start):
    watched = Watched(model)
    found = torchattacks.CW(watched, c=case["weight"], kappa=case["kappa"], steps=case["steps"], lr=0.01)(clean, labels)
    return [*watched.asked[: case["steps"]], found]


RUNS = {"apgd": apgd, "fab": fab, "cw-l2": cw_l2}


def iterates(model, case, clean, labels, start):
    """All points, and whether no sign and no ReLU on the way is in doubt."""
    with watch_relus() as relus, watch_gradients() as gradients:
        points = RUNS[case["attack"]](model, case, clean, labels, start)
    return torch.stack(points), min(relus) > KINK and min(gradients, default=1) > MARGIN


def record_points(out, name, case):
    """A draw on which single precision comes to the same points."""
    network = load("lenet").eval()
    for seed in itertools.count(1):
        torch.manual_seed(seed)
        clean, _ = images(network, IMAGES)
        clean = f16(0.1 + 0.8 * clean)
        start = random_start(clean, EPS)
        labels = network(clean).argmax(1)
        torch.set_default_dtype(torch.float64)
        try:
            exact, certain = iterates(
                copy.deepcopy(network).double(), case, clean.double(), labels, start.double()
            )
        finally:
            torch.set_default_dtype(torch.float32)
        if not certain:
            continue
        single, _ = iterates(network, case, clean, labels, start)
        # A row that was found leaves the attack; some must stay until the end.
        if (single - exact).abs().max() < 2e-6 and exact.shape[1] == IMAGES:
            break
    out.inputs(name, clean=clean, labels=labels)
    out.outputs(name, points=exact)
    return seed


def record_square(out, name, case):
    """As many queries with the same windows for all images; the last are of one pixel."""
    network = load("lenet").eval()
    for seed in itertools.count(1):
        torch.manual_seed(seed)
        clean, _ = images(network, IMAGES)
        labels = network(clean).argmax(1)
        results = []
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            choices = {"signs": [], "corners": []}
            try:
                model = copy.deepcopy(network).to(dtype)
                run = square(model, {**case, "seed": seed}, clean.to(dtype), labels, None, choices)
            finally:
                torch.set_default_dtype(torch.float32)
            results.append((torch.stack(run), choices))
        (exact, choices), (single, _) = results
        # All queries were made, so no image was broken.
        if len(choices["corners"]) == 2 * case["steps"] and (single - exact).abs().max() < 2e-6:
            break
    stripes, *signs = choices["signs"]
    corners = torch.stack(choices["corners"]).view(-1, 2)
    out.inputs(name, clean=clean, labels=labels, corners=corners)
    out.inputs(name, stripes=stripes.float(), signs=torch.stack(signs).view(-1, 1).float())
    out.outputs(name, points=exact)
    return seed


def record():
    out = Recording()
    seeds = {}
    for name, case in CASES.items():
        seeds[name] = (record_square if case["attack"] == "square" else record_points)(out, name, case)
        print(name, seeds[name], flush=True)
    out.describe(
        cases={name: {**case, "eps": EPS} for name, case in CASES.items()},
        seed=seeds,
        torchattacks=importlib.metadata.version("torchattacks"),
    )
    return out
