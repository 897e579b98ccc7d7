"""The peer of the bench `step`: the same block and the same DINOv2 step, written for PyTorch as its users write it.

Modules and autograd, F.scaled_dot_product_attention, one pass per resolution, fused AdamW, _foreach EMA, gradients set to
None.
"""

import json
import os
import sys

import torch
import torch.nn.functional as F
from side import measured, serve, status
from torch import nn
from vit import Block, Model

case, options, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
torch.set_num_threads(options["threads"])
device, batch = torch.device(options["device"]), options["batch"]
precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[options["precision"]]
autocast = lambda: torch.autocast(device.type, precision, enabled=precision != torch.float32)


def read(name):
    path = os.path.join(folder, name)
    size = os.path.getsize(path) // 4
    return torch.from_file(path, shared=False, size=size, dtype=torch.float32).to(device)


def koleo(x, eps=1e-8):
    with torch.no_grad():
        unit = F.normalize(x, dim=-1, eps=eps)
        nearest = (unit @ unit.T).fill_diagonal_(-1).argmax(1)
    x = F.normalize(x, dim=-1, eps=eps)
    return -torch.log(F.pairwise_distance(x, x[nearest], 2, eps) + eps).mean()


class Training:
    """One process, one rank: B images, two global and n local crops each, K prototypes."""

    def __init__(self):
        with open(os.path.join(folder, "run.json")) as file:
            run = json.load(file)
        self.spec = spec = run["spec"]
        self.student, self.teacher = Model().to(device), Model().to(device).requires_grad_(False)
        self.load(run["index"])
        B, n = spec["batchPerRank"], spec["crops"]["localCount"]
        side, small = spec["crops"]["global"]["size"], spec["crops"]["local"]["size"]
        crops = lambda name, count, s: read(name).view(count, s, s, 3).permute(0, 3, 1, 2).contiguous()
        self.globals = crops("globals.f32", 2 * B, side)
        self.locals = crops("locals.f32", n * B, small)
        self.mask_rows = torch.tensor(run["masks"]["rows"], device=device)
        self.mask_weights = torch.tensor(run["masks"]["weights"], device=device)
        self.masks = torch.zeros(2 * B * 196, dtype=torch.bool, device=device)
        self.masks[self.mask_rows] = True
        self.masks = self.masks.view(2 * B, 196)
        K = spec["heads"]["dino"]["prototypes"]
        self.centers = [torch.zeros(K, device=device), torch.zeros(K, device=device)]
        self.pending = None
        self.parameters = list(self.student.parameters())
        self.teachers = list(self.teacher.parameters())
        self.submodules = [list(m.parameters()) for m in (self.student.backbone, self.student.dino_head)]

    def load(self, index):
        units = {entry["unit"]: None for entry in index.values()}
        for unit in units:
            units[unit] = read(f"{unit}.f32")
        groups = {}
        schedule = self.spec["schedules"]
        for name, parameter in self.student.named_parameters():
            entry = index[name]
            start = entry["offset"]
            values = units[entry["unit"]][start : start + parameter.numel()].view(parameter.shape)
            parameter.data.copy_(values)
            key = (entry["lrMultiplier"], entry["wdMultiplier"])
            groups.setdefault(key, []).append(parameter)
        self.teacher.load_state_dict(self.student.state_dict())
        rate, decay = schedule["learningRate"]["peak"], schedule["weightDecay"]["peak"]
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "lr": rate * lr, "weight_decay": decay * wd} for (lr, wd), p in groups.items()],
            fused=True,
        )

    @torch.no_grad()
    def targets(self):
        B = self.spec["batchPerRank"]
        h = self.teacher.backbone(self.globals)
        patches = h[:, 1:].flatten(0, 1)[self.mask_rows]
        scores = self.teacher.dino_head(torch.cat([h[:, 0], patches]))
        cls, patches = scores[: 2 * B], scores[2 * B :]
        if self.pending is not None:
            momentum = self.spec["loss"]["centerMomentum"]
            for center, mean in zip(self.centers, self.pending):
                center.mul_(momentum).add_(mean, alpha=1 - momentum)
        self.pending = [cls.mean(0), patches.mean(0)]
        temperature = self.spec["schedules"]["teacherTemperature"]["peak"]
        soften = lambda x, center: F.softmax((x - center) / temperature, dim=-1)
        return soften(cls, self.centers[0]), soften(patches, self.centers[1])

    def loss(self, target_cls, target_patches):
        loss, B = self.spec["loss"], self.spec["batchPerRank"]
        n = self.spec["crops"]["localCount"]
        h = self.student.backbone(self.globals, self.masks)
        cls = h[:, 0]
        local = self.student.backbone(self.locals)[:, 0]
        patches = h[:, 1:].flatten(0, 1)[self.mask_rows]
        scores = self.student.dino_head(torch.cat([local, cls, patches]))
        log_p = F.log_softmax(scores / loss["studentTemperature"], dim=-1)
        local_p, cls_p, patch_p = log_p.split([n * B, 2 * B, len(patches)])
        pairs = 2 * n + 2
        both = target_cls[:B] + target_cls[B:]
        dino = -(both * local_p.view(n, B, -1)).sum() - (target_cls.roll(B, 0) * cls_p).sum()
        ibot = -((target_patches * patch_p).sum(-1) * self.mask_weights).sum() / (2 * B)
        spread = sum(koleo(chunk) for chunk in cls.chunk(2))
        return loss["dino"] * dino / (pairs * B) + loss["ibot"] * ibot + loss["koleo"] * spread

    def __call__(self):
        with autocast():
            loss = self.loss(*self.targets())
        loss.backward()
        for parameters in self.submodules:
            nn.utils.clip_grad_norm_(parameters, self.spec["optimizer"]["clipNorm"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            momentum = self.spec["schedules"]["momentum"]["peak"]
            torch._foreach_mul_(self.teachers, momentum)
            torch._foreach_add_(self.teachers, self.parameters, alpha=1 - momentum)
        return loss.item()


class Blocks:
    def __init__(self, depth):
        self.blocks = nn.Sequential(*(Block() for _ in range(depth))).to(device)
        self.x = torch.randn(batch, 197, 384, device=device).requires_grad_()
        self.dy = torch.randn(batch, 197, 384, device=device)

    def __call__(self):
        with autocast():
            y = self.blocks(self.x)
        y.backward(self.dy)
        self.blocks.zero_grad(set_to_none=True)
        self.x.grad = None
        return None


def profile(work):
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        work()
    rows = sorted(recorded.key_averages(group_by_input_shape=True), key=lambda row: -row.self_cpu_time_total)
    return {f"{row.key} {row.input_shapes} x{row.count}": row.self_cpu_time_total / 1e3 for row in rows[:24]}


(torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum().item()
baseline = status("VmRSS")
work = None


def finished():
    """The work, waited for: a GPU computes on after Python is done."""
    loss = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return loss


def device_peak():
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0


def answer(command):
    global work
    if command["do"] == "run":
        return {**measured(finished), "deviceMiB": device_peak()}
    if command["do"] == "profile":
        return profile(work)
    work = Training() if case == "step" else Blocks({"block": 1, "blocks": 12}[case])
    parameters = sum(p.numel() for p in work.parameters) if case == "step" else 0
    return {"baselineMiB": baseline, "parameters": parameters}


serve(answer)
