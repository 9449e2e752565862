"""Writes the seeds in fuzz/corpus; needs what tests/oracle/requirements.txt lists.

    python seeds.py
"""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

HERE = Path(__file__).parent / "corpus"

LENET = {
    "conv1.weight": (2, 1, 5, 5),
    "conv1.bias": (2,),
    "conv2.weight": (4, 2, 5, 5),
    "conv2.bias": (4,),
    "fc1.weight": (64, 196),
    "fc1.bias": (64,),
    "fc2.weight": (10, 64),
    "fc2.bias": (10,),
}


def write(target, name, content):
    (HERE / target).mkdir(parents=True, exist_ok=True)
    (HERE / target / name).write_bytes(content)


def saved(value, checksums, **options):
    """What torch.save writes."""
    torch.serialization.set_crc32_options(checksums)
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def pickle_of(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))


def main():
    torch.manual_seed(0)
    images = struct.pack(">IIII", 0x803, 1, 28, 28) + bytes(range(256)) * 3 + bytes(16)
    labels = struct.pack(">II", 0x801, 10) + bytes(range(10))
    for name, content in (("images", images), ("labels", labels)):
        write("idx", name, content)
        write("idx", f"{name}.gz", gzip.compress(content, mtime=0))
    record = bytes([3]) + bytes(3072)
    write("cifar", "two.gz", gzip.compress(record * 2, mtime=0))
    write("cifar", "cut", record[:100])

    value = torch.zeros(1)
    lenet = {name: value.expand(shape) for name, shape in LENET.items()}
    write("pickle", "lenet", pickle_of(saved(lenet, True)))
    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    state = layer.state_dict()
    one = {"conv1.weight": torch.zeros(2, 2), "conv1.bias": torch.zeros(2).half()}
    write("safetensors", "state", save(one))
    info = '{"network":"lenet","width":1,"classes":10,"epochs":1}'
    write("safetensors", "model", save(one, metadata={"engine": info}))
    for name, value, options in (
        ("wrapped", {"epoch": 1, "state_dict": state, "lr": 0.5}, {}),
        ("views", {"a": torch.zeros(2, 2).t(), "module.b": torch.zeros(4)[1:3]}, {"pickle_protocol": 4}),
    ):
        # Without checksums, so that changed bytes get past them.
        write("pytorch", name, saved(value, False, **options))
        write("pickle", name, pickle_of(saved(value, True, **options)))


if __name__ == "__main__":
    main()
