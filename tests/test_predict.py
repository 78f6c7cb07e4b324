"""`edgemm predict`, `rerank`, and `embed` with pictures, as a user types them, on small ONNX graphs made by hand."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_words
from conftest import Cli
from test_cli import one_line
from test_vision import BLUE, COLOURS, RED, SQUARE, TOWERS, picture
from tiny_words import VOCABULARY

from edgemm import open_model, package
from edgemm.classify import Classifier
from edgemm.embed import Embedder
from edgemm.errors import BadFile, UsageError
from edgemm.manifest import Inputs, ZeroShot
from edgemm.predict import Request, predictions, read_labels, show
from edgemm.vision import VisionModel

TEXTS = Inputs(16, mask_token="[MASK]")
MOODS = tiny_words.table(good=(1, 0), bad=(0, 2))
PLACES = tiny_words.table(Paris=(9, 9), London=(8, 8), **{"[CLS]": (-9, -9)})
FOLLOWS = 6 * np.eye(len(VOCABULARY), k=1) + 3 * np.eye(len(VOCABULARY), k=2)
TAGS = tiny_words.table(Ada=(0, 9, 0), Lovelace=(0, 0, 9))
PACKAGES: dict[str, tuple[str, dict[str, bytes], dict[str, Any]]] = {
    "mood": (
        "classify",
        {"model.onnx": tiny_words.looked_up(MOODS, pooled=True)},
        {"inputs": TEXTS, "labels": ("positive", "negative"), "scores": "softmax"},
    ),
    "mask": ("fill-mask", {"model.onnx": tiny_words.next_words(FOLLOWS)}, {"inputs": TEXTS}),
    "names": (
        "token-classify",
        {"model.onnx": tiny_words.looked_up(TAGS, pooled=False)},
        {"inputs": TEXTS, "labels": ("O", "B-PER", "I-PER"), "scores": "softmax"},
    ),
    "follows": (
        "next-sentence",
        {"model.onnx": tiny_words.looked_up(MOODS, pooled=True)},
        {"inputs": TEXTS, "labels": ("is next", "is not next"), "scores": "softmax"},
    ),
    "answers": ("question-answering", {"model.onnx": tiny_words.looked_up(PLACES, pooled=False)}, {"inputs": TEXTS}),
    "ranks": (
        "rerank",
        {"model.onnx": tiny_words.looked_up(MOODS[:, :1], pooled=True)},
        {"inputs": TEXTS, "scores": "sigmoid"},
    ),
    "both": (
        "image-text",
        TOWERS,
        {"inputs": Inputs(8, dimensions=3, image=SQUARE), "zero_shot": ZeroShot(10, template="{}")},
    ),
    "colour": (
        "image-classify",
        {"model.onnx": tiny_words.colours(np.eye(3))},
        {"inputs": Inputs(0, normalize=False, image=SQUARE), "labels": ("r", "g", "b"), "scores": "softmax"},
    ),
    "pictures": (
        "image-embed",
        {"model.onnx": tiny_words.colours(np.eye(3))},
        {"inputs": Inputs(0, dimensions=3, image=SQUARE)},
    ),
    "vectors": (
        "embed",
        {"model.onnx": tiny_words.looked_up(COLOURS, pooled=True)},
        {"inputs": Inputs(8, dimensions=3)},
    ),
}


def install(*names: str) -> None:
    for name in names:
        task, files, facts = PACKAGES[name]
        tiny_words.write_package(name, task, files, has_tokenizer=name not in ("colour", "pictures"), **facts)


def table(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


# What each task prints


def test_labels_of_texts(cli: Cli) -> None:
    install("mood")
    done = cli("predict", "-m", "mood", "a good day", "bad")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert table(done.stdout) == [
        ["a good day", "positive", "0.7311"],
        ["a good day", "negative", "0.2689"],
        ["bad", "negative", "0.8808"],
        ["bad", "positive", "0.1192"],
    ]


def test_lines_of_stdin_are_numbered_and_json_has_one_object_a_line(cli: Cli) -> None:
    install("mood")
    done = cli("predict", "-m", "mood", "--top-k", 1, "--json", stdin="good\n\nbad\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"input": "1", "results": [{"name": "positive", "score": 0.731059}]},
        {"input": "3", "results": [{"name": "negative", "score": 0.880797}]},
    ]


def test_masks(cli: Cli) -> None:
    install("mask")
    done = cli("predict", "-m", "mask", "--top-k", 1, "the [MASK] and the <mask> .")
    assert [row[1:3] + row[4:] for row in table(done.stdout)] == [
        ["0", "cat", "the cat and the <mask> ."],
        ["1", "cat", "the [MASK] and the cat ."],
    ]
    one_line(cli("predict", "-m", "mask", "the cat"), 2, "holds no [MASK]")


def test_entities(cli: Cli) -> None:
    install("names")
    [row] = table(cli("predict", "-m", "names", "who sat ? Ada Lovelace .").stdout)
    assert row[1:3] + row[4:] == ["PER", "Ada Lovelace", "10", "22"]


def test_two_sentences(cli: Cli) -> None:
    install("follows")
    [row] = table(cli("predict", "-m", "follows", "--top-k", 1, "a day", "good").stdout)
    assert row[1] == "is next"
    one_line(cli("predict", "-m", "follows", "a day"), 2, "compares two texts, 1 are there")


def test_an_answer_from_an_argument_a_file_or_stdin(cli: Cli, tmp_path: Path) -> None:
    install("answers")
    context = "Ada lives in Paris and London"
    (tmp_path / "notes.txt").write_text(context)
    ask = ("predict", "-m", "answers", "--question", "where ?")
    for done in (cli(*ask, context), cli(*ask, f"@{tmp_path / 'notes.txt'}"), cli(*ask, stdin=context)):
        assert done.returncode == 0, done.stderr
        [[_, answer, _, start, end]] = table(done.stdout)
        assert (answer, context[int(start) : int(end)]) == ("Paris", "Paris")
    best = cli(*ask, "--top-k", 2, context)
    assert [row[1] for row in table(best.stdout)] == ["Paris", "London"]


def test_a_question_and_its_text_belong_together(cli: Cli, tmp_path: Path) -> None:
    install("answers", "mood")
    one_line(cli("predict", "-m", "answers", "some text"), 2, "--question")
    one_line(cli("predict", "-m", "mood", "good", "--question", "what?"), 2, "leave --question out")
    one_line(cli("predict", "-m", "answers", "--question", "where ?"), 2, "there is no text")
    one_line(cli("predict", "-m", "answers", "--question", "where ?", ""), 2, "text 1 is empty")
    one_line(cli("predict", "-m", "answers", "--question", "where ?", f"@{tmp_path / 'no.txt'}"), 3, "no.txt")


def test_labels_of_pictures(cli: Cli, tmp_path: Path) -> None:
    install("colour")
    red, blue = picture(tmp_path / "red.png", RED), picture(tmp_path / "blue.png", BLUE)
    done = cli("predict", "-m", "colour", "--top-k", 1, red, blue)
    assert [row[:2] for row in table(done.stdout)] == [[str(red), "r"], [str(blue), "b"]]


def test_zero_shot_labels_from_the_command_or_a_file(cli: Cli, tmp_path: Path) -> None:
    install("both")
    path = picture(tmp_path / "blue.png", BLUE)
    (tmp_path / "labels.txt").write_text("red\n\nblue\n")
    for labels in ("red, blue", tmp_path / "labels.txt", f"@{tmp_path / 'labels.txt'}"):
        done = cli("predict", "-m", "both", path, "--labels", labels)
        assert [row[1] for row in table(done.stdout)] == ["blue", "red"], done.stderr
    one_line(cli("predict", "-m", "both", path), 2, "add --labels")


def test_lines_in_the_order_of_their_worth(cli: Cli, tmp_path: Path) -> None:
    install("ranks")
    (tmp_path / "lines.txt").write_text("a day\n\ngood good\ngood\n")
    done = cli("rerank", "-m", "ranks", "good", tmp_path / "lines.txt", "--top-k", 2)
    assert done.returncode == 0, done.stderr
    assert table(done.stdout) == [["3", "0.9526", "good good"], ["4", "0.8808", "good"]]
    piped = cli("rerank", "-m", "ranks", "good", "--json", stdin="a day\n\ngood good\ngood\n")
    results = json.loads(piped.stdout)["results"]
    assert [(result["line"], result["text"]) for result in results] == [(3, "good good"), (4, "good"), (1, "a day")]
    one_line(cli("rerank", "-m", "ranks", "good", tmp_path / "no.txt"), 3, "no.txt")
    one_line(cli("rerank", "-m", "ranks", "", stdin="a"), 2, "the query is empty")


def test_nothing_of_an_input_reaches_the_terminal_raw(cli: Cli, tmp_path: Path) -> None:
    install("mood", "ranks")
    rows = table(cli("predict", "-m", "mood", "--top-k", 1, "good \x1b[2J\tday\nx").stdout)
    assert rows == [["good ␛[2J day x", "positive", "0.7311"]]
    assert "\x1b" not in cli("rerank", "-m", "ranks", "q", stdin="a \x1b[2J\n").stdout


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install("mood")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(predictions("mood", Request(("good", "bad"), top_k=1)), as_json=False)
    head, *rows = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert head.split() == ["INPUT", "LABEL", "SCORE"]
    assert [row.split() for row in rows] == [["good", "positive", "0.7311"], ["bad", "negative", "0.8808"]]


def test_no_answer_is_said(cli: Cli) -> None:
    nothing = tiny_words.table(Paris=(9, 9), **{"[CLS]": (5, 5)})
    files = {"model.onnx": tiny_words.looked_up(nothing, pooled=False)}
    tiny_words.write_package("doubts", "question-answering", files, inputs=TEXTS)
    done = cli("predict", "-m", "doubts", "--question", "where ?", "the cat sat")
    assert [row[1] for row in table(done.stdout)] == [""]
    assert done.stderr == "the cat sat: the text does not seem to hold an answer\n"
    assert cli("predict", "-m", "doubts", "--question", "where ?", "in Paris").stderr == ""


# Labels


def test_labels_are_names_or_a_file(tmp_path: Path) -> None:
    assert read_labels(" a, b c ,d,") == ("a", "b c", "d")
    assert read_labels("cat") == ("cat",)
    for missing in ("labels.txt", "folder/labels", "@labels"):
        with pytest.raises(BadFile, match="no such file"):
            read_labels(missing)
    (tmp_path / "empty").write_text("\n")
    for empty in (",", str(tmp_path / "empty")):
        with pytest.raises(UsageError, match="there is none"):
            read_labels(empty)


def test_a_classifier_s_labels_must_be_as_many_as_its_outputs(cli: Cli, tmp_path: Path) -> None:
    install("mood", "colour", "mask")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    one_line(
        cli("predict", "-m", "mood", "good", "--labels", tmp_path / "three.txt"), 2, "3 names were given", "2 outputs"
    )
    [row] = table(cli("predict", "-m", "mood", "good", "--labels", "up,down", "--top-k", 1).stdout)
    assert row[1] == "up"
    path = picture(tmp_path / "red.png")
    one_line(cli("predict", "-m", "colour", path, "--labels", "a,b"), 2, "2 names were given", "3 outputs")
    one_line(cli("predict", "-m", "mask", "the [MASK]", "--labels", "a,b"), 2, "has no labels")


# Wrong calls


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("vectors", ("a",), "use `edgemm embed -m vectors`"),
        ("pictures", ("a.png",), "use `edgemm embed -m pictures`"),
        ("ranks", ("a",), "use `edgemm rerank -m ranks`"),
        ("colour", (), "there is no picture"),
        ("mood", (" ",), "text 1 is empty"),
    ],
)
def test_what_predict_is_not_for(name: str, inputs: tuple[str, ...], message: str) -> None:
    install(name)
    with pytest.raises(UsageError, match=message):
        list(predictions(name, Request(inputs)))


def test_files_that_are_no_pictures(cli: Cli, tmp_path: Path) -> None:
    install("colour")
    (tmp_path / "text.png").write_text("hello")
    one_line(cli("predict", "-m", "colour", tmp_path / "text.png"), 3, "text.png")
    one_line(cli("predict", "-m", "colour", "hello"), 3, "no such file")
    one_line(cli("predict", "hello"), 2, "model")
    one_line(cli("predict", "-m", "nowhere", "hello"), 2, "unknown model")


def test_open_model_gives_the_engine_of_the_task() -> None:
    kinds = {"mood": Classifier, "ranks": Classifier, "both": VisionModel, "colour": VisionModel, "vectors": Embedder}
    install(*kinds)
    for name, kind in kinds.items():
        with open_model(name) as engine:
            assert type(engine) is kind


def test_a_damaged_half_is_noticed(home: Path) -> None:
    install("both")
    data = bytearray((home / "both" / "vision_model.onnx").read_bytes())
    data[-1] ^= 1
    (home / "both" / "vision_model.onnx").write_bytes(bytes(data))
    with pytest.raises(package.ChecksumMismatch):
        open_model("both")


# edgemm embed


def test_texts_and_pictures_are_embedded_side_by_side(cli: Cli, tmp_path: Path) -> None:
    install("both")
    red, blue = picture(tmp_path / "red.png", RED), picture(tmp_path / "BLUE.PNG", BLUE)
    (tmp_path / "a.txt").write_text("blue")
    (tmp_path / "b.txt").write_text("red")
    files = [red, tmp_path / "a.txt", tmp_path / "b.txt", blue, red]
    done = cli("embed", "-m", "both", *files)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == list(map(str, files)), done.stderr
    np.testing.assert_allclose([row["embedding"] for row in rows], np.eye(3)[[0, 2, 0, 2, 0]], atol=1e-6)
    assert done.stderr == "5 vectors of 3 dimensions\n"
    lines = cli("embed", "-m", "both", stdin="red\nblue\n")
    assert [json.loads(line)["embedding"][0] for line in lines.stdout.splitlines()] == [1, 0]


def test_a_long_caption_is_refused_unless_it_may_be_cut(cli: Cli) -> None:
    install("both")
    long = "red " * 20
    one_line(cli("embed", "-m", "both", stdin=long), 2, "has 22 tokens, this model takes 8")
    assert cli("embed", "-m", "both", "--cut", stdin=long).returncode == 0


def test_what_a_model_does_not_embed(cli: Cli, tmp_path: Path) -> None:
    install("pictures", "vectors", "mood")
    path = picture(tmp_path / "a.png", BLUE)
    (tmp_path / "a.txt").write_text("red")
    done = cli("embed", "-m", "pictures", path, "--out", tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").tolist() == [[0, 0, 1]], done.stderr
    one_line(cli("embed", "-m", "pictures", tmp_path / "a.txt"), 2, "reads no texts")
    one_line(cli("embed", "-m", "vectors", path), 2, "is a picture, and this model is for texts")
    one_line(cli("embed", "-m", "mood", tmp_path / "a.txt"), 2, "not for embedding")


def test_labels_may_be_longer_than_a_file_name() -> None:
    long = [f"{'a very ' * 40}red circle {i}" for i in range(3)]
    assert read_labels(",".join(long)) == tuple(long)
    assert read_labels(long[0]) == (long[0],)
