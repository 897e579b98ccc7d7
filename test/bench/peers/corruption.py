"""The peers of the bench `corruption`: PyTorch's DCP and plain safetensors, whose files are damaged in the same ways."""

import logging
import os
import random
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from side import serve

# DCP writes a stack trace for every damaged file that it finds.
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
name, folder = sys.argv[1], sys.argv[2]
os.makedirs(folder, exist_ok=True)
values = torch.arange(24_001, dtype=torch.float32)
state = {f"{kind}.{unit}": values + 10 * unit for kind in ("student", "teacher", "m", "v") for unit in range(3)}


def save():
    if name == "dcp":
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    else:
        save_file(state, os.path.join(folder, "model.safetensors"))


def load():
    if name == "dcp":
        loaded = {key: torch.zeros_like(value) for key, value in state.items()}
        dcp.load(loaded, checkpoint_id=folder, no_dist=True)
        return loaded
    return load_file(os.path.join(folder, "model.safetensors"))


def is_detected():
    try:
        load()
    except BaseException:  # noqa: BLE001, any complaint counts
        return True
    return False


def prove_intact():
    loaded = load()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def damage(flips, cut_bytes):
    save()
    prove_intact()
    files = {}
    for file in sorted(os.listdir(folder)):
        path = os.path.join(folder, file)
        with open(path, "rb") as handle:
            files[path] = handle.read()

    def tried(path, bad):
        with open(path, "wb") as handle:
            handle.write(bad)
        found = is_detected()
        with open(path, "wb") as handle:
            handle.write(files[path])
        return found

    rng = random.Random(1)
    detected = 0
    for _ in range(flips):
        at = rng.randrange(sum(map(len, files.values())))
        for path, good in files.items():
            if at < len(good):
                bad = bytearray(good)
                bad[at] ^= 1 << rng.randrange(8)
                detected += tried(path, bad)
                break
            at -= len(good)
    cuts = [tried(path, good[:length]) for path, good in files.items() for length in range(0, len(good), cut_bytes)]
    prove_intact()
    return {"flipsTried": flips, "flipsDetected": detected, "cutsTried": len(cuts), "cutsDetected": sum(cuts)}


serve(lambda command: damage(command["flips"], command["cutBytes"]))
