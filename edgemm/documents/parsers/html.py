"""HTML to text: what a reader sees, with its headings. The parser streams, so that depth costs nothing."""

import re
from html.parser import HTMLParser

from edgemm.documents.decode import declared_text_of
from edgemm.documents.records import Document, Place, Section

_HIDDEN = {"script", "style", "noscript", "template", "svg", "math", "iframe", "object"}
_BLOCKS = {
    *("p", "div", "section", "article", "main", "header", "footer", "aside", "nav", "ul", "ol", "dl", "dt", "dd"),
    *("table", "tr", "pre", "blockquote", "figure", "figcaption", "form", "hr", "br", "li", "address", "details"),
}
_LEVELS = {f"h{n}": n for n in range(1, 7)}
_TITLE = 200  # characters of a heading
_BLANKS = re.compile(r"[ \t\r\f\v]+")
_EMPTY = re.compile(r"\n\s*\n\s*")


class Reader(HTMLParser):
    """Collects sections; feed it text, then call `finish`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.sections: list[Section] = []
        self._path: list[tuple[int, str]] = []
        self._text: list[str] = []
        self._hidden = 0
        self._level = 0  # of the heading that is open
        self._heading: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = not self.title and not self._hidden
        elif tag == "body":
            self._hidden = 0  # whatever was left open before
        elif tag in _HIDDEN:
            self._hidden += 1
        elif tag in _LEVELS:
            self._close()
            self._level = _LEVELS[tag]
        elif tag in _BLOCKS:
            self._here().append("\n- " if tag == "li" else "\n")
        elif tag in ("td", "th"):
            self._here().append("\t")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _LEVELS and self._level:
            title = " ".join("".join(self._heading).split())
            self._path = [(level, text) for level, text in self._path if level < self._level]
            self._path.append((self._level, title[:_TITLE]))
            self._text.append(f"{title}\n")
            self._level, self._heading = 0, []
        elif tag in _BLOCKS:
            self._here().append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._hidden:
            self._here().append(data)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """As browsers do, up to the next ">"; the library fails on those that word processors write."""
        return self.rawdata.find(">", i) + 1 or -1

    def finish(self) -> None:
        self.close()
        self._close()

    def _here(self) -> list[str]:
        return self._heading if self._level else self._text

    def _close(self) -> None:
        self._text += self._heading  # one that was never closed: text like any other
        self._level, self._heading = 0, []
        text = _EMPTY.sub("\n\n", _BLANKS.sub(" ", "".join(self._text))).strip()
        if text:
            self.sections.append(Section(text, Place(), tuple(title for _, title in self._path if title)))
        self._text = []


def html(data: bytes, name: str) -> Document:
    reader = read(declared_text_of(data))
    title = " ".join(reader.title.split()) or name.rsplit("/", 1)[-1]
    return Document(title, tuple(reader.sections))


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.finish()
    return reader
