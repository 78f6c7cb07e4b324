"""A conversation with a chat model: messages in, typed events out; the transcript is the truth.

The model's KV cache is re-used by the backend where the new prompt begins like the last one; nothing is lost
when it is not. This module knows no terminal, no file and no model format.
"""

from collections.abc import Iterator, Sequence

from edgemm.backends import Generator, Sampling
from edgemm.events import Done, Note, Progress, Token
from edgemm.prompt import Message


class Chat:
    """One conversation. `messages` holds what was said so far, including a partial answer that was stopped."""

    def __init__(self, generator: Generator, *, system: str = "", sampling: Sampling | None = None) -> None:
        self._generator = generator
        self.sampling = sampling or Sampling()
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []

    def send(self, text: str) -> Iterator[Progress | Note | Token | Done]:
        """Ask, and stream the answer. Raises `PromptTooLong` before anything is added to the transcript.

        However the stream ends (end token, `stop()`, a closed iterator, a dead model), the question and the text
        that has arrived are kept.
        """
        question: Message = {"role": "user", "content": text}
        prompt = self._generator.prompt([*self.messages, question])
        if prompt.note:
            yield Note(prompt.note)
        events = self._generator.generate(prompt.tokens, self.sampling)
        answer: list[str] = []
        started = False
        try:
            for event in events:
                started = True
                if isinstance(event, Token):
                    answer.append(event.text)
                yield event
        finally:
            if started:
                self.messages += [question, {"role": "assistant", "content": "".join(answer)}]

    def ask(self, text: str) -> str:
        """Ask, and return the whole answer."""
        return "".join(event.text for event in self.send(text) if isinstance(event, Token))

    def stop(self) -> None:
        """End the running answer; what has arrived is kept. Safe from a signal handler or another thread."""
        self._generator.cancel()

    def restart(self, messages: Sequence[Message] = ()) -> None:
        """Forget the conversation, or continue with another transcript."""
        self.messages = list(messages)

    def close(self) -> None:
        self._generator.close()

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
