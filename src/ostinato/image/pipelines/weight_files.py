"""The weight files of a pipeline's component: which there are, and which one is taken.

As diffusers does: the files without a variant, where there are any. Where there are none, those of
a variant (`model.fp16.safetensors`). Knows no family.
"""

from __future__ import annotations

import re
from pathlib import Path

from ostinato.errors import ModelError
from ostinato.text_files import read_object

PREFERRED = ("fp32", "fp16", "bf16")
"""The variants that are taken first, where a component has several and no file without one."""
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
SHARD = re.compile(r"-\d{5}-of-\d{5}")
SUFFIX = ".safetensors"


def variant_of(folder: Path) -> str | None:
    """Return the variant of a component's weights that is to be read; None: those without one.

    Raises `ModelError` for weights that are pickled, and where shards are missing.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    if not files:
        _refuse_pickles(folder)
        return None
    variants = {_label(path) for path in files}
    label = "" if "" in variants else min(variants, key=_rank)
    _require_shards(folder, label, [path for path in files if _label(path) == label])
    return label or None


def _rank(label: str) -> tuple[int, str]:
    return (PREFERRED.index(label) if label in PREFERRED else len(PREFERRED)), label


def _label(path: Path) -> str:
    """Return a file's variant; it stands before the number of a shard, or behind it (older)."""
    return SHARD.sub("", path.name.removesuffix(SUFFIX)).partition(".")[2]


def _refuse_pickles(folder: Path) -> None:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        raise ModelError(
            f"{folder} must hold weights in safetensors, got {pickled[0]}. A pickle can run code, "
            "and is not read: if you trust it, load the pipeline with diffusers and save it with "
            "`save_pretrained`, which writes safetensors."
        )


def _require_shards(folder: Path, label: str, files: list[Path]) -> None:
    """Raise `ModelError` where the index of the shards is missing, or names one that is."""
    ending = f".{label}.json" if label else f"{SUFFIX}.index.json"
    found = {path.name for path in files}
    indices = [path for path in folder.glob("*.index*.json") if path.name.endswith(ending)]
    # A whole file is read without an index, whatever else lies there.
    if not all(SHARD.search(name) for name in found):
        return
    if not indices:
        raise ModelError(
            f"{folder} must hold an index of its {len(found)} shards (*{SUFFIX}.index.json), got "
            "none. Copy or download the pipeline again, whole."
        )
    for index in indices:
        missing = sorted(_named_in(index) - found)
        if missing:
            raise ModelError(
                f"{folder} must hold the shards that {index.name} names, got none of the name "
                f"{missing[0]}. Copy or download the pipeline again, whole."
            )


def _named_in(index: Path) -> set[str]:
    shards = read_object(index, fix="Copy it again.", raises=ModelError).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelError(f"{index} must have a `weight_map` of shards, got none. Copy it again.")
    return {str(name) for name in shards.values()}
