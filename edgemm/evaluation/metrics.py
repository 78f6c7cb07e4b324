"""The measures of a ranking, as trec_eval and with it BEIR compute them. It knows keys and gains, and no system.

nDCG has linear gains, rel / log2(rank + 1), and its ideal is that of all judged passages, cut at the same rank
(`ndcg_cut` of trec_eval; Järvelin and Kekäläinen 2002 without their base). Recall and MRR count gains above 0.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from edgemm.evaluation.records import Gains, Scores


def score(found: Sequence[str], gains: Gains) -> Scores:
    """Of one query: the keys that were found, the best first. Without a gain above 0 every figure is 0."""
    return Scores(ndcg(found, gains, 10), recall(found, gains, 10), recall(found, gains, 100), mrr(found, gains, 10))


def mean(each: Sequence[Scores]) -> Scores:
    """The mean of each figure over at least one query."""
    return Scores(
        fmean(one.ndcg10 for one in each),
        fmean(one.recall10 for one in each),
        fmean(one.recall100 for one in each),
        fmean(one.mrr10 for one in each),
    )


def ndcg(found: Sequence[str], gains: Gains, cut: int) -> float:
    """Normalized discounted cumulative gain of the first `cut`."""
    ideal = _dcg(sorted(gains.values(), reverse=True)[:cut])
    return _dcg(gains.get(key, 0.0) for key in found[:cut]) / ideal if ideal > 0 else 0.0


def recall(found: Sequence[str], gains: Gains, cut: int) -> float:
    """The share of the relevant passages that is among the first `cut`."""
    relevant = {key for key, gain in gains.items() if gain > 0}
    return len(relevant.intersection(found[:cut])) / len(relevant) if relevant else 0.0


def mrr(found: Sequence[str], gains: Gains, cut: int) -> float:
    """1 / the rank of the first relevant passage, or 0 if that is beyond `cut`."""
    return next((1 / rank for rank, key in enumerate(found[:cut], 1) if gains.get(key, 0.0) > 0), 0.0)


def _dcg(gains: Iterable[float]) -> float:
    return sum(max(gain, 0.0) / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
