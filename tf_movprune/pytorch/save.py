"""Models of Keras as checkpoints of PyTorch."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
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
from tf_movprune.pytorch.pooler import new_pooler
from tf_movprune.pytorch.sizes import SIZES, pad, to_json
from tf_movprune.pytorch.weight_files import (
    PYTORCH_FILES,
    SAFETENSORS,
    TF_WEIGHTS,
    TOKENIZER_FILES,
)
from tf_movprune.shells import module_for

_OTHER_WEIGHTS = (
    *(name for name in PYTORCH_FILES if name != SAFETENSORS),
    *(TF_WEIGHTS, f"{TF_WEIGHTS}.index.json", "adapter_config.json"),
    *("task.json", "model.weights.h5"),  # of a preset of KerasHub
)
_OF_TRAINING = ("sparse_args.json", "training_args.bin")  # of what was in a folder before


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
    the tokenizer. By default these load in transformers 4 and 5 and in KerasHub, whose
    `from_preset` takes the backbone alone. They are as small as that allows: no class there has
    fewer heads in some layers, or layers with different numbers of neurons. `load_pytorch` and
    `load_compacted` give a compacted model its sizes back.

    Args:
      model: a Hugging Face TF model of BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT or
        ELECTRA, or a KerasHub backbone of BERT, RoBERTa or DistilBERT, by itself, in a text
        classifier or as `load_pytorch` makes it; without pruned layers, compacted or not.
      folder: folder to write. If there is one, its configuration, weights and tokenizer are
        replaced once the new ones are written, and other files stay.
      heads: `"zero"` fills heads that were removed with zeros; `"removed"` leaves them out and
        lists them as `pruned_heads`, which loads in PyTorch's classes of transformers 4, and not in
        5 or KerasHub.
      neurons: `"widest"` fills the feed-forward layers up with zeros to the widest of them;
        `"full"` to the number that the configuration says they had; `"removed"` leaves them as
        they are, which `load_pytorch` and nn_pruning's classes load.
      tokenizer: a tokenizer of Hugging Face or KerasHub, or a folder whose tokenizer is copied; by
        default that of the preprocessor of a KerasHub classifier, or of the folder or repository
        which the model was loaded from.

    Raises:
      ImportError: the package safetensors is missing.
      OSError: the folder cannot be written; it is as before.
      TypeError: `model` is not a Keras model, or `tokenizer` is none.
      ValueError: PyTorch has no class for such a model, it is still pruned, an argument is none of
        the choices, or the folder has weights in other files, which would be read in their place.

    Warns if no tokenizer is found.
    """
    check_choice("heads", heads, ("zero", "removed"))
    check_choice("neurons", neurons, ("widest", "full", "removed"))
    path = pathlib.Path(folder)
    if path.suffix in (".safetensors", ".bin", ".h5", ".keras"):
        raise ValueError(f"folder must be a folder to write, got the name of a file, {path}.")
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
    if family.prefix == "bert":  # KerasHub loads none without a pooler
        arrays = {**new_pooler(family, family.size(config, "width")), **arrays}
    metadata = {"format": "pt"}
    if padded != sizes:
        metadata[SIZES] = to_json(sizes)
    source = shell.source_of(model)
    with _written(path) as new:
        _write(new, arrays, metadata, _configuration(config, family, padded))
        has_tokenizer = _write_tokenizer(new, model, tokenizer, source)
    if not has_tokenizer:
        warn(
            f"No tokenizer is in {path}: none is known for {model.name!r}. Pass it as tokenizer, "
            "or save it there."
        )


def _check_other_weights(path: pathlib.Path) -> None:
    others = [name for name in _OTHER_WEIGHTS if (path / name).exists()]
    if others:
        raise ValueError(
            f"{path} has {listed(others)}, which would be another model beside this one. Pass "
            "another folder, or remove them."
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
    most = max(widest, family.size(config, "neuron_count")) if neurons == "full" else widest
    return [
        EncoderSizes(
            size.heads if heads == "removed" else all_heads,
            size.neurons if neurons == "removed" else most,
        )
        for size in sizes
    ]


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
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(
            "save_pytorch needs the package safetensors: pip install safetensors."
        ) from error
    try:
        save_file(arrays, str(folder / SAFETENSORS), metadata)
    except SafetensorError as error:
        raise OSError(f"{SAFETENSORS} cannot be written to {folder}: {error}") from error
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    shutil.copymode(folder / "config.json", folder / SAFETENSORS)  # which is its owner's alone


def _write_tokenizer(folder: pathlib.Path, model: Any, tokenizer: Any, source: str) -> bool:
    """Writes a tokenizer that is given or known. Returns whether there is any."""
    if tokenizer is None:
        shell = module_for(model, "pytorch_protocol")
        return shell.write_tokenizer(model, folder) or _copy_tokenizer(source, folder)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(folder))
    elif hasattr(tokenizer, "save_assets"):
        from tf_movprune.keras3.pytorch_configs import write_assets

        write_assets(tokenizer, folder)
    elif not isinstance(tokenizer, (str, os.PathLike)):
        raise TypeError(
            "tokenizer must be a tokenizer of Hugging Face or KerasHub, or a folder, got "
            f"{tokenizer!r}."
        )
    elif not _copy_tokenizer(os.fspath(tokenizer), folder):
        raise ValueError(f"tokenizer must be a folder with a tokenizer, got {tokenizer!r}.")
    return True


def _copy_tokenizer(source: str, folder: pathlib.Path) -> bool:
    """Copies the tokenizer of a folder or repository. Returns whether it has any."""
    found = []
    for name in TOKENIZER_FILES if source else ():
        local = pathlib.Path(source) / name
        file = local if pathlib.Path(source).is_dir() else _cached(source, name)
        if file is not None and file.is_file():
            found.append(shutil.copyfile(file, folder / name))
    return bool(found)


def _cached(repository: str, name: str) -> pathlib.Path | None:
    """A file of a repository that was downloaded before."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repository, name)
    except (ImportError, ValueError):  # what a model was loaded from need not be a repository
        return None
    return pathlib.Path(found) if isinstance(found, str) else None


@contextlib.contextmanager
def _written(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder for new files, which then take their places in `path`, one after the other.

    On an error in the context `path` is as before. Files of an old tokenizer, and of an earlier
    training, go.
    """
    if not path.is_dir():
        with replacing(path) as new:
            new.mkdir()
            yield new
        return
    with tempfile.TemporaryDirectory(prefix=".", dir=path) as place:
        new = pathlib.Path(place)
        yield new
        names = {file.name for file in new.iterdir()}
        old = [*_OF_TRAINING, *(TOKENIZER_FILES if names & set(TOKENIZER_FILES) else ())]
        for name in old:
            if name not in names:
                (path / name).unlink(missing_ok=True)
        for name in sorted(names, key="config.json".__eq__):  # which makes it a checkpoint
            os.replace(new / name, path / name)
