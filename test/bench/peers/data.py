"""The peer of the bench `data`: the official DINOv2 augmentation as torchvision does it, in Pillow and numpy.

Random resized crop (bicubic), flip, colour jitter, grey, blur, solarise, normalise; two global crops and some local ones.
"""

import io
import math
import os
import random
import sys

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from side import measured, serve

name, folder = sys.argv[1], sys.argv[2]
rng = random.Random(0)
grey = name == "grey"
sizes = (28, 14) if grey else (224, 96)
scales = ((0.4, 1.0), (0.15, 0.4)) if grey else ((0.32, 1.0), (0.05, 0.32))
locals_, batch = (4, 64) if grey else (8, 8)
blur_probabilities = (0.0, 0.9, 0.5)
mean = np.array([0.286] if grey else [0.485, 0.456, 0.406], np.float32)
std = np.array([0.353] if grey else [0.229, 0.224, 0.225], np.float32)
channels = len(mean)


def box(width, height, scale):
    for _ in range(10):
        target = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def hue(image, turns):
    h, s, v = image.convert("HSV").split()
    shifted = np.asarray(h) + np.uint8(int(turns * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(shifted, "L"), s, v)).convert("RGB")


def jitter(image):
    steps = [
        lambda x: ImageEnhance.Brightness(x).enhance(rng.uniform(0.6, 1.4)),
        lambda x: ImageEnhance.Contrast(x).enhance(rng.uniform(0.6, 1.4)),
    ]
    if not grey:
        steps += [
            lambda x: ImageEnhance.Color(x).enhance(rng.uniform(0.8, 1.2)),
            lambda x: hue(x, rng.uniform(-0.1, 0.1)),
        ]
    rng.shuffle(steps)
    for step in steps:
        image = step(image)
    return image


def crop(image, role, out):
    local = role == 2
    size = sizes[local]
    image = image.resize((size, size), Image.BICUBIC, box=box(*image.size, scales[local]))
    if rng.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    if rng.random() < 0.8:
        image = jitter(image)
    if not grey and rng.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if rng.random() < blur_probabilities[role]:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    if not grey and role == 1 and rng.random() < 0.2:
        image = ImageOps.solarize(image)
    pixels = np.asarray(image, np.float32).reshape(size, size, channels)
    np.divide(pixels / 255 - mean, std, out=out)


if grey:
    pictures = (np.arange(4096 * 784) * 37 & 255).astype(np.uint8).reshape(4096, 28, 28)
    load = lambda i: Image.fromarray(pictures[i % 4096], "L")
else:
    files = [os.path.join(folder, file) for file in sorted(os.listdir(folder))]

    def load(i):
        with open(files[i % len(files)], "rb") as file:
            return Image.open(io.BytesIO(file.read())).convert("RGB")


globals_out = np.zeros((2, batch, sizes[0], sizes[0], channels), np.float32)
locals_out = np.zeros((locals_, batch, sizes[1], sizes[1], channels), np.float32)


def make_batch():
    for b in range(batch):
        image = load(rng.randrange(1 << 20))
        for role in range(2):
            crop(image, role, globals_out[role, b])
        for i in range(locals_):
            crop(image, 2, locals_out[i, b])


serve(lambda command: {**measured(make_batch), "images": batch})
