"""Writes the `.pt` files that the tests of `engine import` read: the LeNet recorded in lenet.safetensors, as scripts save it.

    python state_dicts.py
"""

import torch
from safetensors.torch import load_file

from recording import HERE


def lenet():
    """The recorded weights: values that float16 holds."""
    tensors = load_file(HERE / "lenet.safetensors")
    return {name.removeprefix("state."): t.float() for name, t in tensors.items() if name.startswith("state.")}


def wrapped(state):
    """A checkpoint of a training with `DataParallel`: the state dict is one of several things in it."""
    model = torch.nn.Module()
    for name, tensor in state.items():
        layer, leaf = name.split(".")
        if not hasattr(model, layer):
            model.add_module(layer, torch.nn.Module())
        model.get_submodule(layer).register_parameter(leaf, torch.nn.Parameter(tensor))
    model = torch.nn.DataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return {"epoch": 3, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "best": 0.5}


def narrow(state):
    """Three types that are not float32."""
    types = {"conv2.weight": torch.bfloat16, "fc2.weight": torch.float64}
    return {name: tensor.to(types.get(name, torch.float16)) for name, tensor in state.items()}


def views(state):
    """Everything in one storage, with a gap in front; matrices and kernels lie transposed in it."""
    storage = torch.zeros(7 + sum(t.numel() for t in state.values()))
    at, found = 7, {}
    for name, tensor in state.items():
        turned = tensor.permute(*reversed(range(tensor.dim())))
        place = storage[at : at + tensor.numel()].view(turned.shape)
        place.copy_(turned)
        found[name] = place.permute(*reversed(range(tensor.dim())))
        at += tensor.numel()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    # As named_parameters() has them.
    return found | {"fc2.bias": torch.nn.Parameter(found["fc2.bias"])}


def main():
    state = lenet()
    torch.save(wrapped(state), HERE / "lenet_wrapped.pt")
    torch.save(narrow(state), HERE / "lenet_narrow.pt")
    # Another protocol has other operations for the same things.
    torch.save(views(state), HERE / "lenet_views.pt", pickle_protocol=4)


if __name__ == "__main__":
    main()
