"""The chat itself: what was said, the answer that comes, the editor, and how full the context is.

It turns keys and slash commands into calls of the conversation, which runs in a thread, and draws what that tells.
While a model is loaded the chat can be read, and what is sent waits.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea
from textual.worker import WorkerError

from edgemm import attachments, commands
from edgemm.answer import Begun, Ended, Grown
from edgemm.attachments import Attachment
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.context import Plan
from edgemm.conversation import Conversation
from edgemm.desk import Desk
from edgemm.errors import EdgemmError
from edgemm.events import Note, Progress
from edgemm.sessions import ChatInfo, Turn, branch
from edgemm.tui import actions, slash, view
from edgemm.tui.entry import Entry
from edgemm.tui.screens.frame import Frame, told
from edgemm.tui.widgets.prompt import Prompt

_METER_PAUSE = 0.25  # seconds without a key before tokens are counted
_PARK_PAUSE = 1.5  # seconds without work before the KV cache is saved
Events = Iterator[Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that waits to be sent."""

    text: str
    attachments: tuple[Path, ...] = ()


class ChatScreen(Frame):
    """`chat` None: a new chat with `model`, stored when the first message is sent."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.BINDINGS,
        Binding("pageup", "scroll('page_up')", "Scroll up", id="chat.up"),
        Binding("pagedown", "scroll('page_down')", "Scroll down", id="chat.down"),
        Binding("escape", "stop", "Stop the answer, or choose no message", id="chat.stop"),
    ]

    @dataclass
    class Worked(Message):
        """Something happened in a thread: an event of the conversation, or an error."""

        event: Any

    @dataclass
    class Ready(Message):
        """The model of the chat is loaded; or it is not, and the notes say why."""

        chat: int
        conversation: Conversation | None
        notes: list[Note]

    @dataclass
    class Counted(Message):
        """What the draft costs."""

        plan: Plan
        draft: int

    def __init__(self, desk: Desk, model: str, chat: int | None) -> None:
        super().__init__()
        self.desk, self.model = desk, model
        self.info: ChatInfo | None = desk.sessions.chat(chat) if chat is not None else None
        self.conversation: Conversation | None = None
        self.queue: list[Draft] = []
        self.editing: int | None = None  # the message that the draft is to take the place of
        self.turns: list[Turn] = []
        self._busy = ""  # what a thread does: "load", "answer" or nothing
        self._stopped = False
        self._grown = Grown("", "")
        self._reading: tuple[float, int] | None = None  # since when the prompt is read, and how much was read then
        self._counting: Timer | None = None
        self._parking: Timer | None = None
        self._files: dict[Path, Attachment] = {}
        self.warned = 0.0  # when Ctrl+C was pressed last

    # What is on it

    @told
    def on_mount(self) -> None:
        self.prompt.set_commands([(row.name, row.help) for row in commands.ROWS])
        self.prompt.set_history(self.desk.sessions.prompts())
        self.prompt.focus()
        if self.desk.problem:
            self.tell(self.desk.problem)
        self.open((self.info or self.desk.new_chat(self.model)).id)

    def branch(self) -> list[Turn]:
        return branch(self.turns, self.chat.leaf)

    @property
    def settings(self) -> ChatSettings:
        return self.conversation.settings if self.conversation else ChatSettings()

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    @property
    def chat(self) -> ChatInfo:
        assert self.info is not None
        return self.info

    # Chats and models

    def open(self, chat: int) -> None:
        """Show a chat, and load its model; the KV cache of the chat before is kept."""
        before, self.conversation, self.editing = self.conversation, None, None
        if self.info is not None and self.info.id != chat:
            self.desk.forget_if_empty(self.info.id)
        self.info = self.desk.sessions.chat(chat)
        self._busy = "load"
        self.refresh_chat()
        self.status("")
        self._load(chat, before)

    def change_model(self, name: str) -> None:
        self.desk.sessions.set_model(self.chat.id, name)
        self.model = name
        self.open(self.chat.id)

    @work(thread=True, group="model")
    def _load(self, chat: int, before: Conversation | None) -> None:
        try:
            conversation = self.desk.open_chat(chat, before)
            self.post_message(self.Ready(chat, conversation, list(conversation.restore())))
        except EdgemmError as error:
            self.post_message(self.Ready(chat, None, [Note(str(error))]))

    @on(Ready)
    @told
    def _ready(self, message: Ready) -> None:
        if message.chat != self.chat.id:  # another chat was opened meanwhile
            return
        self._busy, self.conversation = "", message.conversation
        self.refresh_chat()
        damage = [message.conversation.problem] if message.conversation else []
        self.tell(" · ".join(filter(None, [*(note.text for note in message.notes), *damage, self.desk.problem])))
        self._count_soon()
        self._next()

    def leave_model(self) -> None:
        """Free the memory of the model; `open` loads it again."""
        self.conversation = None
        self.desk.unload()
        self._entitle()

    def refresh_chat(self) -> None:
        """Draw the open branch and the title anew."""
        self._read_chat()
        self.transcript.show(view.entries(self.turns, self.chat.leaf))
        self._entitle()

    def _read_chat(self) -> None:
        self.turns = self.desk.sessions.turns(self.chat.id)
        self.info = self.desk.sessions.chat(self.chat.id)

    def _entitle(self) -> None:
        state = " (loading)" if self._busy == "load" else "" if self.conversation else " (not loaded)"
        self.entitle(f"{self.chat.title or 'new chat'} — {self.chat.model}{state}")

    # Sending

    @on(Prompt.Submitted)
    @told
    def _submitted(self, message: Prompt.Submitted) -> None:
        if message.text.startswith("/"):
            slash.obey(self, message.text)
        else:
            self.submit(Draft(message.text, message.attachments))

    def submit_text(self, text: str) -> None:
        self.submit(Draft(text))

    def submit(self, draft: Draft) -> None:
        """Send it, or let it wait for the answer before it."""
        self.tell("")
        if self.busy or self.conversation is None:
            self.queue.append(draft)
            self.status(f"{len(self.queue)} waiting")
        else:
            self._send(draft)

    def _send(self, draft: Draft) -> None:
        conversation = self.conversation
        assert conversation is not None
        try:
            attached = [self._file(path) for path in draft.attachments]
            message, self.editing = self.editing, None
            if message is not None and conversation.turn(message).role == "assistant":
                self.run(lambda: conversation.resume(conversation.rewrite(message, draft.text).id))
                return
            plan = conversation.plan(draft.text, attached, message)
        except EdgemmError as error:
            self.give_back(draft, str(error))
            return

        def send(policy: Policy | None = None) -> Events:
            if message is not None:
                return conversation.edit(message, draft.text, policy)
            return conversation.send(draft.text, attached, policy)

        if plan.dropped:
            actions.ask_what_goes(self, plan, draft, send)
        else:
            self.run(send)

    def _file(self, path: Path) -> Attachment:
        if path not in self._files:
            self._files[path] = attachments.read(path)
        return self._files[path]

    def give_back(self, draft: Draft, why: str) -> None:
        """What was not sent stands in the editor again."""
        self.prompt.put(draft.text, draft.attachments)
        self.tell(why)

    # Answers

    def run(self, make: Callable[[], Events]) -> None:
        """Let the conversation work in a thread, and show what it tells."""
        if self.busy:
            self.tell("one answer at a time — Esc stops this one")
            return
        self._busy, self._stopped = "answer", False
        self._reading = None
        self._work(make)

    @work(thread=True, group="answer")
    def _work(self, make: Callable[[], Events]) -> None:
        try:
            for event in make():
                self.post_message(self.Worked(event))
        except EdgemmError as error:
            self.post_message(self.Worked(error))
        finally:
            self.post_message(self.Worked(None))

    @on(Worked)
    @told
    def _worked(self, message: Worked) -> None:
        match message.event:
            case Progress():
                self._read(message.event)
            case Begun():
                self._begin(message.event)
            case Grown():
                self._grow(message.event)
            case Ended():
                self.desk.speeds.record(self.chat.model, message.event.done)
            case Note():
                self.tell(message.event.text)
            case EdgemmError():
                self.tell(str(message.event))
            case None:
                self._idle()

    def _read(self, event: Progress) -> None:
        now = time.monotonic()
        if self._reading is None:
            self._reading = (now, event.done)
        since, before = self._reading
        self.status(view.reading(event, now - since, before))

    def _begin(self, event: Begun) -> None:
        self._read_chat()
        self._entitle()
        self.transcript.show(view.entries(self.turns, event.question.id))
        self._grown = Grown(event.answer.text, event.answer.reasoning)
        self.transcript.begin(view.growing(event.answer, self.turns, self.chat.model))
        self.transcript.to_end()

    def _grow(self, event: Grown) -> None:
        before, self._grown = self._grown, event
        if event.text.startswith(before.text) and event.reasoning.startswith(before.reasoning):
            self.transcript.feed(event.text[len(before.text) :], event.reasoning[len(before.reasoning) :])
        else:  # what looked like the answer was its reasoning
            entry = Entry(-1, "assistant", event.text, event.reasoning, name=self.chat.model)
            self.transcript.settle(entry)
            self.transcript.show(view.entries(self.turns, self.chat.leaf)[:-1])
            self.transcript.begin(entry)

    def _idle(self) -> None:
        self._busy = ""
        self.refresh_chat()
        self.status(self._last_figures())
        self._count_soon()
        if self._stopped and self.queue:
            self.give_back(self.queue.pop(0), f"stopped; the next message is here, {len(self.queue)} more wait")
        else:
            self._next()

    def _next(self) -> None:
        if self.queue and self.conversation is not None and not self.busy:
            self._send(self.queue.pop(0))
        elif not self.busy:
            self._park_soon()

    def _last_figures(self) -> str:
        turn = next(reversed(self.branch()), None)
        return view.footer(turn.details.get("figures")) if turn else ""

    # How full the context is, and the KV cache

    @on(TextArea.Changed)
    def _count_soon(self) -> None:
        self._counting = self._later(self._counting, _METER_PAUSE, self._count)

    def _later(self, timer: Timer | None, seconds: float, call: Callable[[], None]) -> Timer:
        if timer is not None:
            timer.stop()
        return self.set_timer(seconds, call)

    def _count(self) -> None:
        if self.conversation is not None and not self.busy:
            self._weigh(self.conversation, self.prompt.expanded(), self.prompt.attachments)

    @work(thread=True, group="meter", exclusive=True)
    def _weigh(self, conversation: Conversation, text: str, paths: tuple[Path, ...]) -> None:
        """Count in a thread: the model splits the text, and may be slow."""
        with suppress(EdgemmError):  # a file that cannot be read is told when the message is sent
            plan = conversation.plan(text, [self._file(path) for path in paths])
            self.post_message(self.Counted(plan, len(conversation.generator.tokenize(text))))

    @on(Counted)
    @told
    def _counted(self, message: Counted) -> None:
        if self.busy or self.conversation is None:
            return
        plan, total = message.plan, self.conversation.generator.info.context
        gone = f" · {len(plan.dropped)} oldest messages will not fit" if plan.dropped else ""
        self.status(view.meter(plan.tokens, total, message.draft) + gone, self._last_figures())

    def _park_soon(self) -> None:
        self._parking = self._later(self._parking, _PARK_PAUSE, self._park)

    def _park(self) -> None:
        if self.conversation is not None and not self.busy:
            self.run_worker(self.conversation.park, thread=True, group="park", exclusive=True)

    async def leave(self) -> None:
        """Stop what runs, keep the KV cache, free the model."""
        if self.busy and self.conversation is not None:
            self.conversation.stop()
        with suppress(WorkerError):
            await self.workers.wait_for_complete([w for w in self.workers if w.group in ("answer", "model", "park")])
        conversation, self.conversation = self.conversation, None
        if conversation is not None:
            await asyncio.to_thread(conversation.park)
        self.desk.forget_if_empty(self.chat.id)

    # Keys

    def action_do(self, name: str) -> None:
        actions.by_name(name).run(self)

    def action_scroll(self, how: str) -> None:
        getattr(self.transcript, f"action_{how}")()

    def action_stop(self) -> None:
        if self._busy == "answer" and self.conversation is not None:
            self._stopped = True
            self.conversation.stop()
        elif self.transcript.selected is not None:
            self.transcript.select(None)
        else:
            self.tell("")
            self.editing = None
