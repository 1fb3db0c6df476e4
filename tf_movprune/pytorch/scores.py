"""The scores in a checkpoint, and what is said of the masks that they make."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tf_movprune.core.arguments import check_number
from tf_movprune.core.encoder_families import Family
from tf_movprune.core.methods import L0, HardMovement, Magnitude, SoftMovement
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.core.wording import listed
from tf_movprune.pytorch.masks import MINIMUM, Masks, ScoredWeight, method_of

_SCORES = re.compile(r"(.+?)\.(?:mask_module\.context_modules\.([01])\.)?mask_scores")
_METHODS = (HardMovement, SoftMovement, L0, Magnitude)


def split_scores(
    tensors: Mapping[str, StoredTensor], path: pathlib.Path
) -> tuple[dict[str, StoredTensor], dict[str, dict[str, StoredTensor]]]:
    """The weights by name; and the scores of each layer that has any, by which they are.

    Scores are of blocks, `""`, or numbered, `"0"` and `"1"`.

    Raises:
      ValueError: there are masks of another kind.
    """
    weights: dict[str, StoredTensor] = {}
    scores: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        match = _SCORES.fullmatch(name)
        if "ampere_module" in name or "rewind" in name:
            kind = "ampere" if "ampere_module" in name else "rewind"
            raise ValueError(
                f"{path} has {kind} masks ({name}), which are not read: they are another kind of "
                "pruning. Compile the checkpoint with nn_pruning, or remove them if they were not "
                "used."
            )
        if match:
            scores.setdefault(match[1], {})[match[2] or ""] = tensor
        else:
            weights[name] = tensor
    return weights, scores


def scored_weights(
    tensors: Mapping[str, StoredTensor],
    scores: Mapping[str, Mapping[str, StoredTensor]],
    path: pathlib.Path,
) -> dict[str, ScoredWeight]:
    """The weights that have scores, by name.

    Raises:
      ValueError: scores are of no matrix, or do not divide it.
    """
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


# ---- what is said of them


@dataclasses.dataclass(frozen=True)
class PruningSaid:
    """What is said of how a checkpoint was pruned.

    Attributes:
      family: the kind of its encoder.
      config: its configuration, in which the paper's code writes its method.
      sparse_args: the arguments of nn_pruning beside it; empty for other code.
      method: the method that the caller gave, if any.
      threshold: the final threshold that the caller gave, if any.

    Raises:
      TypeError: `method` is not one of those that checkpoints are pruned by.
      ValueError: `method` chooses its threshold itself, or masks are made in ways not known here.
    """

    family: Family
    config: Mapping[str, Any]
    sparse_args: Mapping[str, Any]
    method: Any = None
    threshold: Any = None

    def __post_init__(self) -> None:
        if self.method is not None and not isinstance(self.method, _METHODS):
            raise TypeError(
                "method must be a tf_movprune.HardMovement, SoftMovement, Magnitude or L0, got "
                f"{self.method!r}."
            )
        if getattr(self.method, "target", False):
            raise ValueError("method must be SoftMovement without target=True: pass its threshold.")

    @property
    def is_masked_model(self) -> bool:
        """True if the paper's code wrote the checkpoint."""
        return str(self.config.get("model_type")).startswith("masked_")

    @property
    def is_of_magnitude(self) -> bool:
        if self.method is not None:
            return isinstance(self.method, Magnitude)
        return self.config.get("pruning_method") == "magnitude"

    def method_name(self, weight: str) -> Any:
        """The name of a weight's method: of the two of nn_pruning, or that of the paper's code."""
        layer, family = weight.removesuffix(".weight"), self.family
        inner = [family.query, family.key, family.value]
        if not self.sparse_args.get("attention_output_with_dense", True):
            inner.append(family.attention_output)
        is_attention = any(layer.endswith(f".{name}") for name in inner)
        key = "attention_pruning_method" if is_attention else "dense_pruning_method"
        return self.sparse_args.get(key, self.config.get("pruning_method"))

    def method_of(self, weight: str) -> Any:
        minimum = self._fraction("linear_min_parameters")
        minimum = MINIMUM if minimum is None else minimum
        return self.method or method_of(self.method_name(weight), minimum)

    def _fraction(self, key: str) -> Any:
        """A number in [0, 1] among the arguments of nn_pruning; None if it is not there."""
        value = self.sparse_args.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1):
            raise ValueError(
                f"{key} in sparse_args.json must be a number from 0 to 1, got {value!r:.60}. "
                "Correct it, or pass method and threshold."
            )
        return value

    def final_threshold(self) -> float:
        threshold = self.threshold
        if threshold is None:
            threshold = self._fraction("final_threshold")
        if threshold is None:
            raise ValueError(
                "The checkpoint has scores and does not say its final threshold: that is in its "
                "training_args.bin, which is not read because it can run code. Pass it as "
                "threshold: the fraction of weights that stays (topK, magnitude), or the cut on "
                "the sigmoid of the scores (sigmoied_threshold)."
            )
        threshold = check_number("threshold", threshold, example=0.1, above=0)
        if threshold > 1:
            raise ValueError(f"threshold must be at most 1, such as 0.15 of 15 %, got {threshold}.")
        return threshold


def masks_of(
    tensors: Mapping[str, StoredTensor], scored: Mapping[str, ScoredWeight], said: PruningSaid
) -> Masks:
    """The masks that a checkpoint has, by its scores and what is said of them.

    Raises:
      ValueError: what is said does not go with the scores, or is not enough.
    """
    matrices = [name for name in said.family.matrices(said.config) if name in tensors]
    if not scored and said.is_of_magnitude and said.threshold is not None:
        scored = {name: ScoredWeight(tensors[name], []) for name in matrices}
    if not scored:
        _check_folded(matrices, tensors, said)
        return Masks({}, {})
    _check_complete(matrices, scored, said)
    methods = {name: said.method_of(name) for name in scored}
    by_weight = {
        name: ScoredWeight(weight.weight, []) if isinstance(methods[name], Magnitude) else weight
        for name, weight in scored.items()
    }
    threshold = None
    if any(not isinstance(method, L0) for method in methods.values()):
        threshold = said.final_threshold()
    elif said.threshold is not None:
        raise ValueError("L0 has no threshold. Leave it out.")
    masks_biases = bool(said.sparse_args.get("bias_mask"))
    return Masks(by_weight, methods, threshold, masks_biases=masks_biases)


def _check_folded(
    matrices: Sequence[str], tensors: Mapping[str, StoredTensor], said: PruningSaid
) -> None:
    """Refuses what is said of scores that are not there, and weights that lack their masks."""
    if said.method is not None or said.threshold is not None:
        raise ValueError(
            "The checkpoint has no scores, and method and threshold have nothing to act on: its "
            "masks are folded into its weights. Leave them out."
        )
    name = said.config.get("pruning_method")
    have_zeros = ((tensors[matrix].array() == 0).any() for matrix in matrices)
    is_dense = not (all(have_zeros) if said.is_of_magnitude else any(have_zeros))
    if said.is_masked_model and name != "l0" and is_dense:
        raise ValueError(
            f"The configuration is of a masked model (pruning_method {name!r}), but its weights "
            "have neither scores nor zeros. For magnitude pruning, pass the final fraction that "
            "stays as threshold."
        )


def _check_complete(
    matrices: Sequence[str], scored: Mapping[str, ScoredWeight], said: PruningSaid
) -> None:
    """Refuses scores of which some are missing, and masks to which something is added."""
    if said.sparse_args.get("rewind_model_name_or_path"):
        raise ValueError(
            "The checkpoint was rewound (rewind_model_name_or_path in sparse_args.json): its masks "
            "keep heads by what is in no file. Compile it with nn_pruning."
        )
    missing = [
        name
        for name in matrices
        if name not in scored and not str(said.method_name(name)).startswith("disabled")
    ]
    if missing:
        raise ValueError(
            f"The checkpoint has scores for some matrices, and none for {listed(missing)}: they "
            "would stay dense. Scores that layers share are left out of some files: save it as "
            "pytorch_model.bin, or compile it first."
        )
