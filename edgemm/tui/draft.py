"""A message before it is sent. It knows no widget."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Draft:
    """`instead`: the id of the message whose place it is to take, as another branch."""

    text: str
    attachments: tuple[Path, ...] = ()
    instead: int | None = None
