"""Train the reference text-and-picture model on rendered scenes and write it as a Hugging Face CLIP checkpoint.

Pictures and captions come from `scenes.py`, so nothing is downloaded. What the held-out scenes show is shown by no
training scene, and the last step's weights are the ones that are written. The figures in `log.json` are those of the
written float16 checkpoint, read back from disk and fed by its own tokenizer and image processor.

    python tests/reference/train_scenes.py [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tokenizers
import torch
import transformers
from PIL import Image
from scenes import (
    COLOURS,
    FULL,
    POSITIONS,
    SHAPES,
    SIZES,
    VARIANTS,
    Scene,
    caption,
    held_out,
    meaning,
    render,
    scene,
    words,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from training import Progress, cosine, machine, optimizer_for, output_folder, versions, write_json
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
)

SEED = 20
SCENES = 40_000
HELD_OUT = 400
STEPS = 945
BATCH = 192
RATE = 1.5e-3
DECAY = 0.1
SIDE = 64
PLACES = tuple(POSITIONS)
TOLD = {"shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(SIZES)}
TOKENS = 32
# The end token is neither 2, which transformers treats as a sign of an old config, nor the highest id, so that a
# reader that looks for the highest id instead of the end token takes the wrong place and is found out.
PAD, START, UNKNOWN, END = SPECIAL = ("<|pad|>", "<|startoftext|>", "<|unknown|>", "<|endoftext|>")
TEMPLATES = {
    "shape": (SHAPES, ("a {}", "a picture of a {}")),
    "colour": (tuple(COLOURS), ("a {} shape", "a picture of a {} shape")),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the word tokenizer that is saved next to the weights."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words()])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(START, vocabulary[START]), (END, vocabulary[END])]
    core.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        pad_token=PAD,
        bos_token=START,
        unk_token=UNKNOWN,
        eos_token=END,
    )


def processor() -> CLIPImageProcessor:
    """Return the image processor that is saved next to the weights."""
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        resample=Image.Resampling.BICUBIC,
        image_mean=half,
        image_std=half,
    )


def network(encode: PreTrainedTokenizerFast) -> CLIPModel:
    """Return the untrained model."""
    shared = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64}
    text = shared | {
        "vocab_size": len(encode),
        "num_hidden_layers": 3,
        "max_position_embeddings": TOKENS,
        "pad_token_id": encode.pad_token_id,
        "bos_token_id": encode.bos_token_id,
        "eos_token_id": encode.eos_token_id,
    }
    vision = shared | {"num_hidden_layers": 4, "image_size": SIDE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def training_scenes(kept: list[Scene]) -> list[Scene]:
    """Return the training scenes: none shows what a held-out scene shows."""
    shown = {meaning(scene) for scene in kept}
    found: list[Scene] = []
    seed = 0
    while len(found) < SCENES:
        candidate = scene(seed)
        if meaning(candidate) not in shown:
            found.append(candidate)
        seed += 1
    return found


def drawn(scenes: list[Scene]) -> torch.Tensor:
    """Return the pictures as bytes, in the model's order of axes."""
    progress = Progress("picture", len(scenes))
    pictures = torch.empty(len(scenes), 3, SIDE, SIDE, dtype=torch.uint8)
    for index, each in enumerate(scenes):
        pictures[index] = torch.from_numpy(np.array(render(each, SIDE))).permute(2, 0, 1)
        progress.step(index + 1)
    return pictures


def meanings(scenes: list[Scene]) -> torch.Tensor:
    """Return a number for what each variant says of each scene: equal numbers, equal meanings."""
    numbers: dict[Any, int] = {}
    rows = [
        [numbers.setdefault((variant, meaning(each, variant)), len(numbers)) for variant in range(VARIANTS)]
        for each in scenes
    ]
    return torch.tensor(rows)


def contrastive(logits: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """Return CLIP's loss, where a caption that fits another's picture too is no counter-example for it."""
    others = fits & ~torch.eye(len(fits), dtype=torch.bool)
    logits = logits.masked_fill(others, -1e4)
    own = torch.arange(len(fits))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def places(scenes: list[Scene]) -> torch.Tensor:
    """Return for each scene and place which shape, colour and size is there: 0 is none."""
    result = torch.zeros(len(scenes), len(PLACES), len(TOLD), dtype=torch.long)
    for row, each in zip(result, scenes, strict=True):
        for thing in each.things:
            numbers = [names.index(getattr(thing, kind)) + 1 for kind, names in TOLD.items()]
            row[PLACES.index(thing.position)] = torch.tensor(numbers)
    return result


class Guide(torch.nn.Module):
    """Reads from a picture's pooled vector what is at each place; it helps training only and is not saved.

    From captions alone the picture side learns colours and places soon, since they tell most scenes of a batch
    apart, and shapes very late.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(
            torch.nn.Linear(width, len(PLACES) * (len(names) + 1)) for names in TOLD.values()
        )

    def forward(self, pooled: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Return the loss: a scene's places are added up, since most are empty."""
        losses = [
            functional.cross_entropy(head(pooled).view(there.shape[0] * len(PLACES), -1), there[..., kind].flatten())
            for kind, head in enumerate(self.heads)
        ]
        return torch.stack(losses).sum() * len(PLACES)


def batch_of(
    chosen: list[int], scenes: list[Scene], pictures: torch.Tensor, variants: torch.Tensor, encode: Any
) -> dict[str, torch.Tensor]:
    """Return the model's inputs for the chosen scenes, each told in its variant."""
    texts = [caption(scenes[index], int(variant)) for index, variant in zip(chosen, variants, strict=True)]
    values = pictures[chosen].float() / 127.5 - 1
    return dict(encode(texts, padding=True, return_tensors="pt")) | {"pixel_values": values}


def train(model: CLIPModel, encode: Any, scenes: list[Scene], kept: list[Scene]) -> list[dict[str, Any]]:
    """Train in place; return a few rows of the curve."""
    generator = torch.Generator().manual_seed(SEED)
    pictures, numbers, there = drawn(scenes), meanings(scenes), places(scenes)
    guide = Guide(model.config.vision_config.hidden_size)
    optimizer = optimizer_for(torch.nn.ModuleList([model, guide]), RATE, DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(STEPS // 15, STEPS))
    progress = Progress("step", STEPS)
    curve, recent = [], []
    for step in range(1, STEPS + 1):
        model.train()
        chosen = torch.randint(len(scenes), (BATCH,), generator=generator)
        variants = torch.randint(VARIANTS, (BATCH,), generator=generator)
        told = numbers[chosen]
        own = told.gather(1, variants[:, None])
        fits = own == told[:, variants].T
        output = model(**batch_of(chosen.tolist(), scenes, pictures, variants, encode))
        loss = contrastive(output.logits_per_text, fits)
        guided = guide(output.vision_model_output.pooler_output, there[chosen])
        optimizer.zero_grad()
        (loss + guided).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        model.logit_scale.data.clamp_(max=4.6052)  # 100, as in the first CLIP: beyond it training gets unstable
        recent.append(float(loss.detach()))
        if step % (STEPS // 7) == 0:
            row = {"step": step, "loss": round(float(np.mean(recent)), 4)} | recall(model, encode, processor(), kept)
            curve.append(row)
            recent.clear()
        progress.step(step, f"loss {loss:.3f} guide {guided:.3f}")
    return curve


def text_vectors(model: CLIPModel, encode: Any, texts: list[str]) -> torch.Tensor:
    """Return the texts' vectors of length one."""
    with torch.inference_mode():
        return functional.normalize(model.get_text_features(**encode(texts, padding=True, return_tensors="pt")))


def image_vectors(model: CLIPModel, prepare: Any, scenes: list[Scene]) -> torch.Tensor:
    """Return the pictures' vectors of length one."""
    inputs = prepare([render(each, SIDE) for each in scenes], return_tensors="pt")
    with torch.inference_mode():
        return functional.normalize(model.get_image_features(pixel_values=inputs["pixel_values"]))


def share(right: torch.Tensor) -> float:
    """Return the share of what is true."""
    return round(float(right.float().mean()), 4)


def recall(model: CLIPModel, encode: Any, prepare: Any, kept: list[Scene]) -> dict[str, float]:
    """Return how often the plain caption finds its picture first among all, and the other way round."""
    model.eval()
    texts = text_vectors(model, encode, [caption(each) for each in kept])
    likeness = texts @ image_vectors(model, prepare, kept).T
    own = torch.arange(len(kept))
    return {
        "text_to_image_recall_at_1": share(likeness.argmax(1) == own),
        "image_to_text_recall_at_1": share(likeness.argmax(0) == own),
    }


def zero_shot(model: CLIPModel, encode: Any, prepare: Any, kept: list[Scene]) -> dict[str, float]:
    """Return the zero-shot accuracies on the held-out scenes of one thing, each name told by all its templates."""
    model.eval()
    alone = [each for each in kept if len(each.things) == 1]
    images = image_vectors(model, prepare, alone)
    result: dict[str, float] = {"zero_shot_scenes": len(alone)}
    for kind, (names, templates) in TEMPLATES.items():
        texts = [template.format(name).replace("a orange", "an orange") for name in names for template in templates]
        vectors = text_vectors(model, encode, texts).view(len(names), len(templates), -1).mean(1)
        best = (images @ functional.normalize(vectors).T).argmax(1)
        truth = torch.tensor([names.index(getattr(each.things[0], kind)) for each in alone])
        result[f"zero_shot_{kind}_accuracy"] = share(best == truth)
    return result


def figures(folder: Path, kept: list[Scene]) -> dict[str, float]:
    """Return the held-out figures of a checkpoint folder, loaded from disk."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    encode, prepare = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, use_fast=False)
    return recall(model, encode, prepare, kept) | zero_shot(model, encode, prepare, kept)


def log(curve: list[dict[str, Any]], seconds: float, result: dict[str, float]) -> dict[str, Any]:
    """Return what `log.json` says."""
    return {
        "data": "scenes.py",
        "seed": SEED,
        "split": {"train": SCENES, "held_out": HELD_OUT, "shared_descriptions": 0},
        "captions": {"variants": VARIANTS, "full": FULL, "held_out_variant": 0},
        "templates": {kind: list(templates) for kind, (_, templates) in TEMPLATES.items()},
        "steps": STEPS,
        "batch": BATCH,
        "guide": "shape, colour and size at each place, read from the pooled vector",
        "epochs": round(STEPS * BATCH / SCENES, 2),
        "seconds": seconds,
        "machine": machine(),
        "versions": versions(torch, transformers, tokenizers, np, PIL),
        "curve": curve,
        "held_out": result,
    }


def main() -> int:
    """Train and write; exit with 0."""
    parser = argparse.ArgumentParser(description="Train the reference text-and-picture model.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "scenes-clip", help="folder to write")
    out = parser.parse_args().out
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    started = time.monotonic()
    encode, kept = tokenizer(), held_out(HELD_OUT)
    model = network(encode)
    curve = train(model, encode, training_scenes(kept), kept)
    seconds = round(time.monotonic() - started, 1)
    with output_folder(out) as folder:
        model.half().save_pretrained(folder)
        encode.save_pretrained(folder)
        processor().save_pretrained(folder)
        result = figures(folder, kept)
        write_json(folder / "log.json", log(curve, seconds, result))
    print(f"{result} in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
