"""A checkpoint in a folder of Hugging Face: its configuration, its weights, and what is pruned."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.arguments import check_choice
from tf_movprune.core.encoder_families import Family, family_of, with_todays_names
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import listed
from tf_movprune.pytorch import weight_files
from tf_movprune.pytorch.comparison import differing_weight
from tf_movprune.pytorch.masks import Masks
from tf_movprune.pytorch.scores import PruningSaid, masks_of, scored_weights, split_scores
from tf_movprune.pytorch.sizes import check_tables, cut, found_sizes, recorded_sizes

_ALIASES = {
    "num_hidden_layers": "layer_count",
    "num_attention_heads": "head_count",
    "hidden_size": "width",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint.

    Attributes:
      folder: where it is.
      config: its configuration, of a model without masks and of full size.
      family: the kind of its encoder.
      tensors: its weights by name, without those of masks.
      sizes: what is left of each encoder layer.
      masks: the masks that are to be applied.
    """

    folder: pathlib.Path
    config: dict[str, Any]
    family: Family
    tensors: Mapping[str, StoredTensor]
    sizes: Sequence[EncoderSizes]
    masks: Masks

    def array(self, name: str, *, is_masked: bool = True) -> np.ndarray:
        """A weight, with its mask folded in if it has one and is to be masked."""
        values = self.tensors[name].array()
        return self.masks.apply(name, values) if is_masked else values


def read_checkpoint(
    folder: pathlib.Path, *, method: Any = None, threshold: Any = None, weights: str = "auto"
) -> Checkpoint:
    """Reads a checkpoint; see `tf_movprune.load_pytorch`."""
    check_choice("weights", weights, ("auto", "pytorch", "tf"))
    path = _weights_in(folder, weights)
    config = weight_files.read_json(folder / "config.json")
    if not config:
        raise ValueError(f"{folder} has no config.json with the configuration of a model.")
    stored = weight_files.read_weights(path)
    found = _checkpoint(folder, config, stored, path, method, threshold)
    if weights == "auto":
        _compare_with_others(found, path, config)
    return found


def _weights_in(folder: pathlib.Path, weights: str) -> pathlib.Path:
    files = weight_files.weight_files(folder)
    tf_weights = folder / weight_files.TF_WEIGHTS
    if weights != "pytorch" and tf_weights.is_file() and (weights == "tf" or not files):
        return tf_weights
    if weights == "tf" or not files:
        wanted = (weight_files.TF_WEIGHTS,) if weights == "tf" else weight_files.PYTORCH_FILES
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise ValueError(
            f"{folder} must be a folder with config.json and {' or '.join(wanted)}; there is "
            f"{listed(there) if there else 'nothing'}."
        )
    return files[0]


def _compare_with_others(found: Checkpoint, path: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Warns if other files in the folder hold another function than the one that was read."""
    tf_weights = path.with_name(weight_files.TF_WEIGHTS)
    others = [file for file in weight_files.weight_files(found.folder) if file != path]
    if tf_weights.is_file() and path != tf_weights:
        others.append(tf_weights)
    remedy = "Pass weights='pytorch' or weights='tf' to choose without this warning."
    for other in others:
        try:
            difference = differing_weight(found.tensors, found.sizes, found.family, config, other)
        except (ImportError, OSError, ValueError, KeyError, IndexError) as error:
            warn(
                f"{path.name} in {found.folder} is loaded, and could not be compared with "
                f"{other.name}: {error} {remedy}"
            )
            continue
        if difference is not None:
            warn(
                f"{path.name} and {other.name} in {found.folder} are different functions: they "
                f"differ in {difference}. {path.name} is loaded. {remedy}"
            )


def _checkpoint(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    stored: Mapping[str, StoredTensor],
    path: pathlib.Path,
    method: Any,
    threshold: Any,
) -> Checkpoint:
    sparse_args = weight_files.read_json(folder / "sparse_args.json")
    model_type = str(config.get("model_type"))
    family = family_of(model_type.removeprefix("masked_"))
    _check_supported(folder, config, sparse_args, family)
    tensors, scores = split_scores(with_todays_names(stored, family), path)
    plain = {**config, "model_type": model_type.removeprefix("masked_")}
    plain.pop("intermediate_sizes", None)  # of another model: shapes tell
    _take_aliases(plain, family)
    if sparse_args.get("gelu_patch"):
        plain["hidden_act"] = "relu"  # which nn_pruning writes only when it compiles
    check_tables(tensors, plain, family, path)
    is_of_tf = path.name == weight_files.TF_WEIGHTS
    sizes = found_sizes(tensors, plain, family, path, may_be_whole=is_of_tf)
    recorded = recorded_sizes(path, sizes)
    if recorded is not None:
        tensors, sizes = cut(tensors, family, sizes, recorded), recorded
    said = PruningSaid(family, config, sparse_args, method, threshold)
    masks = masks_of(tensors, scored_weights(tensors, scores, path), said)
    plain.pop("pruned_heads", None)
    plain[family.neuron_count] = max(size.neurons for size in sizes)
    return Checkpoint(folder, plain, family, tensors, sizes, masks)


def _take_aliases(config: dict[str, Any], family: Family) -> None:
    """Gives a configuration the keys of its family, by other names that they may have."""
    for alias, key in _ALIASES.items():
        own = getattr(family, key)
        if alias not in config or alias == own:
            continue
        if config.setdefault(own, config[alias]) != config[alias]:
            raise ValueError(
                f"config.json says {own} {config[own]} and {alias} {config[alias]}, which are the "
                "same thing. Remove one of them."
            )


def _check_supported(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    sparse_args: Mapping[str, Any],
    family: Family,
) -> None:
    """Refuses models that are not what their class computes."""
    norm = config.get("layer_norm_type", "layer_norm")
    if norm != "layer_norm" or sparse_args.get("layer_norm_patch"):
        raise ValueError(
            f"{folder} was trained with another normalisation (layer_norm_type {norm!r}): its "
            "LayerNorm weights scale without normalising, which no class here computes. Use the "
            "checkpoint without that optimisation (no -opt in its name)."
        )
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute" or config.get("is_decoder"):
        raise ValueError(
            f"{folder} must be an encoder with absolute positions, got position_embedding_type="
            f"{positions!r} and is_decoder={bool(config.get('is_decoder'))}."
        )
    padding = config.get("pad_token_id", 1)
    if family.first_position and padding != 1:
        raise ValueError(
            f"{folder} must pad with token 1, after which {family.prefix} numbers positions, got "
            f"pad_token_id {padding}."
        )
