"""A checkpoint in a folder of Hugging Face: its configuration, its weights, and what is pruned."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.arguments import check_choice, check_number
from tf_movprune.core.encoder_families import Family, family_of, with_todays_names
from tf_movprune.core.methods import L0, HardMovement, Magnitude, SoftMovement
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import listed
from tf_movprune.pytorch import weight_files
from tf_movprune.pytorch.comparison import differing_weight
from tf_movprune.pytorch.masks import MINIMUM, Masks, ScoredWeight, method_of
from tf_movprune.pytorch.sizes import check_tables, cut, found_sizes, recorded_sizes

_SCORES = re.compile(r"(.+?)\.(?:mask_module\.context_modules\.([01])\.)?mask_scores")


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
    if path.name == weight_files.TF_WEIGHTS:
        stored = weight_files.read_tf_weights(path)
    else:
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
        except (ImportError, OSError, ValueError) as error:
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
    _check_supported(folder, config, sparse_args)
    tensors, scores = _split(with_todays_names(stored, family), path)
    plain = {**config, "model_type": model_type.removeprefix("masked_")}
    check_tables(tensors, plain, family, path)
    is_of_tf = path.name == weight_files.TF_WEIGHTS
    sizes = found_sizes(tensors, plain, family, path, may_be_whole=is_of_tf)
    recorded = recorded_sizes(path, sizes)
    if recorded is not None:
        tensors, sizes = cut(tensors, family, sizes, recorded), recorded
    scored = _scored(tensors, scores, path)
    masks = _masks(scored, tensors, plain, config, sparse_args, family, method, threshold)
    plain.pop("pruned_heads", None)
    plain[family.neuron_count] = max(size.neurons for size in sizes)
    return Checkpoint(folder, plain, family, tensors, sizes, masks)


def _check_supported(
    folder: pathlib.Path, config: Mapping[str, Any], sparse_args: Mapping[str, Any]
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


def _split(
    tensors: Mapping[str, StoredTensor], path: pathlib.Path
) -> tuple[dict[str, StoredTensor], dict[str, dict[str, StoredTensor]]]:
    """The weights by name; and the scores of each layer that has any, by which they are.

    Scores are of blocks, `""`, or numbered, `"0"` and `"1"`.
    """
    weights: dict[str, StoredTensor] = {}
    scores: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        match = _SCORES.fullmatch(name)
        if "ampere_module" in name or "rewind" in name:
            kind = "ampere" if "ampere_module" in name else "rewind"
            raise ValueError(
                f"{path} has {kind} masks ({name}), which are not read: they are another kind of "
                "pruning. Compile the checkpoint with nn_pruning's optimize_model, or remove them "
                "if they were not used."
            )
        if match:
            scores.setdefault(match[1], {})[match[2] or ""] = tensor
        else:
            weights[name] = tensor
    return weights, scores


# ---- masks


def _scored(
    tensors: Mapping[str, StoredTensor],
    scores: Mapping[str, Mapping[str, StoredTensor]],
    path: pathlib.Path,
) -> dict[str, ScoredWeight]:
    """The weights that have scores, by name."""
    found = {}
    for layer, those in scores.items():
        weight = tensors.get(f"{layer}.weight")
        if weight is None or len(weight.shape) != 2:
            raise ValueError(f"{path} has scores for {layer!r}, and no matrix of that name.")
        if all(len(tensor.shape) == 1 for tensor in those.values()) and "" not in those:
            scored = ScoredWeight(weight, [those.get("0"), those.get("1")])
            fits = all(
                scores is None or size % max(scores.shape[0], 1) == 0 < scores.shape[0]
                for size, scores in zip(weight.shape, scored.scores)
            )
        else:
            tensor = those.get("", those.get("0"))
            fits = (
                len(those) == 1
                and tensor is not None
                and len(tensor.shape) == 2
                and all(n and size % n == 0 for size, n in zip(weight.shape, tensor.shape))
            )
            scored = ScoredWeight(weight, [tensor])
        if not fits:
            shapes = listed(str(tensor.shape) for tensor in those.values())
            raise ValueError(
                f"{path} has scores of shape {shapes} for {layer!r} of shape {weight.shape}: they "
                "must divide it into blocks, rows or columns."
            )
        found[f"{layer}.weight"] = scored
    return found


_PARAMETERS = (HardMovement, SoftMovement, L0, Magnitude)


def _masks(
    scored: dict[str, ScoredWeight],
    tensors: Mapping[str, StoredTensor],
    plain: Mapping[str, Any],
    config: Mapping[str, Any],
    sparse_args: Mapping[str, Any],
    family: Family,
    method: Any,
    threshold: Any,
) -> Masks:
    """The masks that are to be applied, checked against what the checkpoint says of them."""
    if method is not None and not isinstance(method, _PARAMETERS):
        raise TypeError(
            "method must be a tf_movprune.HardMovement, SoftMovement, Magnitude or L0, got "
            f"{method!r}."
        )
    if getattr(method, "target", False):
        raise ValueError("method must be SoftMovement without target=True: pass its threshold.")
    matrices = [name for name in family.matrices(plain) if name in tensors]
    name = config.get("pruning_method", "")
    is_magnitude = isinstance(method, Magnitude) or (method is None and name == "magnitude")
    if not scored and is_magnitude and threshold is not None:
        scored = {name: ScoredWeight(tensors[name], []) for name in matrices}
    if not scored:
        if method is not None or threshold is not None:
            raise ValueError(
                "The checkpoint has no scores, and method and threshold have nothing to act on: "
                "its masks are folded into its weights. Leave them out."
            )
        if str(config.get("model_type")).startswith("masked_") and name != "l0":
            _check_folded(matrices, tensors, name)
        return Masks({}, {}, None)
    minimum = sparse_args.get("linear_min_parameters", MINIMUM)
    methods = {
        weight: method or method_of(_method_name(weight, family, config, sparse_args), minimum)
        for weight in scored
    }
    if threshold is None:
        threshold = sparse_args.get("final_threshold")
    if all(isinstance(value, L0) for value in methods.values()):
        if threshold is not None and not sparse_args:
            raise ValueError("L0 has no threshold. Leave it out.")
        return Masks(scored, methods, None)
    if threshold is None:
        raise ValueError(
            "The checkpoint has scores and does not say its final threshold: that is in its "
            "training_args.bin, which is not read because it can run code. Pass it as threshold: "
            "the fraction of weights that stays (topK, magnitude), or the cut on the sigmoid of "
            "the scores (sigmoied_threshold)."
        )
    threshold = check_number("threshold", threshold, example=0.1, minimum=0)
    if threshold > 1:
        raise ValueError(f"threshold must be at most 1, got {threshold}.")
    return Masks(scored, methods, threshold)


def _method_name(
    weight: str, family: Family, config: Mapping[str, Any], sparse_args: Mapping[str, Any]
) -> Any:
    """The name of a weight's method, in nn_pruning's arguments or the paper's configuration."""
    layer = weight.removesuffix(".weight")
    inner = [family.query, family.key, family.value]
    if not sparse_args.get("attention_output_with_dense"):
        inner.append(family.attention_output)
    is_attention = any(layer.endswith(f".{name}") for name in inner)
    key = "attention_pruning_method" if is_attention else "dense_pruning_method"
    return sparse_args.get(key, config.get("pruning_method"))


def _check_folded(matrices: Sequence[str], tensors: Mapping[str, StoredTensor], name: Any) -> None:
    """Refuses weights of a masked model that have neither scores nor zeros."""
    if not any((tensors[matrix].array() == 0).any() for matrix in matrices):
        raise ValueError(
            f"The configuration is of a masked model (pruning_method {name!r}), but its weights "
            "have neither scores nor zeros. For magnitude pruning, pass the final fraction that "
            "stays as threshold."
        )
