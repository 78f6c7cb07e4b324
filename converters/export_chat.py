"""An exported decoder to a chat package: tidy graph, INT8, comparison token by token, tokenizer and template.

Compared is what users run: the loop over the KV cache, on text that was not calibrated on. The float32 export is the
reference, and is itself compared with transformers.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from converters import oracle
from converters.calibrate import CALIBRATION, HELD_OUT
from converters.checkpoint import Array, Checkpoint, optional_json
from converters.export_optimum import Exported
from converters.gguf_vocab import chat_template
from converters.job import CHECK_TEXT, NONE, Options, Outcome, made_by, source_of
from converters.judge import divergence, log_softmax, windows
from converters.onnx_graph import Graph
from converters.onnx_int8 import Plan, quantize
from converters.onnx_prepare import MODEL
from converters.onnx_search import Search, Trial, plan_json, read_plan
from converters.onnx_tidy import check_nodes, last_logits, pruned, tidy
from converters.recipe import Floor, Recipe
from converters.verify import Comparison, failures, label_likeness
from edgemm import package
from edgemm.backends import Sampling
from edgemm.backends.ort_generator import LOGITS_FROM, DecoderFiles, OrtGenerator
from edgemm.backends.pieces import Pieces
from edgemm.drafts import WORK
from edgemm.errors import BelowFloor, Unsupported
from edgemm.events import Done, Progress, Work
from edgemm.manifest import ChatFormat, Check, Manifest, Quantization
from edgemm.tokenizer import FILE, Tokenizer

_FLOOR = Floor(cosine_mean=0.0, cosine_min=0.0, divergence=0.01)
_EXACT = Floor(cosine_mean=0.0, cosine_min=0.0, divergence=0.0001)
_WINDOW, _WINDOWS = 96, 8  # tokens of a text that is calibrated or compared on, and how many
_BUILDS = 3  # that hold on calibration texts, and are tried on others until one holds there
_SPEED_TOKENS = 32
_MOST_DIVERGENCE = 0.001  # of the export from transformers, nats a token
_ORACLE_TEXTS = 3
_LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len", "seq_length")
_DEFAULT_LENGTH = 2048  # of models whose positions have no table


@dataclass
class _Chat:
    checkpoint: Checkpoint
    recipe: Recipe
    options: Options
    folder: Path
    trials: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exact(self) -> Path:
        return self.folder / WORK / MODEL

    @property
    def floor(self) -> Floor:
        return _FLOOR if self.recipe.weights == "int8" else _EXACT

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.checkpoint.tokenizer)

    @cached_property
    def context(self) -> int:
        found = (self.checkpoint.config.get(name) for name in _LENGTHS)
        return next((value for value in found if type(value) is int and value > 1), _DEFAULT_LENGTH)

    @cached_property
    def stop(self) -> tuple[str, ...]:
        return end_texts(self.checkpoint)

    def windows(self, texts: Sequence[str]) -> list[list[int]]:
        """The first `_WINDOWS` windows of `texts`, one behind the other."""
        rows = [self.tokenizer.text_ids(text + "\n", add_special=False, parse_special=False) for text in texts]
        first = self.tokenizer.text_ids("", add_special=True, parse_special=False)[:1]
        size = min(_WINDOW, self.context)
        return [list(tokens) for tokens, _ in windows(rows, first, size)[:_WINDOWS]]

    def generator(self, model: Path) -> OrtGenerator:
        is_int8 = self.recipe.weights == "int8" and model != self.exact
        files = DecoderFiles(model, self.checkpoint.tokenizer, self.context, stop=self.stop, int8=is_int8)
        return OrtGenerator(files, context=self.context, threads=1)

    # INT8

    def int8(self, held_out: Sequence[list[int]]) -> Work[tuple[dict[str, float], dict[str, Any]]]:
        """The fastest build that holds on calibration texts and on those held out: its figures, and its plan."""
        yield Progress("convert: calibrate", 0, 0, "steps")
        search = Search(self.exact, self._feeds(), _likeness, self.floor, self.options.max_size)
        if self.options.calibrate != NONE:
            search.observe()
        results: list[tuple[int, dict[str, float], Plan]] = []
        for event in self._given_plan() or search.run():
            if isinstance(event, Progress):
                yield event
                continue
            plan = event.plan if isinstance(event, Trial) else event
            metrics = self._measured(search, plan, held_out)
            results.append((len(failures(metrics, self.floor, self.checkpoint.weights)), metrics, plan))
            if not results[-1][0] or len(results) == _BUILDS:
                break
        _, metrics, plan = min(results, key=lambda result: (result[0], result[1]["divergence_mean"]))
        if plan is not results[-1][2]:
            self._measured(search, plan, [])
        self.trials = [trial.row() for trial in search.trials]
        return metrics, plan_json(plan)

    def _measured(self, search: Search, plan: Plan, texts: Sequence[list[int]]) -> dict[str, float]:
        pruned(quantize(search.graph, plan, search.seen)).save(self.folder / MODEL)
        return self.compare(self.folder / MODEL, texts) if texts else {}

    def _given_plan(self) -> list[Any]:
        path = self.options.plan
        content = optional_json(path) if path is not None else {}
        return [read_plan((content.get("plan") or content)[MODEL])] if content else []

    def _feeds(self) -> list[dict[str, Any]]:
        """Calibration texts from an empty cache, with the logits of every token."""
        past = self.generator(self.exact).empty_cache()
        return [
            {
                "input_ids": np.array([tokens], np.int64),
                "attention_mask": np.ones((1, len(tokens)), np.int64),
                "position_ids": np.arange(len(tokens), dtype=np.int64)[None],
                LOGITS_FROM: np.zeros(1, np.int64),
                **past,
            }
            for tokens in self.windows(CALIBRATION)
        ]

    # Comparison

    def compare(self, model: Path, texts: Sequence[list[int]]) -> dict[str, float]:
        """How far `model` is from the float32 export on `texts`."""
        with self.generator(self.exact) as theirs, self.generator(model) as ours:
            pairs = [(_logits(theirs, tokens), _logits(ours, tokens)) for tokens in texts]
        p, q = (log_softmax(np.concatenate(column)) for column in zip(*pairs, strict=True))
        following = np.concatenate([[*tokens[1:], -1] for tokens in texts])
        inner = following >= 0
        surprise = [-float(each[inner, following[inner]].mean()) for each in (p, q)]
        lost = np.maximum(divergence(p, q), 0)
        return {
            "divergence_mean": float(lost.mean()),
            "divergence_999": float(np.quantile(lost, 0.999)),
            "same_top_token": float((p.argmax(axis=1) == q.argmax(axis=1)).mean()),
            "perplexity": float(np.exp(surprise[1])),
            "perplexity_ratio": float(np.exp(surprise[1] - surprise[0])),
        }

    def speed(self, model: Path, prompt: Sequence[int]) -> dict[str, float]:
        started = time.perf_counter()
        with self.generator(model) as generator:
            loaded = time.perf_counter() - started
            sampling = Sampling(max_tokens=_SPEED_TOKENS, temperature=0)
            prompt = prompt[: max(1, self.context - _SPEED_TOKENS)]
            done = [event for event in generator.generate(prompt, sampling) if isinstance(event, Done)][-1]
        return {
            "load_seconds": round(loaded, 3),
            "tokens_per_second": round(done.tokens_per_second, 1),
            "prefill_tokens_per_second": round(len(prompt) / max(1e-9, done.prefill_seconds), 1),
        }

    def trust(self, texts: Sequence[list[int]]) -> dict[str, float]:
        """The export against transformers. Raises `BelowFloor` when it gives other answers."""
        chosen = texts[:_ORACLE_TEXTS]
        expected = oracle.logits(self.checkpoint, [(tokens, ()) for tokens in chosen])
        with self.generator(self.exact) as generator:
            found = [_logits(generator, tokens) for tokens in chosen]
        p, q = (log_softmax(np.concatenate(each)) for each in (expected, found))
        lost = float(np.maximum(divergence(p, q), 0).mean())
        if lost > _MOST_DIVERGENCE:
            why = f"transformers gives other answers than its export (divergence {lost:.5f})"
            raise BelowFloor(self.checkpoint.folder, why, "use --to gguf, or report this checkpoint")
        return {"transformers_divergence": lost}

    # The package

    def manifest(self, name: str, bits: float) -> Manifest:
        tokens = self.tokenizer.ids([CHECK_TEXT])[0]
        return Manifest(
            name=name,
            task="chat",
            architecture=self.checkpoint.model_type,
            source=source_of(self.checkpoint),
            quantization=Quantization(self.recipe.target, bits, self.recipe.scheme, self.recipe.kept),
            made_by=made_by(self.recipe, self.options),
            chat=ChatFormat(self.context, stop=self.stop, tokenizer=FILE),
            check=Check(CHECK_TEXT, tuple(tokens)),
        )

    def write_texts(self) -> None:
        package.write_file(self.folder / FILE, self.checkpoint.tokenizer.read_text("utf-8"))
        if template := chat_template(self.checkpoint):
            package.write_file(self.folder / package.TEMPLATE, template)

    def sizes(self) -> dict[str, float]:
        size = sum(path.stat().st_size for path in self.folder.glob("*.onnx*"))
        weights = self.checkpoint.weights
        return {"bits_per_weight": 8 * size / weights, "size_ratio": size / (4 * weights), "bytes": float(size)}


def run(
    checkpoint: Checkpoint, exported: Exported, recipe: Recipe, name: str, folder: Path, options: Options
) -> Work[Outcome]:
    """Raises `Unsupported` for a target that decoders do not have, and `BelowFloor` for an export that is wrong."""
    if recipe.weights not in ("fp32", "int8"):
        raise Unsupported(checkpoint.folder, f"no decoder in {recipe.target}", "use onnx-fp32, onnx-int8 or a GGUF")
    chat = _Chat(checkpoint, recipe, options, folder)
    graph = tidy(Graph.load(exported.path))
    check_nodes(graph, checkpoint.folder)
    last_logits(graph)
    graph.save(chat.exact, external=True)
    held_out = chat.windows(HELD_OUT)
    plan: dict[str, Any] = {}
    if recipe.weights == "int8":
        metrics, plan = yield from chat.int8(held_out)
    else:
        graph.save(folder / MODEL)
        yield Progress("convert: verify", 0, 0, "steps")
        metrics = chat.compare(folder / MODEL, held_out)
    notes = list(checkpoint.notes)
    if options.oracle and oracle.available():
        metrics |= chat.trust(held_out)
    else:
        notes.append("not compared with transformers: it is not installed, or was not asked for")
    metrics |= chat.speed(folder / MODEL, held_out[0]) | chat.sizes()
    missed = failures(metrics, chat.floor, checkpoint.weights)
    chat.write_texts()
    details: dict[str, Any] = {"plan": {MODEL: plan}, "trials": {MODEL: chat.trials}} if plan else {}
    details |= {"floor": asdict(chat.floor), "compared": f"{len(held_out)} texts"}
    manifest = package.write_manifest(folder, chat.manifest(name, metrics["bits_per_weight"]))
    return Outcome(manifest, Comparison(metrics, tuple(missed)), notes, details)


def end_texts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The tokens that end an answer, by their texts: those of generation_config.json, config.json and the tokenizer."""
    pieces = Pieces(checkpoint.tokenizer)
    texts = {token: text for text, token in pieces.ids.items()}
    found: list[str] = []
    for values in (optional_json(checkpoint.folder / "generation_config.json"), checkpoint.config):
        ids = values.get("eos_token_id")
        found += [texts[token] for token in (ids if isinstance(ids, list) else [ids]) if token in texts]
    named = optional_json(checkpoint.folder / "tokenizer_config.json").get("eos_token")
    named = named.get("content") if isinstance(named, dict) else named
    found += [named] if isinstance(named, str) and named in pieces.ids else []
    return tuple(dict.fromkeys(found))


def _likeness(found: Array, expected: Array) -> dict[str, float]:
    lost = np.maximum(divergence(log_softmax(expected), log_softmax(found)), 0)
    return {"divergence_mean": float(lost.mean()), **label_likeness(found, expected)}


def _logits(generator: OrtGenerator, tokens: Sequence[int]) -> Array:
    return np.concatenate(list(generator.score(tokens)))
