"""How far a run over the index is: one line and a bar, both hidden while there is none. It starts and stops nothing."""

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import ProgressBar, Static

from edgemm.events import Progress
from edgemm.tui.download import Rate
from edgemm.tui.folding import one_line
from edgemm.tui.indexing import Run, describe


class RunBar(Vertical):
    DEFAULT_CSS = """
    RunBar {
        height: 2;
        display: none;
        &.-runs { display: block; }
        & Static { height: 1; text-overflow: ellipsis; text-wrap: nowrap; }
        & ProgressBar { height: 1; width: 1fr; }
        & Bar { width: 1fr; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._rate = Rate()
        self.progress: Progress | None = None  # that is shown

    def compose(self) -> ComposeResult:
        yield Static(markup=False)
        yield ProgressBar(show_eta=False)

    def show(self, run: Run) -> None:
        self.add_class("-runs")
        progress = run.progress
        if progress is not None and progress is not self.progress:
            self.progress = progress
            self._rate.add(progress)
            self.query_one(ProgressBar).update(total=progress.total or None, progress=progress.done)
        text = describe(progress, self._rate) if progress else "index: looking for what has changed"
        stopping = "stopping when what is under way is done · " if run.stopping else ""
        self.query_one(Static).update(Content(one_line(stopping + text)), layout=False)

    def end(self) -> None:
        self.remove_class("-runs")
        self.progress = None
        self.query_one(ProgressBar).update(total=None, progress=0)
