"""Whether a model fits: the verdict against what the loader does, and the figure against measured memory."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny_gguf

from edgemm import catalog, device, fit, guard
from edgemm.backends import Sampling
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import BadFile, NotEnoughMemory
from edgemm.fetch import local
from edgemm.fit import Need, Verdict
from edgemm.manifest import ChatFormat, FileEntry, MadeBy, Manifest, Quantization, ReportSummary, Source
from edgemm.package import Package

NEED = Need(resident=800, required=1000, kv_token=2.0, trained=4096)


def test_a_model_that_fits_keeps_its_context() -> None:
    found = fit.judge(NEED, 2048, free=1000 + 2 * 2048)
    assert (found.verdict, found.context, found.kv_bytes, found.bytes) == (Verdict.FITS, 2048, 4096, 800 + 4096)


def test_a_byte_less_means_a_shorter_context() -> None:
    found = fit.judge(NEED, 2048, free=999 + 2 * 2048)
    assert (found.verdict, found.context, found.bytes) == (Verdict.SHORTER, 1792, 800 + 2 * 1792)


def test_without_room_for_a_short_context_nothing_fits() -> None:
    found = fit.judge(NEED, 2048, free=1000 + 2 * 255)
    assert (found.verdict, found.context, found.bytes) == (Verdict.TOO_LARGE, 0, 800 + 4096)


@pytest.mark.parametrize(
    ("asked", "trained", "context"), [(0, 256, 256), (0, 0, 4096), (9999, 4096, 4096), (0, 1 << 17, 4096)]
)
def test_the_context_is_the_one_that_the_loader_would_take(asked: int, trained: int, context: int) -> None:
    assert fit.judge(Need(1, 1, 1.0, trained), asked, free=1 << 20).context == context


def test_more_memory_never_makes_it_worse() -> None:
    contexts = [fit.judge(NEED, 0, free).context for free in range(0, 12000, 7)]
    assert contexts == sorted(contexts)
    assert {0, 4096} < set(contexts)


def test_the_verdict_is_what_the_loader_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_gguf.write(tmp_path / "x.gguf", {"context_length": 2048})
    need = fit.need_of_file(path)
    enough = guard.memory_needed(guard.check_gguf(path), 2048)
    assert fit.judge(need, 0, enough).verdict is Verdict.FITS
    short = fit.judge(need, 0, enough - 1)
    assert short.verdict is Verdict.SHORTER
    monkeypatch.setattr(device, "free_memory", lambda: enough - 1)
    with pytest.raises(NotEnoughMemory):
        Worker(path)
    with Worker(path, LoadOptions(context=short.context)) as worker:
        assert worker.info.context == short.context


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "x.gguf")
    assert fit.need_of_file(path).trained == tiny_gguf.CONTEXT
    tiny_gguf.write(path, {"context_length": 8192})
    assert fit.need_of_file(path).trained == 8192


def test_a_package_without_its_file_is_a_bad_file(tmp_path: Path) -> None:
    found = local.gguf_package(tiny_gguf.write(tmp_path / "x.gguf"), "tiny", "", "", "")
    (found.path / "x.gguf").unlink()
    with pytest.raises(BadFile, match=r"x\.gguf"):
        fit.fit(found)


def test_matrices_in_another_order_are_counted_twice(tmp_path: Path) -> None:
    header = guard.check_gguf(tiny_gguf.write(tmp_path / "x.gguf"))
    row = guard.gguf.Tensor("blk.0.ffn_up.weight", (256, 64), 12, 0, 9216)
    embedding, output = (guard.gguf.Tensor(n, (256, 64), 20, 0, 9216) for n in ("token_embd.weight", "output.weight"))

    def resident(*tensors: guard.gguf.Tensor) -> int:
        return fit.need_of(guard.GGUFHeader(header.path, header.metadata, tensors, header.file_bytes, 0, {})).resident

    assert resident(row) == resident() + 9216
    assert resident(embedding) == resident() + 9216, "it is the output matrix as well"
    assert resident(embedding, output) == resident() + 9216


def onnx_package(folder: Path, report: ReportSummary | None) -> Package:
    files = (FileEntry("model.onnx", 50_000_000, ""),)
    manifest = Manifest(
        "x", "chat", "llama", Source("x"), Quantization("onnx-int8"), MadeBy("1"), files=files,
        chat=ChatFormat(2048), report=report,
    )  # fmt: skip
    return Package(folder, manifest)


def test_an_onnx_decoder_goes_by_its_report_and_else_by_its_size(tmp_path: Path) -> None:
    measured = onnx_package(tmp_path, ReportSummary(True, {"memory_bytes": 3e8}))
    assert fit.fit(measured, free=400_000_000) == fit.Fit(300_000_000, 0, 400_000_000, Verdict.FITS, 2048)
    assert fit.fit(measured, free=200_000_000).verdict is Verdict.TOO_LARGE
    assert 100_000_000 < fit.fit(onnx_package(tmp_path, None), free=1 << 30).bytes < 200_000_000


def test_a_model_to_download_goes_by_its_row() -> None:
    row = catalog.find("phi-3-mini-4k-instruct")
    assert fit.fit_download(row, row.ram).verdict is Verdict.FITS
    assert fit.fit_download(row, row.ram - 1).verdict is Verdict.TOO_LARGE


@pytest.mark.starter
@pytest.mark.parametrize("context", [512, 4096])
def test_the_figure_is_what_the_child_process_takes(smollm2: Path, context: int) -> None:
    expected = fit.judge(fit.need_of_file(smollm2), context, 1 << 40)
    with Worker(smollm2, LoadOptions(context=context)) as worker:
        prompt = worker.tokenize("a word and another one " * 200)[:500]  # a whole batch
        list(worker.generate(prompt, Sampling(max_tokens=4, temperature=0)))
        measured = worker.memory()
    assert expected.bytes == pytest.approx(measured, rel=0.15)
    assert guard.memory_needed(guard.check_gguf(smollm2), context) >= measured


@pytest.mark.starter
def test_free_memory_is_asked_for_when_none_is_given(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemm.package import read_package

    answer: Callable[[], int] = lambda: 12_345  # noqa: E731
    monkeypatch.setattr(device, "free_memory", answer)
    found = fit.fit(read_package(smollm2.parent))
    assert (found.free, found.verdict) == (12_345, Verdict.TOO_LARGE)
    assert psutil.virtual_memory().total > found.bytes
