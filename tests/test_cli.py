"""The commands as a user types them: data on stdout, the rest on stderr, one line for an error, exit codes."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
import tiny_gguf
from conftest import Cli

from converters.convert import Options, convert
from edgemm import __version__, package

GREEDY = ("--temperature", "0", "--max-tokens", "8")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "tiny.gguf")


@pytest.fixture
def embedder(tmp_path: Path) -> str:
    """The name of a converted tiny model in the store."""
    list(convert(tiny_bert.write(tmp_path / "tiny-bert"), "onnx-fp32", "tiny", Options(oracle=False)))
    return "tiny"


def one_line(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("edgemm: ")
    assert " — " in done.stderr
    for word in words:
        assert word in done.stderr


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").stdout == f"edgemm {__version__}\n"
    assert "convert" in cli("--help").stdout
    assert cli("run", "-h").returncode == 0


def test_run_streams_to_stdout_alone(cli: Cli, gguf: Path) -> None:
    done = cli("run", "-m", gguf, *GREEDY, "hello")
    assert done.returncode == 0
    assert done.stdout.endswith("\n")
    assert done.stderr == ""
    assert cli("run", "-m", gguf, *GREEDY, "hello").stdout == done.stdout


def test_run_reads_stdin_below_the_prompt(cli: Cli, gguf: Path) -> None:
    piped = cli("run", "-m", gguf, *GREEDY, "hello", stdin="world\n")
    assert piped.stdout == cli("run", "-m", gguf, *GREEDY, "hello\n\nworld").stdout
    assert cli("run", "-m", gguf, *GREEDY, stdin="hello").stdout == cli("run", "-m", gguf, *GREEDY, "hello").stdout


def test_run_json_is_one_event_a_line(cli: Cli, gguf: Path) -> None:
    done = cli("run", "-m", gguf, *GREEDY, "--json", "hello")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {e["event"] for e in events} == {"progress", "token", "done"}
    assert events[-1]["event"] == "done"
    text = "".join(e["text"] for e in events if e["event"] == "token")
    assert text.strip() == cli("run", "-m", gguf, *GREEDY, "hello").stdout.strip()


def test_seed_and_system(cli: Cli, gguf: Path) -> None:
    sampled = [
        cli("run", "-m", gguf, "--temperature", 2, "--max-tokens", 12, "--seed", seed, "hi").stdout
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    assert cli("run", "-m", gguf, *GREEDY, "--system", "a", "hi").stdout != cli("run", "-m", gguf, *GREEDY, "hi").stdout


def test_no_control_character_reaches_stdout(cli: Cli, gguf: Path) -> None:
    done = cli(
        "run", "-m", gguf, "--temperature", 5, "--top-k", 0, "--top-p", 1, "--min-p", 0, "--max-tokens", 200, "x"
    )
    assert not [c for c in done.stdout if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]


def test_a_closed_pipe_is_no_error(gguf: Path) -> None:
    command = f"{sys.executable} -m edgemm run -m {gguf} --temperature 3 --max-tokens 200 hi | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60)
    assert len(done.stdout) == 1
    assert done.stderr == b""


def test_chat_keeps_the_conversation(cli: Cli, gguf: Path) -> None:
    done = cli(
        "chat",
        "--plain",
        "-m",
        gguf,
        *GREEDY,
        stdin="hello\n\n/history\n/what\n/new\n/history\n/help\n/exit\nnever\n",
    )
    assert done.returncode == 0, done.stderr
    assert "user: hello\nassistant: " in done.stdout
    assert done.stdout.count("user: hello") == 1
    assert "/what: is no command" in done.stderr
    assert "tokens" in done.stderr
    assert "never" not in done.stdout


def test_a_chat_that_is_not_there_is_one_line(cli: Cli, gguf: Path) -> None:
    done = cli("chat", "-m", gguf, "--open", 99, stdin="hello\n")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "chat 99" in done.stderr


def test_chat_survives_an_error(cli: Cli, gguf: Path) -> None:
    done = cli("chat", "-m", gguf, *GREEDY, stdin=f"{'long ' * 300}\nhello\n/history\n")
    assert done.returncode == 0
    assert re.search(r"has [\d,]+ tokens .* fit beside an answer", done.stderr)
    assert "user: hello" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_stops_within_a_second_and_keeps_the_text(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "long.gguf", {"context_length": 100_000})
    command = [sys.executable, "-m", "edgemm", "run", "-m", str(path), "--ctx", "100000", "--max-tokens", "90000"]
    command += ["--temperature", "0", "--repetition-penalty", "1", "hi"]  # it soon repeats itself for ever
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.read(1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 1.5  # a second, and the end of two processes
    assert process.returncode == 130, err
    assert len(first + out) > 10
    assert err.decode().startswith("edgemm: run: stopped — ")


def test_embed_files_to_npy(cli: Cli, embedder: str, tmp_path: Path) -> None:
    for i, text in enumerate(["the cat", "a dog " * 500, ""]):
        (tmp_path / f"{i}.txt").write_text(text)
    out = tmp_path / "v.npy"
    done = cli("embed", *(tmp_path / f"{i}.txt" for i in range(3)), "-m", embedder, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    vectors = np.load(out, allow_pickle=False)
    assert (vectors.shape, vectors.dtype) == ((3, tiny_bert.HIDDEN), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not list(tmp_path.glob("*.tmp"))


def test_embed_lines_to_jsonl(cli: Cli, embedder: str, tmp_path: Path) -> None:
    done = cli("embed", "-m", embedder, stdin="the cat\n\na dog\n")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == ["1", "3"]
    assert len(rows[0]["embedding"]) == tiny_bert.HIDDEN
    out = tmp_path / "v.jsonl"
    cli("embed", "-m", embedder, "--out", out, stdin="the cat\n\na dog\n")
    assert out.read_text() == done.stdout


def test_embed_refuses_before_it_writes(cli: Cli, embedder: str, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    one_line(cli("embed", tmp_path, "-m", embedder), 3, "is a folder")
    one_line(cli("embed", tmp_path / "nowhere", "-m", embedder), 3, "no such file")
    one_line(cli("embed", tmp_path / "binary", "-m", embedder, "--out", tmp_path / "v.npy"), 3, "not UTF-8")
    one_line(cli("embed", "-m", embedder, "--out", "x.csv", stdin="a"), 2, ".npy")
    assert not list(tmp_path.glob("v.npy*"))


def test_list_show_verify_rm(cli: Cli, embedder: str) -> None:
    assert cli("list").stdout.startswith("tiny\tembed\t")
    listed = json.loads(cli("list", "--json").stdout)
    assert [p["name"] for p in listed["packages"]] == ["tiny"]
    assert "smollm2-135m-instruct" in cli("list", "--all").stdout
    assert cli("show", "tiny").stdout.startswith("# tiny")
    shown = json.loads(cli("show", "tiny", "--json").stdout)
    assert shown["manifest"]["name"] == "tiny"
    assert shown["report"]["passed"] is True
    assert "intact" in cli("verify").stdout
    assert "freed" in cli("rm", "tiny").stdout
    assert cli("list").stdout == ""


def test_verify_finds_a_flipped_bit(cli: Cli, embedder: str, home: Path) -> None:
    model = home / "tiny" / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    one_line(cli("verify", "tiny"), 3, "model.onnx", "checksum differs")
    one_line(cli("embed", "-m", "tiny", stdin="a"), 3, "checksum differs")


def test_tokenizer_damage_is_one_line(cli: Cli, embedder: str, home: Path) -> None:
    (home / "tiny" / "tokenizer.json").write_text("{")
    one_line(cli("embed", "-m", "tiny", stdin="a"), 3, "tokenizer.json")


def test_models_that_are_not_there(cli: Cli, gguf: Path, embedder: str) -> None:
    one_line(cli("run", "hi"), 2, "edgemm pull smollm2-135m-instruct")
    one_line(cli("run", "-m", "smolm2-135m-instruct", "hi"), 2, "nearest names are smollm2-135m-instruct")
    one_line(cli("run", "-m", "../x", "hi"), 2)
    one_line(cli("run", "-m", "a\x1b[2Jb", "hi"), 2)
    one_line(cli("run", "-m", "nowhere.gguf", "hi"), 2)
    one_line(cli("run", "-m", embedder, "hi"), 2, "not for chat")
    one_line(cli("embed", "-m", "smollm2-135m-instruct", stdin="x"), 2)
    one_line(cli("rm", "nothing"), 2)
    one_line(cli("show", "nothing"), 2)


def test_wrong_calls(cli: Cli) -> None:
    one_line(cli("frobnicate"), 2)
    one_line(cli("run", "--no-such-option", "x"), 2)
    one_line(cli("run", "--temperature", "hot", "x"), 2)
    one_line(cli("run"), 2, "there is no prompt")


def test_bad_ggufs(cli: Cli, gguf: Path, tmp_path: Path) -> None:
    data = gguf.read_bytes()
    (tmp_path / "short.gguf").write_bytes(data[:4096])
    (tmp_path / "other.gguf").write_bytes(b"hello")
    one_line(cli("run", "-m", tmp_path / "short.gguf", "hi"), 3, "truncated: ", "needs", "has")
    one_line(cli("run", "-m", tmp_path / "other.gguf", "hi"), 3)
    one_line(cli("run", "-m", gguf, "--ctx", 512, "hi"), 2, "256", "512")
    one_line(cli("run", "-m", gguf, "long " * 300), 2, "this model takes 255")


def test_too_little_memory_is_said_before_loading(cli: Cli, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "wide.gguf", {"context_length": 1 << 27})
    one_line(cli("run", "-m", path, "--ctx", 1 << 27, "hi"), 4, "GB are free")


def test_debug_shows_a_traceback(cli: Cli) -> None:
    done = cli("--debug", "show", "nothing")
    assert "Traceback" in done.stderr
    assert done.returncode == 2


def test_no_colour_without_a_terminal(cli: Cli, embedder: str) -> None:
    for arguments in (["list", "--all"], ["doctor"], ["show", "tiny"], ["--help"]):
        assert "\x1b" not in cli(*arguments).stdout


def test_help_is_fast(cli: Cli) -> None:
    import resource

    def cpu() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(5):
        before = cpu()
        cli("--help")
        times.append(cpu() - before)
    print(f"edgemm --help: {sorted(times)[2]:.3f} s of CPU time, median of 5")
    assert sorted(times)[0] < 0.6, "the target is 0.3 s on a quiet machine; `make bench` measures it"


@pytest.mark.starter
def test_readme_s_first_question(cli: Cli, starter_store: Path) -> None:
    done = cli("run", "Answer in one word", stdin="hi", EDGEMM_HOME=str(starter_store))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.starter
def test_minilm_converts_and_embeds(cli: Cli, minilm_checkpoint: Path) -> None:
    for target in ("onnx-int8", "gguf-q8_0"):
        done = cli("convert", minilm_checkpoint, "--to", target, "--no-oracle")
        assert done.returncode == 0, done.stderr
    assert len(list(package.installed())) == 2
    shown = json.loads(cli("show", "all-minilm-l6-v2", "--json").stdout)
    metrics = shown["report"]["metrics"]
    assert metrics["cosine_mean"] > 0.998
    assert metrics["batch_invariance"] > 0.9999
