"""A line and a text area that hold nothing a terminal would obey, however it got there: typed, pasted or given.

They know no form; what their text means is for the screen around them.
"""

from typing import Any

from textual.widgets import Input, TextArea
from textual.widgets.text_area import Edit, EditResult

from edgemm.terminal import safe


class LineField(Input):
    """One line of text."""

    def validate_value(self, value: str) -> str:
        return clean(value).replace("\n", " ").replace("\t", " ")


class TextField(TextArea):
    """Several lines of text."""

    def __init__(self, text: str = "", **options: Any) -> None:
        super().__init__(clean(text), **options)

    def load_text(self, text: str) -> None:
        super().load_text(clean(text))

    def edit(self, edit: Edit) -> EditResult:
        edit.text = clean(edit.text)
        return super().edit(edit)


def clean(text: str) -> str:
    """`text` as a field holds it: ends of lines are "\\n", and control characters are pictures of themselves."""
    return safe(text.replace("\r\n", "\n").replace("\r", "\n"))
