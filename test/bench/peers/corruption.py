"""Flipped bits in torch DCP and safetensors checkpoints: how many are noticed on load.

Usage: corruption.py FOLDER FLIPS. Prints {"torch DCP": {tried, detected, loaded}, "safetensors": {...}}.
"""

import json
import os
import random
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")


def state():
    generator = torch.Generator().manual_seed(1)
    return {f"w{i}": torch.randn(64, 256, generator=generator) for i in range(8)}


def files_of(folder):
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def flip(files, rng):
    sizes = [os.path.getsize(path) for path in files]
    bit = rng.randrange(sum(sizes) * 8)
    for path, size in zip(files, sizes):
        if bit < size * 8:
            with open(path, "rb") as file:
                whole = file.read()
            damaged = bytearray(whole)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            with open(path, "wb") as file:
                file.write(damaged)
            return path, whole
        bit -= size * 8
    raise AssertionError


def tally(folder, load, flips):
    rng = random.Random(7)
    load()  # intact
    result = {"tried": 0, "detected": 0, "loaded": 0}
    for _ in range(flips):
        path, whole = flip(files_of(folder), rng)
        result["tried"] += 1
        try:
            load()
            result["loaded"] += 1
        except Exception:
            result["detected"] += 1
        with open(path, "wb") as file:
            file.write(whole)
    return result


def main():
    folder, flips = sys.argv[1], int(sys.argv[2])
    values = state()
    dcp_folder = os.path.join(folder, "dcp")
    dcp.save(values, checkpoint_id=dcp_folder)

    def load_dcp():
        into = {name: torch.zeros_like(value) for name, value in values.items()}
        dcp.load(into, checkpoint_id=dcp_folder)

    plain = os.path.join(folder, "safetensors")
    os.mkdir(plain)
    save_file(values, os.path.join(plain, "model.safetensors"))
    print(
        json.dumps(
            {
                "torch DCP": tally(dcp_folder, load_dcp, flips),
                "safetensors": tally(
                    plain, lambda: load_file(os.path.join(plain, "model.safetensors")), flips
                ),
            }
        )
    )


main()
