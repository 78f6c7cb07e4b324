"""The bytes of a keyboard as text, in which a paste stays one: nothing that was copied elsewhere presses a key.

Bytes that are no UTF-8 become �, and ESC inside a paste is shown as ␛. Textual 8.2 ends its input at such a byte, and
takes what follows such an ESC for keys, Enter included. It knows no key and no widget.
"""

from codecs import getincrementaldecoder

_BEGIN, _END = "\x1b[200~", "\x1b[201~"


class Decoder:
    """Stands for an incremental UTF-8 decoder; the marks of a paste may be split over any number of reads."""

    def __init__(self) -> None:
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self._pasting = False
        self._tail = ""  # of what was typed: perhaps the beginning of a mark, passed on already
        self._held = ""  # of what was pasted: perhaps the beginning of a mark

    def decode(self, data: bytes, final: bool = False) -> str:
        text, self._held = self._held + self._decode(data, final), ""
        done = ""
        while text:
            part, text = self._pasted(text) if self._pasting else self._typed(text)
            done += part
        return done

    def _typed(self, text: str) -> tuple[str, str]:
        """What is typed, up to the beginning of a paste; and the rest. It is not held back: keys are not to wait."""
        seen = self._tail + text
        before, self._pasting = seen.find(_BEGIN), _BEGIN in seen
        end = before + len(_BEGIN) - len(self._tail) if self._pasting else len(text)
        self._tail = "" if self._pasting else seen[1 - len(_BEGIN) :]
        return text[:end], text[end:]

    def _pasted(self, text: str) -> tuple[str, str]:
        """What is pasted, to its end; and the rest."""
        inside, end, rest = text.partition(_END)
        if not end:
            self._held = next((_END[:n] for n in range(len(_END) - 1, 0, -1) if inside.endswith(_END[:n])), "")
            inside = inside.removesuffix(self._held)
        self._pasting = not end
        return inside.replace("\x1b", "␛") + end, rest
