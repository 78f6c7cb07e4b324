"""The engine for scores of texts: labels, masked words, named entities, answers, and texts ranked for a query.

One class over an encoder and a tokenizer; the package's task says which of its methods can be used. What a model's
scores mean comes from the manifest. It knows no file, no store and no screen.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgemm.backends import Encoder
from edgemm.batches import Array, BatchOptions, Runner, groups, room, windows
from edgemm.errors import BadFile, PromptTooLong, UsageError
from edgemm.manifest import Manifest
from edgemm.spans import Answer, Entity, Marked, answers, entities
from edgemm.tokenizer import Overflow, Pair, Tokenizer

Text = str | tuple[str, str]
_ANY = 1 << 30  # tokens: what is too long is split or refused here, where it is known what it is for
_OVERLAP = 128  # tokens that neighbouring windows share, where an answer could lie across their border
# What is called for each task
_CALLS = {
    "chat": "open it with open_chat",
    "embed": "open it with open_embedder",
    "fill-mask": "call fill_mask(text)",
    "classify": "call classify(texts)",
    "token-classify": "call tokens(text)",
    "next-sentence": "call next_sentence(first, second)",
    "question-answering": "call answer(question, context)",
    "rerank": "call rerank(query, texts)",
    "image-embed": "open it with open_vision",
    "image-classify": "open it with open_vision",
    "image-text": "open it with open_vision",
}
TASKS = ("fill-mask", "classify", "token-classify", "next-sentence", "question-answering", "rerank")


@dataclass(frozen=True, slots=True)
class Label:
    """The score is a share of 1 where the manifest says so; else it is what the model gives."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Filled:
    """A token for the mask with the number `mask`, its share of the vocabulary, and the text with that mask filled."""

    mask: int
    token: str
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """`index`: which of the texts it was."""

    index: int
    score: float
    text: str


class Classifier:
    """Scores of texts by one encoder, of which only the method of its task can be called."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        manifest: Manifest,
        options: BatchOptions | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        """`labels`: other names than the manifest's for the model's outputs. Raises `BadFile` without `inputs`."""
        if manifest.inputs is None:
            raise BadFile(manifest.name, "the manifest has no `inputs`", "convert or pull the model again")
        self._tokenizer, self._manifest, self._inputs = tokenizer, manifest, manifest.inputs
        self._options = options or BatchOptions()
        self._labels = tuple(labels)
        self._runner = Runner(encoder, self._options, "classify")

    @property
    def task(self) -> str:
        return self._manifest.task

    @property
    def options(self) -> BatchOptions:
        return self._options

    def classify(self, texts: Sequence[Text], top_k: int = 0) -> list[list[Label]]:
        """The labels of each text or pair of texts, the best first; `top_k` 0: all.

        A text over the window is split (or cut, or refused, as the options say): the scores of its windows are
        averaged, each weighted by its number of tokens. Of a pair, the second text is split.
        """
        self._require("classify")
        if isinstance(texts, str):
            raise UsageError("classify", "got one string", "pass a list of texts: classify([text])")
        return self._labelled(texts, top_k)

    def next_sentence(self, first: str, second: str) -> list[Label]:
        """Whether `second` follows on `first`, the better label first."""
        self._require("next-sentence")
        return self._labelled([(first, second)], 0)[0]

    def rerank(self, query: str, texts: Sequence[str], top_k: int = 0) -> list[Ranked]:
        """The texts in the order of their worth for `query`; `top_k` 0: all. Of a long text, the best window counts."""
        self._require("rerank")
        _need("rerank", "query", query)
        scores: list[float] = []
        for group in groups(texts, self._options, len):
            found = self._answers([self._windows((query, text)) for text in group])  # of several labels the first
            scores += [float(max(shares(each, self._manifest.scores)[:, 0])) for each in map(np.stack, found)]
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [Ranked(i, scores[i], texts[i]) for i in order[: top_k or None]]

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Filled]]:
        """For each mask of `text`, [MASK] or <mask>, the likeliest tokens; `top_k` 0: all.

        Raises `UsageError` without a mask, and `PromptTooLong` over the window.
        """
        self._require("fill-mask")
        own = self._inputs.mask_token
        pattern = re.compile("|".join(map(re.escape, dict.fromkeys(("[MASK]", "<mask>", own)))))
        spots = [found.span() for found in pattern.finditer(text)]
        if not spots:
            raise UsageError("fill-mask", f"the text holds no {own}", f'put it where a word is missing: "a {own} day"')
        row = self._tokenizer.single(pattern.sub(lambda _: own, text))
        self._check_length(row)
        places = [i for i, token in enumerate(row.ids) if token == self._tokenizer.token_id(own)]
        if len(places) != len(spots):
            why = f"the tokenizer makes {len(places)} masks of {len(spots)} times {own!r}"
            raise BadFile(self._manifest.name, why, "convert or pull the model again")
        found = shares(self._runner.at(row.ids, places), "softmax")
        return [
            [
                self._filled(text, number, spot, row.ids[:place][-1:], int(token), float(scores[token]))
                for token in np.argsort(-scores, kind="stable")[: top_k or None]
            ]
            for number, (spot, place, scores) in enumerate(zip(spots, places, found, strict=True))
        ]

    def tokens(self, text: str) -> list[Entity]:
        """The named parts of a text of any length, in its order. Windows of a long one overlap."""
        self._require("token-classify")
        row = self._tokenizer.single(text)
        overlap = self._overlap(row, 0)
        rows = windows(row, 0, self._inputs.max_tokens, overlap)
        marked: list[Marked] = []
        for number, (each, values) in enumerate(zip(rows, self._answers([rows])[0], strict=True)):
            found = self._marked(each, values)
            begin = overlap // 2 if number else 0  # each of two neighbours knows its own half best
            end = len(found) - (overlap - overlap // 2 if number < len(rows) - 1 else 0)
            marked += found[begin:end]
        return entities(text, [token for token in marked if text[token.start : token.end].strip()])

    def answer(self, question: str, context: str, top_k: int = 1) -> list[Answer]:
        """The parts of `context` that answer `question`, the best first; an empty one: it is not in there.

        A long context is read in windows that overlap.
        """
        self._require("question-answering")
        _need("answer", "question", question)
        _need("answer", "context", context)
        row = self._tokenizer.pair(question, context, _ANY)
        rows = windows(row, 1, self._inputs.max_tokens, self._overlap(row, 1))
        return answers(context, rows, self._answers([rows])[0], max(1, top_k))

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require(self, task: str) -> None:
        if self.task != task:
            raise UsageError(self._manifest.name, f"is for {self.task}, not for {task}", _CALLS[self.task])

    def _labelled(self, texts: Sequence[Text], top_k: int) -> list[list[Label]]:
        found: list[list[Label]] = []
        for group in groups(texts, self._options, lambda text: sum(map(len, text))):
            rows = [self._windows(text) for text in group]
            for own, values in zip(rows, self._answers(rows), strict=True):
                scores = shares(np.stack(values), self._manifest.scores)
                mean = np.average(scores, axis=0, weights=[len(row.ids) for row in own])
                found.append(ranked(mean, output_names(self._manifest, self._labels, len(mean)), top_k))
        return found

    def _answers(self, texts: Sequence[Sequence[Pair]]) -> list[list[Array]]:
        """What the model gives for each window of each text."""
        rows = [row for own in texts for row in own]
        types = [row.types for row in rows] if self._inputs.token_types else []
        found = iter(self._runner.run([row.ids for row in rows], types))
        return [[next(found) for _ in own] for own in texts]

    def _windows(self, text: Text) -> list[Pair]:
        """The rows of a text or a pair, as the options say. Raises `PromptTooLong`."""
        is_pair = isinstance(text, tuple)
        row = self._tokenizer.pair(*text, _ANY) if isinstance(text, tuple) else self._tokenizer.single(text)
        if self._options.overflow is Overflow.REFUSE:
            self._check_length(row)
        rows = windows(row, int(is_pair), self._inputs.max_tokens)
        return rows[:1] if self._options.overflow is Overflow.CUT else rows

    def _overlap(self, row: Pair, text: int) -> int:
        return min(_OVERLAP, room(row, text, self._inputs.max_tokens) // 2)

    def _check_length(self, row: Pair) -> None:
        most = self._inputs.max_tokens
        if len(row.ids) > most:
            raise PromptTooLong("text", f"has {len(row.ids)} tokens, this model takes {most}", "shorten or split it")

    def _marked(self, row: Pair, values: Array) -> list[Marked]:
        """The tokens of the text with their best labels."""
        scores = shares(values, self._manifest.scores)
        names = output_names(self._manifest, self._labels, scores.shape[1])
        best = scores.argmax(axis=1)
        return [
            Marked(names[best[i]], float(scores[i, best[i]]), *row.offsets[i])
            for i, which in enumerate(row.texts)
            if which == 0
        ]

    def _filled(
        self, text: str, number: int, spot: tuple[int, int], previous: list[int], token: int, score: float
    ) -> Filled:
        """A piece of a word joins what is before it, as the tokenizer's own spelling of both shows."""
        word = self._tokenizer.spelled([token]).strip()
        before, together = self._tokenizer.spelled(previous), self._tokenizer.spelled([*previous, token])
        tail = together[len(before) :] if together.startswith(before) else f" {word}"
        head = text[: spot[0]] if tail[:1].isspace() else text[: spot[0]].rstrip()
        return Filled(number, word, score, head + tail.strip() + text[spot[1] :])


def shares(logits: Array, scores: str) -> Array:
    """float32 of the same shape: `logits` as the manifest's `scores` says, over the last axis."""
    if scores == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
    if scores == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)  # never overflows
    return logits


def ranked(scores: Array, names: Sequence[str], top_k: int = 0) -> list[Label]:
    """Labels, the best first; equal ones in the model's order. `top_k` 0: all."""
    order = np.argsort(-scores, kind="stable")[: top_k or None]
    return [Label(names[i], float(scores[i])) for i in order]


def output_names(manifest: Manifest, given: Sequence[str], count: int) -> Sequence[str]:
    """Names of `count` outputs: those `given`, the manifest's, or numbers. Raises `UsageError` or `BadFile`."""
    names = given or manifest.labels or tuple(f"LABEL_{i}" for i in range(count))
    if len(names) == count:
        return names
    if given:
        why = f"{len(given)} names were given, {manifest.name} has {count} outputs"
        raise UsageError("labels", why, "give one for each output, in their order")
    raise BadFile(manifest.name, f"the manifest names {len(names)} labels for {count} outputs", "convert it again")


def _need(call: str, what: str, text: str) -> None:
    if not text.strip():
        raise UsageError(call, f"the {what} is empty", f"give a {what}")
