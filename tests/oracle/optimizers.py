"""`optim.safetensors`: six updates by each optimiser with given gradients."""

import torch

from recording import Recording, f16, f32

STEPS = 6
LR = [0.1, 0.1, 0.05, 0.05, 0.01, 0.2]
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
CASES = {
    "sgd": {"lr": LR, "momentum": 0.9, "weight_decay": 1e-4},
    "sgd_plain": {"lr": LR, "momentum": 0.0, "weight_decay": 0.0},
    "sgd_decay": {"lr": LR, "momentum": 0.0, "weight_decay": 1e-2},
    "adam": {"lr": [1e-3] * STEPS, **ADAM, "weight_decay": 0.0},
    "adam_decay": {"lr": LR, **ADAM, "weight_decay": 1e-2},
}


def optimizer(parameter, lr, weight_decay, momentum=None, beta1=None, beta2=None, eps=None):
    if momentum is None:
        return torch.optim.Adam([parameter], lr, (beta1, beta2), eps, weight_decay)
    return torch.optim.SGD([parameter], lr, momentum, weight_decay=weight_decay)


def record():
    torch.manual_seed(2)
    out = Recording()
    for name, case in CASES.items():
        parameter = f16(torch.randn(37)).double().requires_grad_()
        # Of very different sizes, one of them always zero: Adam divides by their magnitude.
        grads = f16(torch.randn(STEPS, 37) * torch.logspace(-4, 2, 37)).double()
        grads[:, 0] = 0.0
        out.inputs(name, params=parameter, grads=grads)
        out.outputs(name, lr=torch.tensor(case["lr"]).double())
        constants = {key: f32(value) for key, value in case.items() if key != "lr"}
        rule = optimizer(parameter, 1.0, **constants)
        for step in range(STEPS):
            rule.param_groups[0]["lr"] = f32(case["lr"][step])
            parameter.grad = grads[step].clone()
            rule.step()
            out.outputs(f"{name}.step{step}", params=parameter)
    out.describe(cases=CASES)
    return out
