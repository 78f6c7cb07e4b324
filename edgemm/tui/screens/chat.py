"""The chat itself: what was said, the answer that comes, the editor, and how full the context is.

It turns keys and slash commands into calls of the conversation, which runs in a thread, and draws what that tells.
While a model is loaded the chat can be read, and what is sent waits.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea

from edgemm import attachments, commands
from edgemm.answer import Begun, Ended, Events, Grown
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.context import Plan
from edgemm.conversation import Conversation
from edgemm.desk import Desk
from edgemm.errors import EdgemmError
from edgemm.events import Note, Progress
from edgemm.sessions import ChatInfo, Turn, branch
from edgemm.tui import actions, slash, view
from edgemm.tui.draft import Draft
from edgemm.tui.entry import Entry
from edgemm.tui.screens.frame import Frame, told
from edgemm.tui.widgets.prompt import Prompt

_METER_PAUSE = 0.25  # seconds without a key before tokens are counted
_PARK_PAUSE = 1.5  # seconds without work before the KV cache is saved


class ChatScreen(Frame):
    """`chat` None: a new chat with `model`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.BINDINGS,
        Binding("pageup", "scroll('page_up')", "Scroll up", id="chat.up", priority=True),
        Binding("pagedown", "scroll('page_down')", "Scroll down", id="chat.down", priority=True),
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
        self.desk, self.model, self._first = desk, model, chat
        self.info: ChatInfo | None = None
        self.conversation: Conversation | None = None
        self.queue: list[Draft] = []
        self.editing: int | None = None  # the message that the draft is to take the place of
        self.turns: list[Turn] = []
        self._busy = ""  # what a thread does: "load", "answer" or nothing
        self._stopped = False
        self._sending: Draft | None = None  # until it is stored
        self._grown = Grown("", "")
        self._reading: tuple[float, int] | None = None  # since when the prompt is read, and how much was read then
        self._counting: Timer | None = None
        self._parking: Timer | None = None
        self.warned = 0.0  # when Ctrl+C was pressed last

    # What is on it

    @told
    def on_mount(self) -> None:
        self.prompt.set_commands([(row.name, row.help) for row in commands.ROWS])
        self.prompt.set_history(self.desk.sessions.prompts())
        self.prompt.focus()
        try:
            self.open(self._first or self.desk.new_chat(self.model).id)
        except EdgemmError as error:  # a chat that is gone or damaged
            self.open(self.desk.new_chat(self.model).id)
            self.tell(str(error))

    def branch(self) -> list[Turn]:
        return branch(self.turns, self.chat.leaf)

    @property
    def settings(self) -> ChatSettings:
        return self.conversation.settings if self.conversation else ChatSettings()

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    @property
    def answering(self) -> bool:
        return self._busy == "answer"

    @property
    def chat(self) -> ChatInfo:
        assert self.info is not None
        return self.info

    # Chats and models

    def open(self, chat: int) -> None:
        """Show a chat, and load its model; the KV cache of the chat before is kept."""
        old, before = self.info, self.conversation
        self._read_chat(chat)  # raises before anything changes
        self.conversation, self.editing, self._busy = None, None, "load"
        self.tell(self.desk.problem)
        if old is not None and old.id != chat:
            self.desk.forget_if_empty(old.id)
            while self.queue:  # what waits belongs to the chat before
                self.give_back(self.queue.pop(), "")
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
        if news := [*(note.text for note in message.notes), *filter(None, damage)]:
            self.tell(" · ".join(filter(None, [*news, self.desk.problem])))
        self._count_soon()
        self._next()

    def leave_model(self) -> None:
        """Free the memory of the model; `open` loads it again."""
        self.conversation = None
        self.desk.unload()
        self._entitle()

    def refresh_chat(self) -> None:
        """Draw the open branch and the title anew."""
        self._read_chat(self.chat.id)
        if not self.answering:  # what grows is on the screen
            self.transcript.show(view.entries(self.turns, self.chat.leaf))
        self._entitle()

    def _read_chat(self, chat: int) -> None:
        self.turns, self.info = self.desk.sessions.turns(chat), self.desk.sessions.chat(chat)

    def _entitle(self) -> None:
        state = " (loading)" if self._busy == "load" else "" if self.conversation else " (not loaded)"
        docs = " · documents" if self.settings.docs else ""
        self.entitle(f"{self.chat.title or 'new chat'} — {self.chat.model}{state}{docs}")

    # Sending

    @on(Prompt.Submitted)
    @told
    def _submitted(self, message: Prompt.Submitted) -> None:
        if message.text.startswith("/"):
            slash.obey(self, message.text)
        else:
            self.submit(Draft(message.text, message.attachments, self.editing))

    def submit(self, draft: Draft) -> None:
        """Send it, or let it wait for the answer before it."""
        self.editing = None
        self.tell("")
        if self.busy or self.conversation is None:
            self.queue.append(draft)
            self.status(view.at_work(self.answering, len(self.queue)))
        else:
            self._send(draft)

    def _send(self, draft: Draft) -> None:
        conversation, message = self.conversation, draft.instead
        assert conversation is not None
        try:
            attached = [attachments.read(path) for path in draft.attachments]
            if message is not None and conversation.turn(message).role == "assistant":
                self.run(lambda: conversation.resume(conversation.rewrite(message, draft.text).id), draft)
                return
            plan = conversation.plan(draft.text, attached, message)
        except EdgemmError as error:
            self.give_back(draft, str(error))
            return

        def send(policy: Policy | None = None) -> Events:
            if message is not None:
                return conversation.edit(message, draft.text, policy, attached)
            return conversation.send(draft.text, attached, policy)

        if plan.dropped:
            actions.ask_what_goes(self, plan, draft, send)
        else:
            self.run(send, draft)

    def give_back(self, draft: Draft, why: str) -> None:
        """What was not sent stands in the editor again, before what is typed there meanwhile."""
        text = "\n\n".join(filter(None, (draft.text, self.prompt.expanded().strip())))
        self.prompt.put(text, tuple(dict.fromkeys((*draft.attachments, *self.prompt.attachments))))
        self.editing = draft.instead or self.editing
        self.tell(why)

    # Answers

    def run(self, make: Callable[[], Events], draft: Draft | None = None) -> None:
        """Let the conversation work in a thread, and show what it tells. `draft` comes back if it cannot be stored."""
        if self.busy:
            self.tell("one answer at a time — Esc stops this one")
            return
        self._busy, self._stopped, self._sending, self._reading = "answer", False, draft, None
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
                self._failed(message.event)
            case None:
                self._idle()

    def _failed(self, error: EdgemmError) -> None:
        draft, self._sending = self._sending, None
        if draft is not None:
            self.give_back(draft, str(error))
        else:
            self.tell(str(error))

    def _read(self, event: Progress) -> None:
        now = time.monotonic()
        if self._reading is None:
            self._reading = (now, event.done)
        since, before = self._reading
        self.status(view.reading(event, now - since, before))

    def _begin(self, event: Begun) -> None:
        self._sending = None
        self._read_chat(self.chat.id)
        self._entitle()
        self.transcript.show(view.entries(self.turns, event.question.id))
        self._grown = Grown(event.answer.text, event.answer.reasoning)
        self.transcript.begin(view.growing(event.answer, self.turns, self.chat.model))
        self.transcript.to_end()

    def _grow(self, event: Grown) -> None:
        before, self._grown = self._grown, event
        if self._reading is not None:
            self._reading = None
            self.status(view.at_work(self.answering, len(self.queue)))
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
            plan = conversation.plan(text, [attachments.read(path) for path in paths])
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
        self.queue.clear()
        if self.busy and self.conversation is not None:
            self.conversation.stop()
        elif self.busy:
            self.status("waiting for the model to stop loading")
        groups = ("answer", "model", "park")  # not "ask": that may wait for an open dialogue
        busy = [worker.wait() for worker in self.workers if worker.group in groups]
        await asyncio.gather(*busy, return_exceptions=True)
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
        if self.answering and self.conversation is not None:
            self._stopped = True
            self.conversation.stop()
        elif self.transcript.selected is not None:
            self.transcript.select(None)
        else:
            self.tell("")
            if self.editing is not None:
                self.editing = None
                self.prompt.clear_draft()
