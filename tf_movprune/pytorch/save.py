"""Models of Keras as checkpoints of PyTorch."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_choice
from tf_movprune.core.encoder_families import Family, family_of
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import listed
from tf_movprune.export.files import check_place, replacing
from tf_movprune.pytorch.sizes import SIZES, pad, to_json
from tf_movprune.pytorch.weight_files import PYTORCH_FILES, SAFETENSORS, TF_WEIGHTS
from tf_movprune.shells import module_for

_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"),
)
_OTHER_WEIGHTS = (*(name for name in PYTORCH_FILES if name != SAFETENSORS), TF_WEIGHTS)


def save_pytorch(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    heads: str = "zero",
    neurons: str = "widest",
    tokenizer: Any = None,
) -> None:
    """Saves a model as a checkpoint of PyTorch, without torch.

    It writes `model.safetensors` in float32 with PyTorch's names, `config.json`, and the files of
    the tokenizer. By default these load in transformers 4 and 5 and in KerasHub, and are as small
    as that allows: no class there has fewer heads in some layers, or layers with different numbers
    of neurons. `load_pytorch` and `load_compacted` give a compacted model its sizes back.

    Args:
      model: a Hugging Face TF model of BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT or
        ELECTRA, or a KerasHub backbone of BERT, RoBERTa or DistilBERT, by itself, in a text
        classifier or as `load_pytorch` makes it; without pruned layers, compacted or not.
      folder: folder to write. If there is one, its configuration, weights and tokenizer are
        replaced, and other files stay.
      heads: `"zero"` fills heads that were removed with zeros; `"removed"` leaves them out and
        lists them as `pruned_heads`, which loads in transformers 4, and not in 5 or KerasHub.
      neurons: `"widest"` fills the feed-forward layers up with zeros to the widest of them;
        `"zero"` to the number that the configuration says they had; `"removed"` leaves them as
        they are, which `load_pytorch` and nn_pruning's classes load.
      tokenizer: object with a `save_pretrained(folder)`, or folder whose tokenizer is copied; by
        default that of the folder or repository which the model was loaded from, or of the
        preprocessor of a KerasHub classifier.

    Raises:
      ImportError: the package safetensors is missing.
      OSError: the folder cannot be written; it is as before.
      TypeError: `model` is not a Keras model.
      ValueError: PyTorch has no class for such a model, it is still pruned, an argument is none of
        the choices, or the folder has weights in other files, which would be read in their place.

    Warns if no tokenizer is found.
    """
    check_choice("heads", heads, ("zero", "removed"))
    check_choice("neurons", neurons, ("widest", "zero", "removed"))
    path = pathlib.Path(folder)
    check_place(path, for_folder=True)
    _check_other_weights(path)
    shell = module_for(model, "pytorch_protocol")
    config, sizes = shell.describe(model)
    family = family_of(config.get("model_type"))
    arrays = {
        weight.name: _float32(weight.to_pytorch(np.array(tf.convert_to_tensor(weight.variable))))
        for weight in shell.ported_weights(model)
    }
    arrays |= shell.added_weights(model)
    sizes = sizes or _whole(config, family)
    padded = _padded_sizes(config, family, sizes, heads, neurons)
    head_size = family.size(config, "width") // family.size(config, "head_count")
    pad(arrays, family, sizes, padded, head_size)
    if not any(name.startswith(f"{family.prefix}.pooler.") for name in arrays):
        arrays |= _pooler(config, family)
    metadata = {"format": "pt"}
    if padded != sizes:
        metadata[SIZES] = to_json(sizes)
    files = list(_tokenizer_files(tokenizer, shell.source_of(model)))
    with replacing(path) as temporary:
        temporary.mkdir()
        _write(temporary, arrays, metadata, _configuration(config, family, padded))
        is_known = _write_tokenizer(temporary, tokenizer, files)
        is_known = is_known or shell.write_tokenizer(model, temporary)
        _copy_others(path, temporary)
    if not is_known:
        warn(
            f"No tokenizer is in {path}: none is known for {model.name!r}. Pass it as tokenizer, "
            "or save it there."
        )


def _check_other_weights(path: pathlib.Path) -> None:
    others = [name for name in _OTHER_WEIGHTS if (path / name).exists()]
    if others:
        raise ValueError(
            f"{path} has weights in {listed(others)}, which would be another model beside this "
            "one. Pass another folder, or remove them."
        )


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


# ---- sizes


def _whole(config: Mapping[str, Any], family: Family) -> list[EncoderSizes]:
    heads = tuple(range(family.size(config, "head_count")))
    size = EncoderSizes(heads, family.size(config, "neuron_count"))
    return [size] * family.size(config, "layer_count")


def _padded_sizes(
    config: Mapping[str, Any],
    family: Family,
    sizes: Sequence[EncoderSizes],
    heads: str,
    neurons: str,
) -> list[EncoderSizes]:
    """The sizes that encoder layers have in the file."""
    all_heads = tuple(range(family.size(config, "head_count")))
    widest = max(size.neurons for size in sizes)
    most = max(widest, family.size(config, "neuron_count")) if neurons == "zero" else widest
    return [
        EncoderSizes(
            size.heads if heads == "removed" else all_heads,
            size.neurons if neurons == "removed" else most,
        )
        for size in sizes
    ]


def _pooler(config: Mapping[str, Any], family: Family) -> dict[str, np.ndarray]:
    """A pooler of ones, which nothing reads, and without which KerasHub loads no BERT."""
    if family.prefix != "bert":
        return {}
    width = family.size(config, "width")
    shapes = {"weight": (width, width), "bias": (width,)}
    return {
        f"{family.prefix}.pooler.dense.{part}": np.ones(shape, np.float32)
        for part, shape in shapes.items()
    }


def _configuration(
    config: Mapping[str, Any], family: Family, sizes: Sequence[EncoderSizes]
) -> dict[str, Any]:
    """The configuration of the file."""
    every = range(family.size(config, "head_count"))
    removed = {str(i): sorted(set(every) - set(size.heads)) for i, size in enumerate(sizes)}
    left_out = ("intermediate_sizes", "_name_or_path")
    return {
        **{key: value for key, value in config.items() if key not in left_out},
        "pruned_heads": {layer: heads for layer, heads in removed.items() if heads},
        family.neuron_count: max(size.neurons for size in sizes),
        "torch_dtype": "float32",
    }


# ---- files


def _write(
    folder: pathlib.Path,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, str],
    config: dict[str, Any],
) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(
            "save_pytorch needs the package safetensors: pip install safetensors."
        ) from error
    save_file(arrays, str(folder / SAFETENSORS), metadata)
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _tokenizer_files(tokenizer: Any, source: str) -> Iterator[pathlib.Path]:
    """The files of the tokenizer that a folder or repository has."""
    if hasattr(tokenizer, "save_pretrained"):
        return
    if tokenizer is not None and not pathlib.Path(tokenizer).is_dir():
        raise ValueError(
            "tokenizer must be an object with save_pretrained or a folder that has one, got "
            f"{tokenizer!r}."
        )
    folder = pathlib.Path(tokenizer or source or ".")
    for name in _TOKENIZER_FILES if tokenizer or source else ():
        file = folder / name if folder.is_dir() else _cached(source, name)
        if file is not None and file.is_file():
            yield file


def _cached(repository: str, name: str) -> pathlib.Path | None:
    """A file of a repository that was downloaded before."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repository, name)
    except (ImportError, ValueError):  # what a model was loaded from need not be a repository
        return None
    return pathlib.Path(found) if isinstance(found, str) else None


def _write_tokenizer(folder: pathlib.Path, tokenizer: Any, files: Sequence[pathlib.Path]) -> bool:
    """Writes a tokenizer that was given or found. Returns whether there is any."""
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(folder))
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return bool(tokenizer or files)


def _copy_others(old: pathlib.Path, new: pathlib.Path) -> None:
    """Copies what else is in a folder, if there is one."""
    for item in old.iterdir() if old.is_dir() else ():
        if item.name in (SAFETENSORS, "config.json") or (new / item.name).exists():
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)
