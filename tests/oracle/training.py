"""`train.safetensors`: whole steps of adversarial training.

The weights trained are `state.*` of the network's own file.
"""

import copy
import itertools

import torch

from attacks import load, random_start
from models import images, state
from networks import cross_entropy, freeze_running_stats, pgd_step
from recording import Recording, f32, relative_error

SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
CASES = {
    "lenet": {"steps": 5, "batch": 7, "eps": 0.3, "step_size": 0.1, "attack_steps": 3, **SGD},
    "resnet18": {"steps": 3, "batch": 4, "eps": 8 / 255, "step_size": 4 / 255, "attack_steps": 2, **SGD},
}
# As in models.py: how near float32 PyTorch must come.
FLOAT32_ERROR = 5e-5


def train(model, case, batches):
    """The attack with batch statistics that leaves the running ones alone, then the step that moves them."""
    model = copy.deepcopy(model).train()
    eps, step_size = f32(case["eps"]), f32(case["step_size"])
    constants = {key: f32(case[key]) for key in SGD}
    optimizer = torch.optim.SGD(model.parameters(), **constants)
    losses = []
    for clean, labels, start in batches:
        x = start
        freeze_running_stats(model)
        for _ in range(case["attack_steps"]):
            x, _ = pgd_step(model, cross_entropy, x, labels, clean, eps, step_size)
        freeze_running_stats(model, False)
        optimizer.zero_grad()
        loss = cross_entropy(model(x), labels).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), state(model)


def draw(model, case, seed):
    """Images, labels and attack starts of every step."""
    torch.manual_seed(seed)
    for _ in range(case["steps"]):
        clean, labels = images(model, case["batch"])
        yield clean, labels, random_start(clean, case["eps"])


def run(out, name, case):
    """Draws until float32 PyTorch agrees, so that no sign and no ReLU is in doubt. Returns the seed and the error."""
    model = load(name)
    for seed in itertools.count(1):
        batches = list(draw(model, case, seed))
        exact = [(clean.double(), labels, start.double()) for clean, labels, start in batches]
        losses, final = train(model.double(), case, exact)
        single_losses, single = train(model.float(), case, batches)
        error = max(relative_error(single[key], final[key]) for key in final)
        error = max(error, relative_error(single_losses, losses))
        if error < FLOAT32_ERROR:
            break
    for i, (clean, labels, start) in enumerate(batches):
        out.inputs(f"{name}.step{i}", clean=clean, labels=labels, start=start)
        out.outputs(f"{name}.step{i}", loss=losses[i])
    out.outputs(f"{name}.final", **final)
    return seed, error


def record():
    out = Recording()
    found = {name: run(out, name, case) for name, case in CASES.items()}
    out.describe(
        cases=CASES,
        seed={name: seed for name, (seed, _) in found.items()},
        float32_error={name: error for name, (_, error) in found.items()},
    )
    return out
