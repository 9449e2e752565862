"""`ops.safetensors`: every operation on awkward shapes, forward and backward."""

import torch
import torch.nn.functional as F
from torch import nn

from networks import cross_entropy, margin
from recording import Recording, f16

# k, stride, pad, h, w, c_in, c_out, n
CONV2D = [
    (5, 1, 2, 28, 28, 1, 2, 3),
    (3, 1, 1, 8, 8, 5, 7, 9),
    (3, 2, 1, 9, 7, 4, 6, 5),
    (1, 2, 0, 8, 8, 4, 8, 3),
    (1, 2, 0, 7, 7, 3, 5, 2),
    (3, 2, 0, 10, 11, 2, 3, 17),
    (5, 1, 0, 12, 12, 3, 2, 1),
    (3, 1, 1, 1, 1, 2, 3, 4),
]
# n, c, h, w, k, stride
MAX_POOL2D = [(2, 3, 8, 8, 2, 2), (9, 2, 7, 9, 2, 2), (1, 1, 2, 3, 2, 2), (3, 2, 9, 9, 3, 2), (2, 5, 8, 6, 3, 2)]
LINEAR = [(1, 7, 3), (5, 33, 10), (17, 31, 1)]  # n, c_in, c_out
BATCH_NORM = [(3, 5, 4, 7), (9, 2, 3, 3), (2, 3, 1, 1), (17, 1, 5, 2)]  # n, c, h, w
POOL = [(3, 5, 4, 4), (9, 2, 1, 1), (2, 3, 5, 7)]  # n, c, h, w
LOGITS = [(1, 10), (5, 10), (17, 3), (4, 2)]  # n, classes


def draw(*shape):
    """Standard normal values that float16 holds, as float64."""
    return f16(torch.randn(shape)).double()


def grads(y, dy, *inputs):
    return torch.autograd.grad(y, inputs, dy)


def conv2d(out):
    for i, (k, stride, pad, h, width, c_in, c_out, n) in enumerate(CONV2D):
        x, w, b = draw(n, c_in, h, width), draw(c_out, c_in, k, k), draw(c_out)
        [t.requires_grad_() for t in (x, w, b)]
        y = F.conv2d(x, w, b, stride, pad)
        dy = draw(*y.shape)
        dx, dw, db = grads(y, dy, x, w, b)
        dims = torch.tensor([n, c_in, h, width, c_out, k, stride, pad])
        out.inputs(f"conv2d.{i}", dims=dims, x=x, w=w, b=b, dy=dy)
        out.outputs(f"conv2d.{i}", y=y, dx=dx, dw=dw, db=db)


def max_pool2d(out):
    for i, (n, c, h, w, k, stride) in enumerate(2 * MAX_POOL2D):
        x = draw(n, c, h, w)
        if i >= len(MAX_POOL2D):
            # Few different values, negative ones and zero among them: most windows have ties.
            x = x.round().clamp(-1, 1)
        x.requires_grad_()
        y = F.max_pool2d(x, k, stride)
        dy = draw(*y.shape)
        (dx,) = grads(y, dy, x)
        out.inputs(f"max_pool2d.{i}", dims=torch.tensor([n, c, h, w, k, stride]), x=x, dy=dy)
        out.outputs(f"max_pool2d.{i}", y=y, dx=dx)


def linear(out):
    for i, (n, c_in, c_out) in enumerate(LINEAR):
        x, w, b = (t.requires_grad_() for t in (draw(n, c_in), draw(c_out, c_in), draw(c_out)))
        y = F.linear(x, w, b)
        dy = draw(n, c_out)
        dx, dw, db = grads(y, dy, x, w, b)
        out.inputs(f"linear.{i}", x=x, w=w, b=b, dy=dy)
        out.outputs(f"linear.{i}", y=y, dx=dx, dw=dw, db=db)


def relu(out):
    x = draw(3, 5, 7)
    x[0, 0, :3] = torch.tensor([0.0, -0.0, 2.0**-24])
    x.requires_grad_()
    y = F.relu(x)
    dy = draw(*x.shape)
    out.inputs("relu.0", x=x, dy=dy)
    out.outputs("relu.0", y=y, dx=grads(y, dy, x)[0])


def global_avg_pool2d(out):
    for i, shape in enumerate(POOL):
        x = draw(*shape).requires_grad_()
        y = x.mean((2, 3))
        dy = draw(*y.shape)
        out.inputs(f"global_avg_pool2d.{i}", x=x, dy=dy)
        out.outputs(f"global_avg_pool2d.{i}", y=y, dx=grads(y, dy, x)[0])


def batch_norm_layer(c):
    """float64, its parameters and running statistics away from 1 and 0."""
    bn = nn.BatchNorm2d(c).double()
    with torch.no_grad():
        bn.weight.copy_(draw(c))
        bn.bias.copy_(draw(c))
        bn.running_mean.copy_(draw(c))
        bn.running_var.copy_(f16(torch.rand(c) + 0.5))
    return bn


def batch_norm(out):
    for i, shape in enumerate(BATCH_NORM):
        c = shape[1]
        # Means and variances far from 0 and 1, different for every channel.
        x = f16((1 + torch.arange(c)).view(1, c, 1, 1) * draw(*shape) + 2 * draw(1, c, 1, 1)).requires_grad_()
        dy = draw(*shape)
        bn = batch_norm_layer(c)
        out.inputs(f"batch_norm.{i}", x=x, dy=dy, gamma=bn.weight, beta=bn.bias)
        out.inputs(f"batch_norm.{i}", running_mean=bn.running_mean, running_var=bn.running_var)
        for mode in ("eval", "train"):
            bn.train(mode == "train")
            y = bn(x)
            dx, dgamma, dbeta = grads(y, dy, x, bn.weight, bn.bias)
            out.outputs(f"batch_norm.{i}.{mode}", y=y, dx=dx, dgamma=dgamma, dbeta=dbeta)
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        out.outputs(f"batch_norm.{i}.train", mean=mean, var=var)
        out.outputs(f"batch_norm.{i}.train", running_mean=bn.running_mean, running_var=bn.running_var)


def losses(out):
    for i, (n, classes) in enumerate(LOGITS + [(6, 10), (3, 10)]):
        # Wide enough for the margin loss to saturate at 0 in about half of the images.
        z = f16(30 * draw(n, classes))
        labels = torch.randint(classes, (n,))
        if i == len(LOGITS):
            # Huge logits: the true class far ahead, far behind, and level with others.
            z = 1e4 * draw(n, classes).sign()
            z[0, labels[0]], z[1, labels[1]] = 1e4, -1e4
        elif i == len(LOGITS) + 1:
            # Uniform logits.
            z = draw(n, 1).expand(n, classes).clone()
        z.requires_grad_()
        loss = cross_entropy(z, labels)
        (dlogits,) = grads(loss.mean(), None, z)
        out.inputs(f"losses.{i}", logits=z, labels=labels)
        out.outputs(f"losses.{i}.cross_entropy", loss=loss, mean=loss.mean(), dlogits=dlogits)
        loss = margin(z, labels)
        (dlogits,) = grads(loss.sum(), None, z)
        out.outputs(f"losses.{i}.margin", loss=loss, dlogits=dlogits)


def record():
    torch.manual_seed(1)
    out = Recording()
    for op in (conv2d, max_pool2d, linear, relu, global_avg_pool2d, batch_norm, losses):
        op(out)
    return out
