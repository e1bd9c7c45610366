"""``scripts/export_onnx.py``: the encoder of a bundle as ONNX, compared with torch."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from musicrec.cli import door, flags, outputs, report
from musicrec.errors import ConfigError
from musicrec.registry.versions import resolve


def export_onnx(config: DictConfig) -> None:
    """Write ``output`` and the vocabulary beside it."""
    from musicrec.registry import bundle as bundles
    from musicrec.registry.onnx import export

    console = Console()
    for key in ("bundle", "output", "histories"):
        if config[key] is None:
            raise ConfigError(f"{key}=null makes no sense; leave it out for the default")
    if config.histories < 1:
        raise ConfigError(f"histories={config.histories} must be at least 1")
    outputs.check_writable(config.output)
    bundle = bundles.load(resolve(config.bundle))
    try:
        with console.status(f"exporting {config.bundle}"):
            done = export(bundle, Path(config.output), histories=config.histories)
    except ImportError as error:
        raise ConfigError(f"cannot export here ({error}); install musicrec[export]") from error
    report.say(
        console,
        f"{done.path}: {done.path.stat().st_size / 1e6:,.1f} MB, model version {bundle.version}, "
        f"{len(bundle.catalogue):,} tracks, histories up to {bundle.model.max_length}; "
        f"their names are in {done.vocabulary}",
    )
    parity = done.parity
    report.say(
        console,
        f"onnxruntime and torch agree on {parity.histories:,} random histories: largest "
        f"difference of a score {parity.largest_difference:.1e}, same top 10 for "
        f"{parity.same_top:,}",
    )


def main() -> None:
    door.run("export_onnx", export_onnx, flags.EXPORT_ONNX)
