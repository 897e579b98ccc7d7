"""The peer of the bench `dispatch`: PyTorch's eager mode on tensors too small to take any time."""

import sys
import time

import torch
from side import serve
from torch import nn
from vit import Block

torch.set_num_threads(int(sys.argv[1]))
iterations = 20000
a, b = torch.ones(4), torch.ones(4)
leaf = torch.ones(4, requires_grad=True)
blocks = nn.Sequential(*(Block(8, 2) for _ in range(12)))
x = torch.randn(1, 3, 8).requires_grad_()
dy = torch.randn(1, 3, 8)


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def add():
    with torch.no_grad():
        for _ in range(iterations):
            torch.add(a, b)


def chain():
    """100 products on the tape, forward and backward."""
    for _ in range(iterations // 100):
        y = leaf
        for _ in range(100):
            y = y * b
        y.sum().backward()
        leaf.grad = None


def chain_forward():
    for _ in range(iterations // 100):
        y = leaf
        for _ in range(100):
            y = y * b


def training_pass():
    blocks(x).backward(dy)
    blocks.zero_grad(set_to_none=True)
    x.grad = None


def answer(command):
    return {
        "add": 1e6 * timed(add) / iterations,
        "taped": 1e6 * timed(chain_forward) / iterations,
        "chain": 1e6 * timed(chain) / iterations,
        "pass": min(1e3 * timed(training_pass) for _ in range(command["passes"])),
    }


serve(answer)
