"""Train the reference digit classifier and write it as a Hugging Face ViT checkpoint.

The pictures are scikit-learn's `load_digits`, so nothing is downloaded. The split is stratified and fixed, and the
held-out pictures are never looked at to choose anything: the last epoch's weights are the ones that are written.
The figure in `log.json` is that of the written float16 checkpoint, read back from disk and fed by its own image
processor.

    python tests/reference/train_digits.py [--out DIR]
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional
from training import Progress, cosine, machine, optimizer_for, output_folder, versions, write_json
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

SEED = 20
HELD_OUT = 500
EPOCHS = 160
BATCH = 64
RATE = 2e-3
DECAY = 0.05
SIDE = 24
NAMES = {index: str(index) for index in range(10)}


def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and held-out pictures (uint8, 8x8, 0..255) and their labels."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    split = train_test_split(images, digits.target, test_size=HELD_OUT, stratify=digits.target, random_state=SEED)
    train, held_out, train_labels, held_out_labels = split
    return train, train_labels.astype(np.int64), held_out, held_out_labels.astype(np.int64)


def processor() -> ViTImageProcessor:
    """Return the image processor that is saved next to the weights."""
    size = {"height": SIDE, "width": SIDE}
    half = [0.5, 0.5, 0.5]
    return ViTImageProcessor(size=size, resample=Image.Resampling.BILINEAR, image_mean=half, image_std=half)


def pixels(images: np.ndarray, prepare: ViTImageProcessor) -> torch.Tensor:
    """Return what the processor makes of grey pictures."""
    colour = [Image.fromarray(image).convert("RGB") for image in images]
    return prepare(colour, return_tensors="pt")["pixel_values"]


def network() -> ViTForImageClassification:
    """Return the untrained classifier."""
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=SIDE,
        patch_size=4,
        hidden_dropout_prob=0.1,
        id2label=NAMES,
        label2id={name: index for index, name in NAMES.items()},
    )
    return ViTForImageClassification(config)


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift by up to a pixel of the 8x8 picture, turn, scale and stretch a little, and add noise."""
    count = len(batch)

    def spread(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle = spread(math.radians(12))
    wide, high = 1 + spread(0.12), 1 + spread(0.12)
    # affine_grid counts from -1 to 1, so a pixel of the original is 2 / 8.
    rows = [angle.cos() * wide, -angle.sin(), spread(0.25), angle.sin(), angle.cos() * high, spread(0.25)]
    grid = functional.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(batch.shape), align_corners=False)
    # The background is -1 after normalisation: lifting it to 0 lets the sampler's zero padding mean background.
    moved = functional.grid_sample(batch + 1, grid, align_corners=False) - 1
    return moved + torch.randn(moved.shape, generator=generator) * 0.05


def accuracy(model: ViTForImageClassification, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of pictures whose best label is the right one."""
    model.eval()
    with torch.inference_mode():
        right = (model(pixel_values=inputs).logits.argmax(1) == labels).float().mean()
    return round(float(right), 4)


def train(model: ViTForImageClassification, data: tuple[torch.Tensor, ...]) -> tuple[list[dict[str, Any]], float]:
    """Train in place; return a few rows of the curve and the seconds it took."""
    inputs, labels, held_out, held_out_labels = data
    generator = torch.Generator().manual_seed(SEED)
    steps = EPOCHS * math.ceil(len(inputs) / BATCH)
    optimizer = optimizer_for(model, RATE, DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(steps // 20, steps))
    progress = Progress("epoch", EPOCHS)
    curve = []
    for epoch in range(1, EPOCHS + 1):
        model.train()
        total = 0.0
        for chosen in torch.randperm(len(inputs), generator=generator).split(BATCH):
            logits = model(pixel_values=augment(inputs[chosen], generator)).logits
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        if epoch % (EPOCHS // 8) == 0:
            held = accuracy(model, held_out, held_out_labels)
            curve.append({"epoch": epoch, "loss": round(total / len(inputs), 4), "held_out_accuracy": held})
        progress.step(epoch, f"loss {total / len(inputs):.4f}")
    return curve, round(progress.seconds(), 1)


def log(curve: list[dict[str, Any]], seconds: float, held_out_accuracy: float) -> dict[str, Any]:
    """Return what `log.json` says."""
    return {
        "data": "scikit-learn load_digits",
        "seed": SEED,
        "split": {"train": 1797 - HELD_OUT, "held_out": HELD_OUT, "stratified": True, "random_state": SEED},
        "epochs": EPOCHS,
        "batch": BATCH,
        "seconds": seconds,
        "machine": machine(),
        "versions": versions(torch, transformers, sklearn, np),
        "curve": curve,
        "held_out_accuracy": held_out_accuracy,
    }


def write(model: ViTForImageClassification, out: Path, curve: list[dict[str, Any]], seconds: float) -> float:
    """Write the folder and return the accuracy of what was written, as loaded again."""
    _, _, images, labels = pictures()
    with output_folder(out) as folder:
        model.half().save_pretrained(folder)
        processor().save_pretrained(folder)
        np.savez_compressed(folder / "held_out.npz", images=images, labels=labels.astype(np.uint8))
        loaded = ViTForImageClassification.from_pretrained(folder, dtype=torch.float32)
        prepared = pixels(images, ViTImageProcessor.from_pretrained(folder))
        result = accuracy(loaded, prepared, torch.from_numpy(labels))
        write_json(folder / "log.json", log(curve, seconds, result))
    return result


def main() -> int:
    """Train and write; exit with 0."""
    parser = argparse.ArgumentParser(description="Train the reference digit classifier.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits-vit", help="folder to write")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # the matrices are so small that a second thread costs more than it brings
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    images, labels, held_out, held_out_labels = pictures()
    prepare = processor()
    model = network()
    data = (pixels(images, prepare), torch.from_numpy(labels))
    curve, seconds = train(model, (*data, pixels(held_out, prepare), torch.from_numpy(held_out_labels)))
    print(f"held-out accuracy {write(model, out, curve, seconds):.4f} in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
