"""A chat line by line: for screen readers, pipes and any terminal. No boxes, no redraw, and the commands of the screen.

Answers and what was asked for (lists, the history) go to stdout, everything else to stderr.
"""

from edgemm.talk.chat import converse

__all__ = ["converse"]
