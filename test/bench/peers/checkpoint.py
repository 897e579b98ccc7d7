"""The peer of the bench `checkpoint`: one of two ranks that save and load with torch.distributed.checkpoint."""

import os
import sys
import time
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from side import serve, status

rank, nbytes, folder = int(sys.argv[1]), int(float(sys.argv[2])), sys.argv[3]
target = os.path.join(folder, "dcp")
warnings.simplefilter("ignore")
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
count = 64
state = {
    f"rank{rank}.{i}": torch.arange(nbytes // 4 // count, dtype=torch.float32) + i for i in range(count)
}
loaded = {key: torch.zeros_like(value) for key, value in state.items()}


def timed(work):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, start = status("VmRSS"), time.perf_counter()
    work()
    return {"ms": 1e3 * (time.perf_counter() - start), "extraMiB": status("VmHWM") - before}


def forget():
    for name in os.listdir(target):
        handle = os.open(os.path.join(target, name), os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    return {"status": 0}


def compute(rounds):
    x = torch.ones(1000, 1000)
    end = x
    for _ in range(max(1, rounds // 15)):
        end = end @ x * 1e-3
    return end


def steps(command):
    start = time.perf_counter()
    blocked, saving = 0.0, None
    if command["save"]:
        saving = dcp.async_save(state, checkpoint_id=target)
        blocked = time.perf_counter() - start
    for i in range(command["steps"]):
        compute(command["rounds"])
        for value in state.values():
            value[0] = i
    ms = 1e3 * (time.perf_counter() - start)
    if saving is not None:
        saving.result()
    return {"ms": ms, "blockedMs": 1e3 * blocked}


def answer(command):
    what = command["do"]
    if what == "setup":
        return {"bytes": nbytes}
    if what == "save":
        return timed(lambda: dcp.save(state, checkpoint_id=target))
    if what == "load":
        return timed(lambda: dcp.load(loaded, checkpoint_id=target))
    if what == "forget":
        return forget()
    return steps(command)


serve(answer)
dist.destroy_process_group()
