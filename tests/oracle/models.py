"""`lenet`, `lenet_cifar`, `resnet18`, `vgg16_bn`: logits, losses and all gradients of whole networks at w=1."""

import copy
import itertools

import torch
from torch import nn

from networks import NETWORKS, cross_entropy
from recording import Recording, f16, relative_error

IMAGES = 5
PARAMETERS = {"lenet": 13_514, "lenet_cifar": 62_006, "resnet18": 44_622}
# A draw of weights and images is taken only if float32 PyTorch comes this near to float64 on it: otherwise a ReLU or
# max-pool is so near its kink that float32 takes the other side. The deep networks' gradients in train mode come to a
# few 1e-5 without that, because float32 cannot do better with so few images a batch; LeNet's to a few 1e-6.
FLOAT32_ERROR = 5e-5


def network(name, seed):
    """The network with PyTorch's default weights, but BN parameters and statistics away from 1 and 0; float32."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.2)
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
        for tensor in state(model).values():
            tensor.copy_(f16(tensor))
    return model


def images(model, n):
    """Random images in [0, 1] and labels."""
    return f16(torch.rand(n, *model.image)), torch.randint(10, (n,))


def state(model):
    """Parameters and running statistics; not PyTorch's batch counters, which nothing depends on."""
    return {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def results(model, x, labels):
    """One eval-mode pass, then one train-mode pass, each on the mean cross-entropy."""
    found = {}
    for mode in ("eval", "train"):
        model.train(mode == "train")
        model.zero_grad()
        x = x.detach().requires_grad_()
        logits = model(x)
        loss = cross_entropy(logits, labels).mean()
        loss.backward()
        found |= {f"{mode}.logits": logits, f"{mode}.loss": loss, f"{mode}.dx": x.grad}
    found |= {f"grad.{name}": p.grad for name, p in model.named_parameters()}
    found |= {f"after.{name}": t for name, t in state(model).items() if "running" in name}
    return found


def is_zero(name, grad):
    """Whether a gradient is zero but for rounding: a bias in front of train-mode BN."""
    return name.startswith("grad.") and grad.abs().max() < 1e-12


def record(name):
    for seed in itertools.count(1):
        model = network(name, seed)
        x, labels = images(model, IMAGES)
        exact = results(copy.deepcopy(model).double(), x.double(), labels)
        single = results(copy.deepcopy(model), x, labels)
        errors = {key: relative_error(single[key], t) for key, t in exact.items() if not is_zero(key, t)}
        if max(errors.values()) < FLOAT32_ERROR:
            break
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == PARAMETERS.get(name, parameters), parameters
    out = Recording()
    out.inputs("state", **state(model))
    out.inputs(x=x, labels=labels)
    out.outputs(**{key: torch.zeros_like(t) if is_zero(key, t) else t for key, t in exact.items()})
    out.describe(
        parameters=[key for key, _ in model.named_parameters()],
        state_dict=list(model.state_dict()),
        parameter_count=parameters,
        seed=seed,
        float32_error=errors,
    )
    return out
