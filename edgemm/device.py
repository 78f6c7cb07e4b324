"""What this machine is: processor, instruction sets, cores, memory, accelerators. It never fails: unknown is empty.

Read from /proc/cpuinfo, sysctl or the Windows API, without starting anything native. What the installed libraries
make of it is doctor.py's business.
"""

import platform
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Our name -> the names in Linux's /proc/cpuinfo and macOS's sysctl.
_FEATURES = {
    "AVX2": ("avx2",),
    "AVX512": ("avx512f",),
    "AVX512-VNNI": ("avx512_vnni", "avx512vnni"),
    "AVX-VNNI": ("avx_vnni",),
    "AMX-INT8": ("amx_int8",),
    "NEON": ("asimd", "advsimd"),
    "dotprod": ("asimddp", "feat_dotprod"),
    "i8mm": ("i8mm", "feat_i8mm"),
}
_WINDOWS_AVX2, _WINDOWS_AVX512, _WINDOWS_DOTPROD = 40, 41, 43  # winnt.h: PF_*_INSTRUCTIONS_AVAILABLE
_SECONDS = 3
_M_MMAP_THRESHOLD = -3  # malloc.h


@dataclass(frozen=True, slots=True)
class Device:
    """Facts of this machine. Memory in bytes; `cores` are physical ones."""

    system: str
    cpu: str
    machine: str
    cores: int
    threads: int
    features: tuple[str, ...]
    memory: int
    free: int
    metal: bool
    cuda: tuple[str, ...]

    @classmethod
    def detect(cls) -> "Device":
        import psutil

        cpu, found = processor()
        memory = psutil.virtual_memory()
        return cls(
            system=f"{platform.system()} {platform.release()}",
            cpu=cpu or platform.processor() or platform.machine(),
            machine=platform.machine(),
            cores=cores(),
            threads=psutil.cpu_count() or 1,
            features=found,
            memory=int(memory.total),
            free=int(memory.available),
            metal=sys.platform == "darwin" and platform.machine() == "arm64",
            cuda=_cuda(),
        )

    def summary(self) -> str:
        """One line for a report: processor, cores, instruction sets, memory."""
        features = ", ".join(self.features) or "no known instruction sets"
        return f"{self.cpu}, {self.cores} cores, {features}, {self.memory / 1e9:.0f} GB, {self.system}"


@cache
def cores() -> int:
    """Physical cores that this process may use: the threads that a model gets by default."""
    import psutil

    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, usable or 1))


def free_memory() -> int:
    """Bytes of RAM that can be had without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def peak_memory(pid: int) -> int:
    """The most bytes of RAM that process `pid` has held, mapped files included; elsewhere what it holds now."""
    import psutil

    usage = psutil.Process(pid).memory_info()
    if sys.platform == "linux":
        status = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii", "replace"))
        return int(status[1]) << 10 if status else int(usage.rss)
    return int(getattr(usage, "peak_wset", usage.rss))


def return_large_blocks() -> None:
    """Let this process give memory of more than a megabyte back to the system as soon as it is freed.

    glibc raises that limit to the size of whatever was freed last, and then keeps holes of the size of the largest
    documents (mallopt(3), M_MMAP_THRESHOLD). Elsewhere it does nothing.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def parse_cpuinfo(text: str) -> tuple[str, set[str]]:
    """Processor name and feature words of /proc/cpuinfo, on x86-64 and on Arm."""
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    features = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1].strip() if name else "", set(features[1].split()) if features else set()


@cache
def processor() -> tuple[str, tuple[str, ...]]:
    """Name of the processor, and those of its instruction sets that matter here."""
    name, words = _processor()
    return name, tuple(feature for feature, keys in _FEATURES.items() if any(key in words for key in keys))


def saturates_int8() -> bool:
    """Whether uint8 x int8 products overflow 16 bits on the way: x86 without VNNI (VPMADDUBSW)."""
    features = processor()[1]
    return "AVX2" in features and not {"AVX512-VNNI", "AVX-VNNI", "AMX-INT8"} & set(features)


def _processor() -> tuple[str, set[str]]:
    if sys.platform == "linux":
        try:
            return parse_cpuinfo(Path("/proc/cpuinfo").read_text("utf-8", "replace"))
        except OSError:
            return "", set()
    if sys.platform == "darwin":
        return _sysctl()
    if sys.platform == "win32":
        return platform.processor(), _windows_features()
    return "", set()


def _sysctl() -> tuple[str, set[str]]:
    """On Apple silicon each feature is a key with the value 1; on Intel they are words."""
    lines = dict(
        line.split(": ", 1) for line in _output("sysctl", "machdep.cpu", "hw.optional").splitlines() if ": " in line
    )
    words = {key.rsplit(".", 1)[-1].lower() for key, value in lines.items() if value == "1"}
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        words |= set(lines.get(key, "").lower().split())
    return lines.get("machdep.cpu.brand_string", ""), words


def _windows_features() -> set[str]:
    import ctypes

    present = ctypes.windll.kernel32.IsProcessorFeaturePresent  # type: ignore[attr-defined,unused-ignore]
    numbers = {_WINDOWS_AVX2: "avx2", _WINDOWS_AVX512: "avx512f", _WINDOWS_DOTPROD: "asimddp"}
    return {word for number, word in numbers.items() if present(number)}


def _cuda() -> tuple[str, ...]:
    """Names of NVIDIA devices, as the driver's own tool lists them."""
    return tuple(re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", _output("nvidia-smi", "-L"), re.MULTILINE))


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
