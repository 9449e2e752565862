"""Throughput of PyTorch on a GPU, the best of its ways to do a step of PGD adversarial training.

    python3 benches/peers/pytorch_cuda.py --network resnet18 --width 16 --batch 128 --steps 10

The step is that of pytorch_cpu.py, and the CSV that of `engine bench`: a line for each mode, as soon as it is measured. Each mode
is a process of its own, because a CUDA error spoils all that comes after it; one that does not work, or finds no time left of
`--budget`, is a line on stderr. `-graph` has the whole step, attack and update, in one CUDA graph; `bf16` is autocast to bf16
with channels last, `bf16-model` has the weights themselves in bf16 beside their f32 masters; where it is compiled, an attack
step is one graph of the compiler's, with the weights frozen. f32 is f32: TF32 is off. `--device cpu` is for trying the script.

`--topk` times torch.topk on every layer of a ResNet-18 instead, what a projection of ADMM needs; `--ceilings` what the GPU copies
and multiplies at most.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from pytorch_cpu import COLUMNS, NETWORKS, Step, median_seconds  # noqa: E402

MODES = [
    layout + graph
    for layout in ("eager", "channels-last", "bf16", "bf16-model", "compile", "compile-bf16", "compile-bf16-model")
    for graph in ("", "-graph")
]


def parse():
    parser = argparse.ArgumentParser(description="Images per second with PyTorch on a GPU.")
    parser.add_argument("--network", choices=[name.replace("_", "-") for name in NETWORKS], default="lenet")
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="steps of the attack on each batch")
    parser.add_argument("--repeat", type=int, default=10, help="steps timed; the median counts")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--budget", type=float, default=240.0, help="seconds for all modes")
    parser.add_argument("--topk", action="store_true")
    parser.add_argument("--ceilings", action="store_true")
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def synchronize(args):
    if args.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work, args):
    """Median, timed with all of it done."""

    def timed():
        work()
        synchronize(args)

    return median_seconds(timed, SimpleNamespace(repeat=args.repeat, seconds=None))


class Graph:
    """A step, recorded once and replayed."""

    def __init__(self, step):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Compiles, and lets libraries take their workspaces, before anything is recorded.
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()

    def __call__(self):
        self.graph.replay()


class InHalf(nn.Module):
    """A network in bf16, its normalisations' parameters and its logits in f32."""

    def __init__(self, model):
        super().__init__()
        self.model = model.bfloat16()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.float()

    def forward(self, x):
        return self.model(x.bfloat16()).float()


class Masters:
    """SGD on f32 copies of the weights, from which they are rounded once an update."""

    def __init__(self, model):
        self.weights = list(model.parameters())
        self.masters = [weight.detach().float().clone() for weight in self.weights]
        self.sgd = torch.optim.SGD(self.masters, 0.01, 0.9, weight_decay=1e-4, fused=True)

    def zero_grad(self):
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self):
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad = weight.grad.float()
        self.sgd.step()
        torch._foreach_copy_(self.weights, self.masters)


def measure(mode, args):
    """Seconds of a step."""
    torch.manual_seed(0)
    in_half, bf16 = "bf16-model" in mode, "bf16" in mode
    layout = torch.channels_last if bf16 or "channels-last" in mode else torch.contiguous_format
    model = NETWORKS[args.network.replace("-", "_")](args.width).to(args.device, memory_format=layout)
    image = model.image
    if in_half:
        model = InHalf(model)
    images = torch.rand(args.batch, *image, device=args.device).to(memory_format=layout)
    labels = torch.randint(10, (args.batch,), device=args.device)
    # The cache of casts would hand out weights of the recording.
    with torch.autocast(args.device, torch.bfloat16, enabled=bf16 and not in_half, cache_enabled=False):
        step = Step(model, images, labels, SimpleNamespace(network=args.network, steps=args.steps, mode=mode))
        if in_half:
            step.optimizer = Masters(model)
        return seconds_of(Graph(step) if mode.endswith("-graph") else step, args)


def one_mode(mode, args):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    try:
        took = measure(mode, args)
    except Exception as error:  # Whatever it is, the line says so, and the other modes are still tried.
        sys.exit(f"{mode}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    peak = f"{torch.cuda.max_memory_allocated() / 2**20:.1f}" if args.device == "cuda" else ""
    what = f"{args.network},{args.width},{args.batch},step,{args.steps},{mode},,{torch.__version__}"
    print(COLUMNS)
    print(f"{what},{args.batch / took:.1f},{took:.6f},{peak}")


def every_mode(args):
    """Each in a process of its own, for as long as there is time."""
    print(COLUMNS, flush=True)
    until, worked = time.monotonic() + args.budget, False
    options = ["--network", args.network, "--device", args.device]
    for name in ("width", "batch", "steps", "repeat"):
        options += [f"--{name}", str(getattr(args, name))]
    for mode in args.modes:
        left = until - time.monotonic()
        if left < 1.0:
            print(f"{mode}: no time left", file=sys.stderr)
            continue
        try:
            run = subprocess.run(
                [sys.executable, __file__, *options, "--modes", mode],
                stdout=subprocess.PIPE, text=True, timeout=left, check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{mode}: not done in {left:.0f} s", file=sys.stderr)
            continue
        # Without its head.
        row = run.stdout.partition("\n")[2]
        print(row, end="", flush=True)
        worked |= bool(row)
    if not worked:
        sys.exit("no mode works")


def topk(args):
    """Masks of the largest eighth of w + u of every convolution and linear layer, and z and u from them."""
    model = NETWORKS["resnet18"](args.width).to(args.device)
    weights = [p.detach() for p in model.parameters() if p.dim() > 1]
    duals = [torch.rand_like(w) for w in weights]

    def project():
        for w, u in zip(weights, duals, strict=True):
            moved = w + u
            flat = moved.flatten()
            kept = torch.topk(flat.abs(), flat.numel() // 8, sorted=False).indices
            z = torch.zeros_like(flat)
            z[kept] = flat[kept]
            u.copy_(moved - z.view_as(w))

    took = seconds_of(project, args)
    print(f"topk,resnet18 w={args.width},{took:.6f} s")


def ceilings(args):
    """Copies, read and written, and a product of bf16 matrices of 8192 x 8192."""
    size, side = (2**30, 8192) if args.device == "cuda" else (2**24, 512)
    x = torch.rand(size // 4, device=args.device)
    y = torch.empty_like(x)
    took = seconds_of(lambda: y.copy_(x), args)
    print(f"ceiling,copies,{2 * size / took / 1e12:.2f} TB/s")
    a, b = (torch.randn(side, side, device=args.device).bfloat16() for _ in range(2))
    took = seconds_of(lambda: a @ b, args)
    print(f"ceiling,bf16 products,{2 * side**3 / took / 1e12:.1f} TFLOP/s")


def main():
    args = parse()
    if args.topk:
        topk(args)
    elif args.ceilings:
        ceilings(args)
    elif len(args.modes) == 1:
        one_mode(args.modes[0], args)
    else:
        every_mode(args)


if __name__ == "__main__":
    main()
