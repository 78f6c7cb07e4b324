"""How well models find things: a collection of passages and queries, every system over it, and their figures.

Nothing here opens a model or knows a terminal: what embeds and what ranks again is handed in.
"""

from edgemm.evaluation.records import Collection, Ranking, Report, Row, Scores, Text
from edgemm.evaluation.run import Candidate, evaluate

__all__ = ["Candidate", "Collection", "Ranking", "Report", "Row", "Scores", "Text", "evaluate"]
