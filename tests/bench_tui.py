"""The transcript with a long chat: processor time to open it, to draw an addition, a key and another width.

Part of `make bench`. The peer is Textual's own Markdown widget, fed with the same answer in the same process. Times are
those of the thread of the user interface: waiting for a frame costs nobody anything.
"""

import asyncio
import statistics
import time
from collections.abc import Callable

from bench import Result
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Markdown, TextArea

from edgemm.tui.widgets.transcript import Entry, Transcript

MESSAGES, SIZE, LIVE = 300, 2000, 4000  # messages, characters of each, characters of an answer that arrives
PIECE = 48  # characters of an addition: what arrives in 0.1 s or so
OPEN, ADDITION, BLOCK, KEY, RESIZE, PEER = 1500.0, 20.0, 30.0, 30.0, 500.0, 1.5  # ms of CPU; the last one a ratio
FRAME = 0.05  # seconds after which an addition is on the screen
PROSE = (
    "Some **prose** with `code`, *emphasis* and a [link](https://example.org), long enough for two rows of a screen.\n"
    "\n- one item of a list\n- another **item**, a little longer\n"
    "\n```python\nreturn [x for x in range(10)]  # ten\n```\n\n"
)
BLOCKS = {
    "code fence": "```python\n" + "x = f(1, 'a')  # a comment\n" * 160,
    "list": "- an *item* and some more words\n" * 140,
    "table": "| a | b |\n|---|---|\n" + "| x | y y y |\n" * 300,
}


class Page(App[None]):
    """The transcript, a place for the peer, and a prompt."""

    def compose(self) -> ComposeResult:
        yield Transcript()
        yield VerticalScroll(id="peer")
        yield TextArea()

    def on_mount(self) -> None:
        self.query_one("#peer").display = False


def chat(messages: int = MESSAGES) -> list[Entry]:
    text = (PROSE * (SIZE // len(PROSE) + 1))[:SIZE]
    return [Entry(i, ("user", "assistant")[i % 2], text) for i in range(messages)]


async def cost(work: Callable[[], object], wait: float) -> float:
    """Milliseconds of this thread for `work` and what it causes within `wait` seconds."""
    began = time.thread_time()
    work()
    await asyncio.sleep(wait)
    return 1000 * (time.thread_time() - began)


async def additions(transcript: Transcript, text: str) -> list[float]:
    """What each addition costs, when each is drawn by itself."""
    transcript.begin(Entry(-1, "assistant", ""))
    found = []
    for start in range(0, LIVE, PIECE):
        drawn = transcript.flushes
        found.append(await cost(lambda at=start: transcript.feed(text[at : at + PIECE]), 0))
        while transcript.flushes == drawn:
            found[-1] += await cost(lambda: None, FRAME)
        found[-1] += await cost(lambda: None, FRAME)
    transcript.settle(Entry(-1, "assistant", text[:LIVE]))
    return found


async def peer(app: Page, text: str) -> list[float]:
    markdown = Markdown()
    app.query_one(Transcript).display = False
    app.query_one("#peer").display = True
    await app.query_one("#peer").mount(markdown)
    pieces = [text[at : at + PIECE] for at in range(0, LIVE, PIECE)]
    return [await cost(lambda piece=piece: markdown.append(piece), FRAME) for piece in pieces]


async def measure() -> list[Result]:
    app = Page()
    async with app.run_test(size=(120, 36)) as pilot:
        transcript, prompt = app.query_one(Transcript), app.query_one(TextArea)
        opened = await cost(lambda: transcript.show(chat()), 1.5)
        shown = f"{MESSAGES} messages of {SIZE} characters, {transcript.mounted} of them mounted"
        keys = [await cost(lambda: prompt.insert("a"), FRAME) for _ in range(20)]
        resized = await cost(lambda: asyncio.ensure_future(pilot.resize_terminal(100, 36)), 1.0)
        await pilot.resize_terminal(120, 36)
        answer = PROSE * (LIVE // len(PROSE) + 1)
        ours = await additions(transcript, answer)
        blocks = {name: statistics.median(await additions(transcript, text)) for name, text in BLOCKS.items()}
        theirs = await peer(app, answer)
    mean, other = statistics.mean(ours), statistics.mean(theirs)
    slowest = max(blocks, key=lambda name: blocks[name])
    each = ", ".join(f"{name} {value:.0f} ms" for name, value in blocks.items())
    against = f"{mean:.1f} and {other:.1f} ms an addition of {PIECE} characters; theirs stands alone on the page"
    return [
        Result("open a long chat", opened, OPEN, "ms CPU", False, shown),
        Result("an addition to an answer", statistics.median(ours), ADDITION, "ms CPU", False, "median; " + shown),
        Result(f"an addition inside a {slowest}", blocks[slowest], BLOCK, "ms CPU", False, each),
        Result("additions, Textual's Markdown / ours", other / mean, PEER, "x", True, against),
        Result("a key in the prompt", statistics.median(keys), KEY, "ms CPU", False, shown),
        Result("another width", resized, RESIZE, "ms CPU", False, shown),
    ]


def results() -> list[Result]:
    """Figures of the transcript; targets are those of a slow machine."""
    return asyncio.run(measure())


if __name__ == "__main__":
    for r in results():
        print(f"{r.what:40} {r.value:8.2f} {r.unit:7} (target {r.target:g}) {r.detail}")
