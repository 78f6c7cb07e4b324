"""The fastest INT8 that keeps the floor: builds of a graph are tried from the fastest to the slowest until one holds.

First the ways that cost (almost) nothing at run time; then single linear layers are stored in more bits, those first
that gain most for their time. Likeness is measured on calibration inputs here; whether it holds on others is verified
afterwards. It knows neither texts nor pictures.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from converters.checkpoint import Array
from converters.onnx_graph import Graph
from converters.onnx_int8 import BLOCK8, FP32, INT8, OUTLIERS, Plan, outlier_channels, quantize
from converters.onnx_linear import Activation, Feeds, Linear, find_linears, observe
from converters.onnx_parts import answers
from converters.recipe import Floor
from converters.verify import failures
from edgemm.backends.ort import OrtModel
from edgemm.events import Progress

Likeness = Callable[[Array, Array], dict[str, float]]
_TURNS, _SLOW = 3, 0.5  # of each build and of float32, whose best times are compared; one, if it takes more seconds
_ALPHAS = (0.5, 0.4, 0.6)


@dataclass(frozen=True, slots=True)
class Trial:
    """One build: `speed` is times float32, `bytes` those of its constants, `missed` what lies below the floor."""

    plan: Plan
    what: str
    metrics: dict[str, float]
    speed: float
    bytes: int
    missed: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        return {"what": self.what, "speed": round(self.speed, 3), "bytes": self.bytes, **self.metrics}


@dataclass
class Search:
    """Tries builds of the float32 graph in `path`. `most` bytes: what a build may have, 0 for any number.

    `seen` is what was observed on the inputs `feeds`; without it nothing is smoothed.
    """

    path: Path
    feeds: Sequence[Feeds]
    likeness: Likeness
    floor: Floor
    most: int = 0
    seen: dict[str, Activation] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = Graph.load(self.path)
        self.linears = find_linears(self.graph)

    @cached_property
    def _exact(self) -> OrtModel:
        return OrtModel(self.path)

    @cached_property
    def _expected(self) -> Array:
        return answers(self._exact, self.feeds)

    def observe(self) -> None:
        """Look at what flows into the linear layers, for everything that is tried from now on."""
        self.seen = observe(self.path, self.linears, self.feeds)

    def run(self) -> Iterator[Progress | Trial]:
        """What is tried, as `Progress`, and each build that holds, as a `Trial`: the fastest kinds come first.

        The caller stops when a build holds on other inputs too. When none holds here, the best one is given at last.
        """
        for what, plan in self._cheap_plans():
            yield from self._try(what, plan)
        if all(trial.missed for trial in self.trials):
            yield from self._with_exceptions()
        if all(trial.missed for trial in self.trials):
            yield min(self.trials, key=lambda trial: (len(trial.missed), -_quality(trial)))

    def _try(self, what: str, plan: Plan) -> Iterator[Progress | Trial]:
        yield Progress(f"convert: INT8, {what}", len(self.trials), 0, "builds")
        self.trials.append(self._measured(what, plan))
        if not self.trials[-1].missed:
            yield self.trials[-1]

    def _cheap_plans(self) -> Iterator[tuple[str, Plan]]:
        """What costs at most a few percent of the time."""
        signed = self._with_outliers([linear for linear in self.linears if linear.floor is None])
        yield f"every linear layer, smoothing {_ALPHAS[0]}", Plan(_ALPHAS[0])
        if signed:
            for alpha in _ALPHAS:
                yield f"outlier channels in float32, smoothing {alpha}", Plan(alpha, exceptions=signed)
            every = self._with_outliers(self.linears)
            yield "outlier channels of every layer in float32", Plan(_ALPHAS[0], exceptions=every)
        elif self.seen:
            yield from ((f"every linear layer, smoothing {alpha}", Plan(alpha)) for alpha in _ALPHAS[1:])

    def _with_outliers(self, linears: Sequence[Linear]) -> dict[str, str]:
        """Those of `linears` that have outlier channels, as exceptions of a plan."""
        seen = {linear.name: self.seen[linear.x].maxima for linear in linears if linear.x in self.seen}
        return {name: OUTLIERS for name, maxima in seen.items() if len(outlier_channels(maxima))}

    def _with_exceptions(self) -> Iterator[Progress | Trial]:
        """More bits for some layers: as few as needed, found by halving; float32 where 8 bits in blocks do not do."""
        base = max(self.trials, key=_quality)
        ranked = yield from self._ranked(base)
        for kind in (BLOCK8, FP32):
            found = [event for event in self._try(*_upgraded(base.plan, ranked, kind)) if isinstance(event, Trial)]
            low, high = 0, len(ranked)
            while found and high - low > 1:
                middle = (low + high) // 2
                better = list(self._try(*_upgraded(base.plan, ranked[:middle], kind)))
                yield from (event for event in better if isinstance(event, Progress))
                trials = [event for event in better if isinstance(event, Trial)]
                low, high = (low, middle) if trials else (middle, high)
                found += trials
            if found:
                yield from reversed(found)  # the one with the fewest exceptions first
                return

    def _ranked(self, base: Trial) -> Generator[Progress, None, list[str]]:
        """Linear layers by what more bits for each alone gain, for the time that they take."""
        gains: dict[str, float] = {}
        plan = replace(base.plan, feedback=False)
        start = _quality(self._measured("", plan))
        for done, linear in enumerate(self.linears):
            yield Progress("convert: sensitivity", done, len(self.linears), "layers")
            one = replace(plan, exceptions={**plan.exceptions, linear.name: BLOCK8})
            gain = _quality(self._measured("", one)) - start
            gains[linear.name] = gain / (linear.inputs * linear.outputs)
        return sorted(gains, key=lambda name: -gains[name])

    def _measured(self, what: str, plan: Plan) -> Trial:
        built = quantize(self.graph, plan, self.seen)
        file = self.path.with_name("trial.onnx")
        built.save(file, external=True)
        model = OrtModel(file, int8=True)
        metrics = self.likeness(answers(model, self.feeds), self._expected)
        missed = failures(metrics, self.floor)
        if self.most and built.bytes() > self.most:
            missed.append(f"it has {built.bytes()} bytes, the most is {self.most}")
        return Trial(
            plan, what, metrics, speed(self._exact, model, self.feeds) if what else 0.0, built.bytes(), tuple(missed)
        )


def speed(exact: OrtModel, ours: OrtModel, feeds: Sequence[Feeds]) -> float:
    """How many times faster than `exact` a model runs on the same inputs, in turns."""
    times = [(_seconds(exact, feeds), _seconds(ours, feeds))]
    for _ in range(_TURNS - 1 if times[0][0] < _SLOW else 0):
        times.append((_seconds(exact, feeds), _seconds(ours, feeds)))
    slow, fast = (min(column) for column in zip(*times, strict=True))
    return float(slow / fast)


def _seconds(model: OrtModel, feeds: Sequence[Feeds]) -> float:
    started = time.perf_counter()
    for feed in feeds:
        model.run(feed)
    return time.perf_counter() - started


def _upgraded(plan: Plan, names: Sequence[str], kind: str) -> tuple[str, Plan]:
    store = "8 bits in blocks" if kind == BLOCK8 else "float32"
    return f"{len(names)} linear layers in {store}", replace(
        plan, exceptions={**plan.exceptions, **dict.fromkeys(names, kind)}
    )


def _quality(trial: Trial) -> float:
    """Minus the loss, as far as one number tells it."""
    figures = ("cosine_mean", "cosine_min", "label_correlation")
    return float(sum(trial.metrics.get(name, 0.0) for name in figures))


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as report.json and --plan hold it."""
    return {"alpha": plan.alpha, "feedback": plan.feedback, "exceptions": dict(plan.exceptions), "others": INT8}


def read_plan(content: dict[str, Any]) -> Plan:
    """The reverse of `plan_json`. Raises `KeyError`, `TypeError` or `ValueError`."""
    exceptions = {str(name): str(kind) for name, kind in content["exceptions"].items()}
    if not set(exceptions.values()) <= {OUTLIERS, BLOCK8, FP32}:
        raise ValueError(f"unknown storage {sorted(set(exceptions.values()))}")
    return Plan(float(content["alpha"]), bool(content["feedback"]), exceptions)
