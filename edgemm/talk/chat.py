"""The chat that is open: what is asked goes to its conversation, and commands to their table.

A chat outlives its model: what fails is told in one line, and the next message is read.
"""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgemm import cite, commands, context, terminal
from edgemm.answer import Begun, Ended, Grown
from edgemm.attachments import Attachment
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.context import Plan
from edgemm.conversation import Conversation
from edgemm.desk import Desk
from edgemm.errors import EdgemmError, UsageError
from edgemm.events import Note, Progress
from edgemm.plain import stopping
from edgemm.sessions import Turn
from edgemm.talk import show, table, typed

_NAMED = 4  # of the messages that would be left out
_CHOICES = {"d": Policy.DROP, "s": Policy.SUMMARISE}


def converse(desk: Desk, model: str, chat: int | None = None) -> None:
    """Chat until Ctrl-D or /exit: in `chat`, else in a new one. Raises what stands in the way of its model."""
    typed.prepare(desk.sessions.prompts())
    if desk.problem:
        terminal.note(desk.problem)
    talk = Talk(desk, chat or desk.new_chat(model).id)
    try:
        talk.load(talk.number)
        terminal.note(f"{talk.model}: type a message, /help for commands, Ctrl-D to leave")
        for text in typed.messages():
            talk.obey(text)
            if talk.ended:
                break
    finally:
        talk.leave()


@dataclass
class Talk:
    """The open chat `number`, and the files that go with the next question."""

    desk: Desk
    number: int
    ended: bool = False
    attached: list[Attachment] = field(default_factory=list)
    _open: Conversation | None = None

    @property
    def chat(self) -> Conversation:
        if self._open is None:
            raise UsageError("this chat", "its model is not loaded", "choose one with /model NAME")
        return self._open

    # Chats and models

    @property
    def model(self) -> str:
        """The name of the chat's model, be it loaded or not."""
        return self._open.info.model if self._open else self.desk.sessions.chat(self.number).model

    def load(self, number: int) -> None:
        """Load the model of a chat, and say how the chat goes on."""
        before, self._open = self._open, None
        self._open = self.desk.open_chat(number, before)
        if number != self.number:
            self.desk.forget_if_empty(self.number)
        self.number, self.attached = number, []
        for note in self._open.restore():
            terminal.note(note.text)
        if self._open.turns:
            count, title = len(self._open.branch()), self._open.info.title
            terminal.note(f"chat {number}, {title or 'without a title'}: {count} messages, /history shows them")

    def open(self, number: int) -> None:
        """Go to another chat, or stay in this one where that fails."""
        try:
            self.load(number)
        except EdgemmError:
            self._again()
            raise

    def change_model(self, name: str) -> None:
        """Go on with another model, or with the one before where that fails."""
        before = self.model
        self.desk.sessions.set_model(self.number, name)
        try:
            self.load(self.number)
        except EdgemmError:
            self.desk.sessions.set_model(self.number, before)
            self._again()
            raise
        terminal.note(f"{name} answers now")

    def _again(self) -> None:
        with suppress(EdgemmError):  # the error before this one is told, and `chat` tells this one
            self._open = self.desk.open_chat(self.number)

    def leave(self) -> None:
        if self._open is not None:
            self._open.park()
        self.desk.forget_if_empty(self.number)

    # What is typed

    def obey(self, text: str) -> None:
        """Do what a message says; what stands in the way is told."""
        try:
            command, argument = commands.parse(text)
            if command is commands.ASK:
                self.ask(argument)
            else:
                table.ROWS[command.name](self, argument)
        except EdgemmError as error:
            terminal.note(f"edgemm: {error}")

    def ask(self, text: str) -> None:
        plan = self.chat.plan(text, self.attached)
        policy = self._policy(plan) if plan.dropped else plan.policy
        if policy is None:
            terminal.note("not sent")
            return
        leaf = self.chat.info.leaf
        try:
            self.stream(self.chat.send(text, tuple(self.attached), policy))
        finally:
            if self.chat.info.leaf != leaf:  # the question is stored, and they with it
                self.attached = []

    def _policy(self, plan: Plan) -> Policy | None:
        """Nothing is left out in silence; None: the question is not sent."""
        count = len(plan.dropped)
        what = f"{plan.room:,} tokens fit beside an answer: the {count} oldest messages would be left out"
        if not sys.stdin.isatty():
            if plan.policy is Policy.REFUSE:
                raise UsageError("question", what, "allow it with /set policy drop, or /set policy summarise")
            terminal.note(what)
            return plan.policy
        for line in commands.turn_lines(plan.dropped[:_NAMED]):
            terminal.note(line)
        if count > _NAMED:
            terminal.note(f"and {count - _NAMED} more")
        return _CHOICES.get(typed.asked(f"{what}. d: leave them out, s: summarise them, anything else: do not send: "))

    def stream(self, events: Iterator[Any]) -> None:
        """Show an answer while it comes. Whatever ends it, what has come is stored before this returns."""
        answer, reading = show.Answer(), show.Reading()
        try:
            with stopping(self.chat.stop):
                for event in events:
                    match event:
                        case Progress():
                            reading.show(event)
                        case Note():
                            terminal.note(event.text)
                        case Begun():
                            answer = show.Answer(event.answer.text)
                        case Grown():
                            answer.grow(event)
                        case Ended():
                            answer.end()
                            self.desk.speeds.record(self.model, event.done)
                            show.lines(self._sources(event.answer))
                            terminal.note(show.figures(event, self.chat.generator.info.context))
        finally:
            answer.end()
            getattr(events, "close", lambda: None)()

    def _sources(self, answer: Turn) -> list[str]:
        question = next((turn for turn in self.chat.turns if turn.id == answer.parent), None)
        attached = context.attachments(question) if question else []
        return cite.lines(cite.sources(answer.text, attached))

    def last(self, role: str) -> Turn:
        """The last message of that role. Raises `UsageError` where there is none."""
        found = [turn for turn in self.chat.branch() if turn.role == role]
        if not found:
            what = "answer" if role == "assistant" else "question"
            raise UsageError("this chat", f"has no {what} yet", "ask something")
        return found[-1]

    def configure(self, settings: ChatSettings) -> None:
        self.chat.configure(settings)
        terminal.note("saved")
