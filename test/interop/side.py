"""The libraries' side: loads what Paddock exported, saves models of its own, and writes features of the same image.

side.py <folder>: reads cases.json there, writes results.json and, per case, features as raw float32 [tokens, D] after the final norm.
Warnings of any kind are reported, not printed: the caller fails on them.
"""

import json
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch

torch.set_num_threads(1)
# torchvision's binary needs another build of torch than the CPU's; its Python parts only need these to be declared.
for name in ("nms", "qnms"):
    try:
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    except RuntimeError:
        pass

import timm
import transformers

transformers.logging.disable_progress_bar()


class Complaints(logging.Handler):
    """Log records of level WARNING and above, and Python warnings, while it is entered."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())

    def __enter__(self):
        self.texts = []
        self.loggers = [logging.getLogger(n) for n in (None, "transformers", "timm", "huggingface_hub")]
        for logger in self.loggers:
            logger.addHandler(self)
        self.catcher = warnings.catch_warnings(record=True)
        self.caught = self.catcher.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *_):
        self.texts += [str(w.message) for w in self.caught]
        self.catcher.__exit__(None, None, None)
        for logger in self.loggers:
            logger.removeHandler(self)


def image_of(case):
    shape = case["image"]["shape"]
    data = Path(case["image"]["file"]).read_bytes()
    return torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(shape)


def features(model, image):
    model.eval()
    with torch.no_grad():
        if hasattr(model, "forward_features"):
            return model.forward_features(image)[0]
        return model(pixel_values=image).last_hidden_state[0]


def load_transformers(case):
    model, info = transformers.AutoModel.from_pretrained(case["folder"], output_loading_info=True)
    for kind, names in info.items():
        if names:
            raise AssertionError(f"{kind}: {names}")
    expected = case["expect"]
    assert type(model).__name__ == expected, f"expected {expected}, received {type(model).__name__}"
    processor = transformers.AutoImageProcessor.from_pretrained(case["folder"], backend="pil")
    assert list(processor.image_mean) == case["mean"], processor.image_mean
    return model


def load_timm(case):
    return timm.create_model(f"local-dir:{case['folder']}", pretrained=True)


def load_timm_official(case):
    """timm's own reading of official names, strictly: into the architecture of the timm export beside it."""
    config = json.loads((Path(case["timmFolder"]) / "config.json").read_text())
    overlay = dict(file=str(Path(case["folder"]) / "model.safetensors"), url="", hf_hub_id="", num_classes=0)
    overlay["input_size"] = config["pretrained_cfg"]["input_size"]
    return timm.create_model(
        config["architecture"], pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **config["model_args"]
    )


def randomise(model, seed):
    """Every parameter away from its initial value: zeros and ones would hide a swapped name, and a small LayerScale a wrong branch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "gamma" in name or "lambda" in name:
                parameter.copy_(0.5 + 0.2 * noise)
            else:
                parameter.add_(0.05 * noise)
    return model


def make_transformers(case):
    config = getattr(transformers, case["config"])(**case["arguments"])
    model = randomise(getattr(transformers, case["model"])(config), case["seed"])
    model.save_pretrained(case["folder"])
    return model


def make_timm(case):
    model = timm.create_model(case["model"], pretrained=False, num_classes=0, **case["arguments"])
    randomise(model, case["seed"])
    timm.models.save_for_hf(model, case["folder"], model_args=case["arguments"], safe_serialization=True)
    return model


kinds = {
    "load-transformers": load_transformers,
    "load-timm": load_timm,
    "load-timm-official": load_timm_official,
    "make-transformers": make_transformers,
    "make-timm": make_timm,
}


def main(folder):
    results = []
    for case in json.loads((folder / "cases.json").read_text()):
        with Complaints() as complaints:
            try:
                tokens = features(kinds[case["kind"]](case), image_of(case))
                (folder / f"{case['name']}.features").write_bytes(tokens.float().contiguous().numpy().tobytes())
                error = None
            except Exception as exception:
                frame = traceback.extract_tb(exception.__traceback__)[-1]
                error = f"{type(exception).__name__}: {exception} ({frame.filename}:{frame.lineno})"
        results.append({"name": case["name"], "error": error, "complaints": complaints.texts})
    versions = {m.__name__: m.__version__ for m in (torch, transformers, timm)}
    (folder / "results.json").write_text(json.dumps({"versions": versions, "results": results}))


main(Path(sys.argv[1]))
