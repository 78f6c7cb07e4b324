"""`edgemm convert`: the one command of this package, joined by the entry point `edgemm.commands`."""

from pathlib import Path
from typing import Annotated

import typer

from edgemm import terminal


def command(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, a catalog name, or a pulled owner/name.")],
    to: Annotated[str, typer.Option("--to", help="onnx-int8, onnx-fp32, gguf-f16 or gguf-q8_0.")] = "onnx-int8",
    out: Annotated[str, typer.Option("--out", help="Name of the package; default: <source>-<target>.")] = "",
    accept_below_floor: Annotated[
        bool, typer.Option("--accept-below-floor", help="Keep the package even if it differs too much.")
    ] = False,
    oracle: Annotated[
        bool, typer.Option(help="Compare with transformers too, where the extra `export` is installed.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Convert a checkpoint into a package, and prove that it behaves like the original."""
    from converters import report
    from converters.convert import Options, convert
    from edgemm import fetch

    folder = Path(source) if Path(source).is_dir() else fetch.checkpoint(source)
    name = out or f"{folder.resolve().name}-{to}"
    package = terminal.finish(convert(folder, to, name, Options(accept_below_floor, oracle)))
    content = package.report()
    if as_json:
        terminal.print_json(content)
        return
    typer.echo(terminal.safe(report.card(package.manifest, content)))
    terminal.note(f"{package.name}: {terminal.human_bytes(package.manifest.bytes)} in {package.path}")
