"""The peers' Vision Transformer with its head, written for PyTorch as its users write it."""

import torch
import torch.nn.functional as F
from torch import nn


class Scale(nn.Module):
    def __init__(self, width, value):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), value))

    def forward(self, x):
        return x * self.gamma


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        n, length, width = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(n, length, width))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width=384, heads=6, layer_scale=1e-5):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = Scale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)
        self.ls2 = Scale(width, layer_scale)

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(self, width=384, depth=12, heads=6, patch=16, grid=14, offset=0.1):
        super().__init__()
        self.grid, self.patch, self.offset = grid, patch, offset
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, side):
        if side == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].view(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        factor = (side + self.offset) / self.grid
        small = F.interpolate(square, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], small.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def forward(self, images, masks=None):
        x = self.patch_embed(images)
        if masks is not None:
            x = torch.where(masks.unsqueeze(-1), self.mask_token, x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions(images.shape[-1] // self.patch)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class WeightNormLinear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1))
        self.weight_v = nn.Parameter(torch.randn(outputs, inputs) * 0.02)

    def forward(self, x):
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))


class Head(nn.Module):
    def __init__(self, width=384, hidden=2048, bottleneck=256, prototypes=65536):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last_layer = WeightNormLinear(bottleneck, prototypes)

    def forward(self, x):
        return self.last_layer(F.normalize(self.mlp(x), dim=-1, eps=1e-12))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Vit()
        self.dino_head = Head()
