"""Every slash command as it is typed in the chat screen: what it does, and what it says when it cannot."""

import json
from pathlib import Path

import pytest
import tiny_gguf
from chat_window import ask, begin, chat, line, models, opened, said, send, slow, stop, told
from textual.pilot import Pilot
from textual.screen import Screen
from tui_pilot import shown, until

from edgemm import commands, personas
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.desk import Desk
from edgemm.fetch import local
from edgemm.sessions import Sessions, default_path
from edgemm.tui import slash
from edgemm.tui.screens.chat import ChatScreen
from edgemm.tui.screens.chats import ChatsScreen
from edgemm.tui.screens.compare import CompareScreen
from edgemm.tui.screens.help import HelpScreen
from edgemm.tui.screens.models import ModelScreen
from edgemm.tui.screens.settings import SettingsScreen
from edgemm.tui.screens.tokens import TokenScreen


def test_every_command_is_obeyed() -> None:
    assert set(slash._TABLE) == {row.name for row in commands.ROWS}


BAD = [
    ("/nonsense", "is no command"),
    ("/regenrate", "did you mean /regenerate"),
    ("/", "is no command"),
    ("/new now", "takes nothing behind it"),
    ("/open", "needs N"),
    ("/open x", "is not a number"),
    ("/open 99", "chat 99: does not exist"),
    ("/open " + "9" * 30, "is not a number"),
    ("/search", "needs WORDS"),
    ("/model nowhere", "nowhere"),
    ("/model no.gguf", "no.gguf"),
    ("/persona nobody", "is not known"),
    ("/set temperature hot", "'hot' is not a number in 0..5"),
    ("/set temperature", "needs a value"),
    ("/set temperture 1", "choose temperature"),
    ("/set policy ask", "none of refuse, drop, summarise"),
    ("/set system x", "has a command of its own"),
    ("/edit", "needs TEXT"),
    ("/branch 7", "no message here has a second version"),
    ("/branch x", "is not a number"),
    ("/attach", "needs FILE"),
    ("/export", "needs FILE"),
    ("/export x.pdf", "ends neither in .md nor in .json"),
    ("/export /no/such/folder/x.md", "x.md"),
    ("/import no.md", "is no file"),
    ("/import no.exe", "ends neither in .md nor in .json"),
    ("/schema no.json", "no.json"),
    ("/tokens", "switch them on with F4"),
    ("/compare", "needs MODEL"),
    ("/compare x", "no chat model is on this machine"),
    ("/rename", "needs TITLE"),
    ("/delete now", "is not yes"),
    ("/delete", "/delete yes"),
]


def test_what_stands_in_the_way_is_told_and_the_chat_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        number = screen.chat.id
        for typed, expected in BAD:
            await send(screen, pilot, typed)
            await until(pilot, lambda: expected in line(screen, "notice"))  # noqa: B023 - awaited in the loop
            assert "\n" not in line(screen, "notice")
        assert (screen.chat.id, screen.chat.model) == (number, "fake")
        assert said(screen) == ["hello", "one two three"]
        await until(pilot, lambda: not screen.busy)
        assert list(tmp_path.iterdir()) == [tmp_path / "store"]

    chat(script)


@pytest.mark.parametrize(("typed", "kind"), [("chats", ChatsScreen), ("model", ModelScreen), ("help", HelpScreen)])
def test_some_commands_open_the_screen_of_their_key(typed: str, kind: type[Screen[None]]) -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, f"/{typed}")
        await opened(pilot, kind)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)

    chat(script)


def test_settings_tokens_and_compare_open_their_screens(tmp_path: Path) -> None:
    for name in ("first", "second"):
        local.gguf_package(tiny_gguf.write(tmp_path / f"{name}-q8_0.gguf"), name, "owner/x", "", "mit")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        for typed, kind in (("settings", SettingsScreen), ("tokens", TokenScreen), ("compare first", CompareScreen)):
            await send(screen, pilot, f"/{typed}")
            page = await opened(pilot, kind)
            if kind is CompareScreen:
                assert page.query_one("#name-right").value == "first"
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is screen and not screen.busy)
        await send(screen, pilot, "/compare third")
        await told(pilot, "third is no chat model on this machine")

    chat(script, Desk(settings=ChatSettings(top_logprobs=2), opener=models()))


def test_chats_are_made_opened_found_renamed_and_deleted() -> None:
    desk = Desk(opener=models())

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        first = screen.chat.id
        await send(screen, pilot, "/rename A [b]title[/b]")
        await until(pilot, lambda: line(screen, "title") == "A [b]title[/b] — fake")
        await send(screen, pilot, "/new")
        await until(pilot, lambda: screen.chat.id != first and not screen.busy)
        await ask(screen, pilot, "second chat")
        await send(screen, pilot, "/search hello")
        await told(pilot, f"chat {first}, A [b]title[/b]: user: hello")
        await send(screen, pilot, "/search zebra")
        await told(pilot, "nothing is found")
        await send(screen, pilot, f"/open {first}")
        await until(pilot, lambda: said(screen) == ["hello", "one two three"] and not screen.busy)
        await send(screen, pilot, "/delete yes")
        await until(pilot, lambda: screen.turns == [] and not screen.busy)
        await pilot.press("ctrl+q")

    chat(script, desk)
    with Sessions(default_path()) as sessions:
        assert [info.title for info in sessions.chats()] == ["second chat"]


def test_settings_hold_for_the_chat(tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text('{"type": "object"}')

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        for typed in (
            "/set temperature 0,7",
            "/set policy drop",
            "/set seed 4",
            "/system Be brief.",
            f"/schema '{schema}'",
        ):
            await send(screen, pilot, typed)
            await pilot.pause()
        expected = ChatSettings("Be brief.", temperature=0.7, seed=4, policy=Policy.DROP, schema='{"type": "object"}')
        await until(pilot, lambda: screen.settings == expected)
        await send(screen, pilot, "/system")
        await told(pilot, "Be brief.")
        await send(screen, pilot, "/schema off")
        await send(screen, pilot, "/system off")
        await until(pilot, lambda: (screen.settings.schema, screen.settings.system) == ("", ""))
        await ask(screen, pilot, "hello")

    chat(script)
    with Sessions(default_path()) as sessions:
        assert ChatSettings.from_json(sessions.chats()[0].settings).temperature == 0.7


def test_a_persona_is_listed_and_taken() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "/persona")
        await told(pilot, "edgemm")
        row = next(row for row in personas.load().rows if row.system)
        assert f"{row.name}: " in shown(pilot.app)
        await send(screen, pilot, f"/persona {row.name}")
        await until(pilot, lambda: screen.settings.system == row.system)

    chat(script)


def test_answers_are_made_again_edited_continued_and_walked_through() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        for typed, expected in (
            ("/regenerate", ["hello", "alpha beta"]),
            ("/edit hello again", ["hello again", "final answer"]),
            ("/branch 1", ["hello", "alpha beta"]),
            ("/branch 1", ["hello", "one two three"]),
            ("/continue", ["hello", "one two threeone two three"]),
        ):
            await send(screen, pilot, typed)
            await until(pilot, lambda: said(screen) == expected and not screen.busy)  # noqa: B023
            assert screen.prompt.expanded() == ""
        await send(screen, pilot, "/branch")
        await told(pilot, "1 answer (shown)")

    chat(script)


def test_a_text_that_begins_with_a_slash_is_asked() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "//etc is what?")
        await until(pilot, lambda: said(screen) == ["/etc is what?", "one two three"])

    chat(script)


def test_a_chat_is_exported_and_imported(tmp_path: Path) -> None:
    path = tmp_path / "a chat.json"

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "hello")
        number = screen.chat.id
        await send(screen, pilot, f'/export "{path}"')
        await told(pilot, "written to")
        await send(screen, pilot, f'/export "{path}"')
        await until(pilot, lambda: "is there already" in line(screen, "notice"))
        await send(screen, pilot, f'/import "{path}"')
        await until(pilot, lambda: screen.chat.id != number and not screen.busy)
        assert said(screen) == ["hello", "one two three"]

    chat(script)
    assert json.loads(path.read_text())


def test_a_file_is_attached_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "my notes.txt"
    path.write_text("seven")

    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, f"/attach '{path}'")
        await until(pilot, lambda: screen.prompt.attachments == (path,))
        await pilot.press(*"what", "enter")
        await until(pilot, lambda: len(screen.turns) == 2 and not screen.busy)
        assert screen.turns[0].details["attachments"][0]["text"] == "seven"
        await send(screen, pilot, f"/attach {path}")
        await until(pilot, lambda: screen.prompt.attachments)
        await send(screen, pilot, "/attach off")
        await until(pilot, lambda: (screen.prompt.expanded(), screen.prompt.attachments) == ("", ()))

    chat(script)


def test_the_beginning_is_shown_by_history() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await ask(screen, pilot, "the very first")
        await told(pilot, "line 59")
        await send(screen, pilot, "/history")
        await told(pilot, "the very first")

    chat(script, Desk(opener=models(["\n\n".join(f"line {n}" for n in range(60))])))


def test_exit_leaves() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await send(screen, pilot, "/exit")
        await until(pilot, lambda: not pilot.app.is_running)

    chat(script)


AT_WORK = "new,open 1,persona,system,search x,set seed 1,regenerate,branch,model x,delete yes".split(",")


def test_while_an_answer_grows_commands_leave_it_alone() -> None:
    async def script(screen: ChatScreen, pilot: Pilot[None]) -> None:
        await begin(screen, pilot)
        number = screen.chat.id
        for typed in AT_WORK:
            screen.tell("")
            await send(screen, pilot, f"/{typed}")
            await told(pilot, "the model is at work")
        await send(screen, pilot, "/rename other")
        await until(pilot, lambda: "other — fake" in line(screen, "title"))
        seen = shown(pilot.app).count("word")
        await until(pilot, lambda: shown(pilot.app).count("word") > seen + 5)
        assert screen.chat.id == number
        await stop(screen, pilot)

    chat(script, Desk(opener=slow()))
