"""Checkpoints of PyTorch as models of Keras."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib
from typing import Any

from tf_movprune.core.arguments import check_boolean
from tf_movprune.core.ported_weight import PortedWeight
from tf_movprune.core.wording import listed
from tf_movprune.pytorch.checkpoint import Checkpoint, read_checkpoint
from tf_movprune.pytorch.pooler import new_pooler
from tf_movprune.pytorch.training import prune_like
from tf_movprune.pytorch.weight_files import (
    PYTORCH_FILES,
    SAFETENSORS,
    TF_WEIGHTS,
    TOKENIZER_FILES,
    metadata,
)
from tf_movprune.shells import is_of_keras, module_for


def load_pytorch(
    folder: str | os.PathLike[str],
    model_class: Any = None,
    *,
    method: Any = None,
    threshold: float | None = None,
    weights: str = "auto",
    masks: bool = False,
    pruning_schedule: Any = None,
    score_learning_rate_multiplier: float | None = None,
) -> Any:
    """Loads a pruned PyTorch checkpoint of BERT and its relatives, without torch.

    It knows the checkpoints of the paper's code and of nn_pruning, among them the published pruned
    BERTs, and ordinary ones. The shapes of the weights tell which heads and neurons are left. Masks
    are made from the scores in the file as the code that trained them makes them in evaluation.
    Encoders are BERT, RoBERTa (also CamemBERT and XLM-RoBERTa), DistilBERT and ELECTRA, by
    themselves or with a head for questions, or for classes of sequences or tokens.

    Files are `model.safetensors` or `pytorch_model.bin`, in one or several shards, or
    `tf_model.h5`. Pickles in `.bin` files are read without running anything in them.

    Args:
      folder: folder with `config.json` and weights, or the name of a repository on the Hugging
        Face hub, which `huggingface_hub` downloads.
      model_class: class of Hugging Face's TF models, by default the one that the checkpoint names;
        or of KerasHub: a text classifier, or a backbone. With a backbone the model is a Functional
        one of the backbone and the head of the checkpoint. It returns `start_logits` and
        `end_logits` of questions, and the logits of tokens.
      method: `HardMovement`, `SoftMovement`, `L0` or `Magnitude`, if the scores were trained with
        another method than the configuration says. `HardMovement(scope="global")` is that of
        `--global_topk`, which no configuration tells.
      threshold: the final threshold of the checkpoint, in (0, 1]: for hard movement and magnitude
        the fraction of weights that stays, for soft movement the cut on the sigmoid of the scores.
        That of nn_pruning is in its `sparse_args.json`, that of the paper's code is not in a file
        that is safe to read.
      weights: `"pytorch"` or `"tf"` reads the weights of PyTorch or of a TF class; `"auto"` those
        of PyTorch if there are any, with a warning if others beside them are another function.
      masks: whether to return a pruned model, whose scores and masks are those of the checkpoint,
        so that its training can go on; else they are folded into the weights.
      pruning_schedule: schedule of the pruned model; by default one that stays at the checkpoint's
        sparsity or threshold.
      score_learning_rate_multiplier: that of `prune_low_movement`, for the pruned model.

    Returns:
      The model, in evaluation the same function as the PyTorch model. KerasHub's BERT computes the
      exact GELU then, which its own class does not: load what its `save` and `save_to_preset` write
      with `load_compacted`. KerasHub's RoBERTa needs its padding on the right.

    Raises:
      ImportError: a package that is needed is not installed.
      TypeError: an argument is not of its type.
      ValueError: the folder has no such checkpoint, weights are missing, left over or of another
        shape, scores are missing or have no threshold, `pruned_heads` disagree with the shapes, or
        the checkpoint computes something else: another normalisation (`no_norm`), ampere masks,
        or masks that were rewound.

    Warns if other weights in the folder are another function, or could not be compared.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683; Lagunas et al. (2021),
      https://arxiv.org/abs/2109.04838.
    """
    check_boolean("masks", masks)
    shell = _shell(model_class)
    place = local_folder(folder, weights)
    checkpoint = read_checkpoint(place, method=method, threshold=threshold, weights=weights)
    tensors = shell.adapted(checkpoint.tensors)
    checkpoint = dataclasses.replace(checkpoint, tensors=tensors)
    if masks and not checkpoint.masks.weights:
        raise ValueError(
            f"{place} has no scores to go on with: its masks are folded into its weights. To keep "
            "its zeros while you train, load it without masks=True, and prune it with "
            "tf_movprune.KeepZeros()."
        )
    if not masks and (pruning_schedule, score_learning_rate_multiplier) != (None, None):
        raise ValueError(
            "pruning_schedule and score_learning_rate_multiplier need a pruned model. Pass "
            "masks=True as well."
        )
    config = {**checkpoint.config, "_name_or_path": str(place)}
    try:
        model = shell.model_of(config, checkpoint.sizes, checkpoint.tensors, model_class)
    except (ImportError, ValueError):
        raise
    except Exception as error:  # a configuration can fail anywhere in its model
        raise ValueError(
            f"config.json in {place} makes no model of its weights: {error!r}"
        ) from error
    ported = shell.ported_weights(model)
    _check_fit(checkpoint, ported, shell.unread_weights(model), place)
    width = checkpoint.family.size(config, "width")
    unread = new_pooler(checkpoint.family, width)
    for weight in ported:
        if weight.name in checkpoint.tensors:
            weight.assign(checkpoint.array(weight.name, is_masked=not masks))
        else:
            weight.assign(unread[weight.name])
    if not masks:
        return model
    return prune_like(
        model, checkpoint.masks, ported, pruning_schedule, score_learning_rate_multiplier
    )


def _shell(model_class: Any) -> Any:
    """The module for a class of models, Hugging Face's TF classes unless one is given."""
    if model_class is None:
        return importlib.import_module("tf_movprune.keras2.pytorch_protocol")
    if not isinstance(model_class, type) or not is_of_keras(model_class):
        raise TypeError(
            "model_class must be a class of Hugging Face TF models, such as "
            "transformers.TFBertForQuestionAnswering, or of KerasHub, such as "
            f"keras_hub.models.BertBackbone, got {model_class!r}. Leave it out for the class that "
            "the checkpoint names."
        )
    shell = module_for(model_class, "pytorch_protocol")
    shell.check_model_class(model_class)
    return shell


def holds_pytorch(path: pathlib.Path) -> bool:
    """Returns whether a path is a folder with weights of PyTorch, as `save_pytorch` writes them."""
    file = path / SAFETENSORS
    return file.is_file() and metadata(file).get("format") == "pt"


def local_folder(folder: str | os.PathLike[str], weights: str) -> pathlib.Path:
    """The folder itself; or where the repository of that name was downloaded to.

    Args:
      folder: the folder, or the name of a repository.
      weights: which of its weights to download, as in `load_pytorch`.

    Raises:
      ImportError: `huggingface_hub` is not installed.
      ValueError: there is no such folder or repository.
    """
    path = pathlib.Path(folder)
    if path.is_dir():
        return path
    if not isinstance(folder, str) or folder.count("/") > 1 or path.is_absolute():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"There is no folder {folder!r}, and no package huggingface_hub to download a "
            "repository of that name: pip install huggingface_hub."
        ) from error
    patterns = ["config.json", "sparse_args.json", *TOKENIZER_FILES]
    if weights != "tf":
        patterns += [f"{PYTORCH_FILES[0]}*", f"{PYTORCH_FILES[2]}*"]  # with their indices
        patterns += ["model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"]
    if weights != "pytorch":
        patterns.append(TF_WEIGHTS)
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(folder, allow_patterns=patterns))
    except Exception as error:  # the network fails in many ways
        raise ValueError(
            f"There is no folder {folder!r}, and no repository of that name could be downloaded. "
            f"Pass a folder that was downloaded elsewhere. {error}"
        ) from error


def _check_fit(
    checkpoint: Checkpoint, ported: list[PortedWeight], unread: set[str], folder: pathlib.Path
) -> None:
    """Raises ValueError unless every weight is used exactly once, in its shape.

    A pooler may be left over, which old checkpoints have though nothing reads it.
    """
    wanted = {weight.name: weight.shape for weight in ported}
    there = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    missing = sorted(wanted.keys() - there.keys() - unread)
    unexpected = sorted(there.keys() - wanted.keys() - set(checkpoint.family.pooler))
    mismatched = sorted(
        f"{name} {there[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in there and there[name] != shape
    )
    not_float = sorted(
        f"{name} {tensor.dtype}"
        for name, tensor in checkpoint.tensors.items()
        if name in wanted and tensor.dtype.kind not in "fV"  # bfloat16 is of kind V
    )
    problems = [
        f"{what} {listed(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", mismatched),
            ("of another type than floating-point numbers", not_float),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"The weights in {folder} are not those of the model that its config.json describes: "
            f"{'; '.join(problems)}. Pass another model_class, or none for the one that it names."
        )
