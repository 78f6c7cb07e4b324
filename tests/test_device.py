"""What the machine is, and what `doctor` makes of it."""

import dataclasses
import json

from conftest import Cli

from edgemm import device
from edgemm.device import Device, parse_cpuinfo
from edgemm.doctor import _problems, examine, rows

X86 = "processor : 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse avx2 avx512f avx512_vnni\n\nprocessor : 1\n"
ARM = "processor : 0\nBogoMIPS : 50\nFeatures : fp asimd asimddp i8mm\n\nModel : Raspberry Pi 5\n"


def test_cpuinfo_of_both_families() -> None:
    assert parse_cpuinfo(X86) == ("AMD EPYC", {"fpu", "sse", "avx2", "avx512f", "avx512_vnni"})
    assert parse_cpuinfo(ARM) == ("Raspberry Pi 5", {"fp", "asimd", "asimddp", "i8mm"})
    assert parse_cpuinfo("") == ("", set())


def test_this_machine() -> None:
    here = Device.detect()
    assert here.cpu
    assert 1 <= here.cores <= here.threads
    assert 0 < here.free <= here.memory
    assert str(here.cores) in here.summary()
    assert device.free_memory() > 0


def fake_machine(**changes: object) -> Device:
    return dataclasses.replace(Device.detect(), machine="x86_64", features=("AVX2",), metal=False, cuda=(), **changes)


def test_a_gpu_that_the_build_ignores_is_a_problem() -> None:
    answers = {"llama_cpp": {"gpu": False}, "onnxruntime": {"providers": []}}
    assert _problems(fake_machine(), answers) == []
    [(what, fix)] = _problems(dataclasses.replace(fake_machine(), cuda=("RTX",)), answers)
    assert "without CUDA" in what
    assert "GGML_CUDA" in fix
    [(what, _)] = _problems(dataclasses.replace(fake_machine(), metal=True), answers)
    assert "Metal" in what


def test_a_library_that_dies_is_a_problem() -> None:
    answers = {"llama_cpp": {"error": "this CPU lacks an instruction"}, "onnxruntime": {}}
    [(what, fix)] = _problems(fake_machine(), answers)
    assert "llama_cpp: this CPU lacks" in what
    assert "reinstall" in fix


def test_doctor_shows_rows_and_json(cli: Cli) -> None:
    found = json.loads(cli("doctor", "--json").stdout)
    assert found["device"]["cores"] >= 1
    assert "CPUExecutionProvider" in found["onnxruntime"]["providers"]
    assert "system" in found["llama_cpp"]
    lines = cli("doctor").stdout
    for label in ("processor", "memory", "Metal", "CUDA", "llama.cpp", "onnxruntime", "store", "free disk"):
        assert f"\n{label}\t" in f"\n{lines}"


def test_doctor_survives_a_missing_store() -> None:
    assert examine().store_packages == 0
    assert all(len(row) == 3 for row in rows(examine()))


def test_a_missing_tool_says_nothing() -> None:
    assert device._output("no-such-command-of-edgemm") == ""
