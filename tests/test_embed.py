"""The embedding engine on the scripted encoder: order, batching, splitting, memory bound."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bert import write_tokenizer

from edgemm.backends.fake import FakeEncoder
from edgemm.batches import BatchOptions, plan_batches
from edgemm.embed import Embedder, Kind
from edgemm.errors import PromptTooLong, UsageError
from edgemm.manifest import Inputs
from edgemm.tokenizer import Overflow, Tokenizer

DIMENSIONS = 16
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return Tokenizer(write_tokenizer(folder))


class Recorder:
    """The fake encoder, with a record of the batches that it was given."""

    def __init__(self) -> None:
        self.inner = FakeEncoder(DIMENSIONS)
        self.batches: list[list[int]] = []

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([len(row) for row in rows])
        return self.inner.encode(rows)

    def close(self) -> None:
        self.inner.close()


def make(tokenizer: Tokenizer, max_tokens: int = 32, **options: object) -> tuple[Embedder, Recorder]:
    encoder = Recorder()
    inputs = Inputs(max_tokens, dimensions=DIMENSIONS, query_prefix="the ", document_prefix="")
    return Embedder(encoder, tokenizer, inputs, BatchOptions(**options)), encoder  # type: ignore[arg-type]


def sentences(count: int, longest: int = 20) -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def test_results_are_in_input_order_and_independent_of_batch_mates(tokenizer: Tokenizer) -> None:
    texts = sentences(100)
    with make(tokenizer, batch_tokens=64, window=30, threads=3)[0] as embedder:
        together = embedder.embed(texts)
        alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert together.dtype == np.float32
    assert together.shape == (100, DIMENSIONS)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_batches_keep_the_budget(tokenizer: Tokenizer) -> None:
    embedder, encoder = make(tokenizer, batch_tokens=64)
    with embedder:
        embedder.embed(sentences(200))
    assert all(max(batch) * len(batch) <= 64 for batch in encoder.batches)
    padded = sum(max(batch) * len(batch) for batch in encoder.batches)
    assert padded / sum(map(sum, encoder.batches)) < 1.05


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_plan_covers_every_row_once(count: int) -> None:
    lengths = [random.Random(count + i).randint(1, 40) for i in range(count)]
    plan = plan_batches(lengths, 64)
    assert sorted(i for batch in plan for i in batch) == list(range(count))


def test_a_row_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert plan_batches([5, 100, 5], 64) == [[1], [0, 2]]


def test_no_texts_no_vectors(tokenizer: Tokenizer) -> None:
    with make(tokenizer)[0] as embedder:
        assert embedder.embed([]).shape == (0, DIMENSIONS)


def test_one_string_is_refused(tokenizer: Tokenizer) -> None:
    with make(tokenizer)[0] as embedder, pytest.raises(UsageError, match="pass a list"):
        embedder.embed("text")


def test_a_long_text_is_split_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    text = " ".join(["the cat sat"] * 40)
    embedder, encoder = make(tokenizer, max_tokens=16)
    with embedder:
        vector = embedder.embed([text, "a mat"])
    lengths = [n for batch in encoder.batches for n in batch]
    assert max(lengths) == 16
    body = sum(n - 2 for n in lengths)  # [CLS] and [SEP] in every window
    assert body == 120 + 2
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), 1, atol=1e-6)


def test_the_end_of_a_long_text_matters(tokenizer: Tokenizer) -> None:
    start = " ".join(["the cat sat"] * 20)
    with make(tokenizer, max_tokens=16)[0] as embedder:
        one, two = embedder.embed([f"{start} dog", f"{start} mat"])
    assert not np.allclose(one, two)


def test_cut_keeps_the_special_tokens(tokenizer: Tokenizer) -> None:
    [encoded] = tokenizer.encode(["the cat sat on a mat"], 5, Overflow.CUT)
    whole = tokenizer.ids(["the cat sat on a mat"])[0]
    assert encoded.rows == ([*whole[:4], whole[-1]],)


def test_refuse_names_both_numbers(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptTooLong, match="has 8 tokens, this model takes 5"):
        tokenizer.encode(["the cat sat on a mat"], 5, Overflow.REFUSE)


def test_queries_get_their_prefix(tokenizer: Tokenizer) -> None:
    with make(tokenizer)[0] as embedder:
        np.testing.assert_array_equal(embedder.embed(["cat"], Kind.QUERY), embedder.embed(["the cat"]))


def test_stream_reads_no_more_than_a_window_ahead(tokenizer: Tokenizer) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for text in sentences(1000):
            taken += 1
            yield text

    with make(tokenizer, window=50)[0] as embedder:
        first = next(iter(embedder.stream(texts())))
    assert len(first) == taken == 50


def test_a_window_ends_at_its_characters(tokenizer: Tokenizer) -> None:
    with make(tokenizer, window_characters=100)[0] as embedder:
        sizes = [len(batch) for batch in embedder.stream(["cat " * 20] * 5)]
    assert sizes == [2, 2, 1]


def test_an_error_in_a_thread_arrives(tokenizer: Tokenizer) -> None:
    class Broken(Recorder):
        def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
            raise MemoryError("no room")

    with Embedder(Broken(), tokenizer, Inputs(32, dimensions=4)) as embedder, pytest.raises(MemoryError):
        embedder.embed(["cat"])


@pytest.mark.parametrize("normalize", [True, False])
def test_shortened_vectors_are_the_beginning_of_the_whole_ones(normalize: bool, tokenizer: Tokenizer) -> None:
    inputs = Inputs(32, dimensions=DIMENSIONS, normalize=normalize)
    with Embedder(Recorder(), tokenizer, inputs) as whole, Embedder(Recorder(), tokenizer, inputs, None, 5) as short:
        vectors, shortened = whole.embed(["the cat", "a mat"]), short.embed(["the cat", "a mat"])
    assert short.dimensions == shortened.shape[1] == 5
    begin = vectors[:, :5]
    expected = begin / np.linalg.norm(begin, axis=1, keepdims=True) if normalize else begin
    np.testing.assert_allclose(shortened, expected, atol=1e-6)


def test_more_dimensions_than_the_model_has_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="17 are asked for, the model gives 16"):
        Embedder(Recorder(), tokenizer, Inputs(32, dimensions=DIMENSIONS), None, 17)
