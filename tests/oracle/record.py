"""Records what PyTorch computes, for the tests of the engine. See README.md.

    python record.py            writes the files
    python record.py --check    computes all again and compares with the files
"""

import argparse
import sys
from functools import partial

import torch

import attacks
import models
import ops
import optimizers
import suite
import training
from networks import NETWORKS

FILES = {
    "ops": ops.record,
    "optim": optimizers.record,
    **{name: partial(models.record, name) for name in NETWORKS},
    "pgd": attacks.record,
    "train": training.record,
    "suite": suite.record,
}


def main():
    parser = argparse.ArgumentParser(description="Records PyTorch's values for the tests of the engine.")
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"some of {', '.join(FILES)}; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing, compare with the files")
    args = parser.parse_args()
    unknown = set(args.files) - set(FILES)
    if unknown:
        parser.error(f"no such file: {', '.join(sorted(unknown))}")

    # One thread, so that sums have one order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    differences = []
    for name in args.files or FILES:
        recording = FILES[name]()
        recording.describe(torch=torch.__version__.split("+")[0])
        if args.check:
            differences += recording.differences(name)
        else:
            recording.write(name)
        print(f"{name}: {len(recording.tensors)} tensors, seed {recording.metadata.get('seed')}", flush=True)
    print("\n".join(differences) or ("as recorded" if args.check else "written"))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
