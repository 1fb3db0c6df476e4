"""The functions with which models of either Keras are pruned; the model decides which."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from tf_movprune.core.granularity import WEIGHTS
from tf_movprune.shells import is_of_keras, module_for, module_without_model


def prune_low_movement(
    to_prune: Any,
    pruning_schedule: Any = None,
    method: Any = None,
    *,
    block_size: Any = WEIGHTS,
    pruning_policy: Any = None,
    score_learning_rate_multiplier: float | None = None,
    **kwargs: Any,
) -> Any:
    """Prepares a model or layer for pruning during training.

    Models and layers of Keras 3 are changed in place, and returned: the chosen layers stay the
    objects that they are, get their scores and masks as sublayers, and compute with masked kernels.

    In tf_keras, Sequential and Functional models are cloned around the same layers, with their
    losses, metrics and attributes. Subclassed models, subclasses of Functional and Sequential and
    Hugging Face models among them, are changed in place: each chosen sublayer's attribute becomes
    its wrapper, a `PruneLowMovement`. Composite layers inside other models are changed in place,
    too. A layer that is used in several places is wrapped once, in all of them.

    If anything raises, the model is left as it was. Compile the result before training, and train
    with `UpdatePruningStep`.

    KerasHub backbones and Hugging Face encoders are pruned in the matrices that the paper prunes:
    those of attention and of the feed-forward layers of every block. Other models are pruned in
    their dense, convolution, attention and user-defined prunable layers, without embeddings,
    recurrent layers and output layers, whatever holds these: the model is traced once to find them,
    so call a subclassed one first. A `pruning_policy` overrides this choice, and patterns can name
    what it leaves out. `docs/which_layers.md` has the rules.

    Args:
      to_prune: a model or layer of Keras 3 or tf_keras, or a list of layers.
      pruning_schedule: a `PruningSchedule` of this library or of tfmot, or a mapping from patterns
        over layer paths to schedules, such as `{"*attention*": ..., "*": ...}`. The first pattern
        that matches decides; layers that match none stay dense. A pattern that matches none of the
        default choice takes the layers that it matches among those left out, such as an embedding.
        Paths are those that `summarize_sparsity` prints. The method gives the schedule's value its
        meaning: a sparsity, or the threshold of `SoftMovement`. Pass None for `L0` and `KeepZeros`,
        which take no schedule.
      method: a method of choosing masks, or a mapping from patterns to methods; `HardMovement()` by
        default. Layers with equal methods, schedules and block sizes are selected together.
      block_size: granularity of the masks: `Blocks(rows, columns)` or two integers, on kernels [in,
        out], or on the matrix [in, out] that an `EinsumDense` layer multiplies with;
        `BLOCKS_FLOAT32` and `BLOCKS_INT8` are those that LiteRT runs natively. `HEADS` and
        `NEURONS` prune attention heads and the neurons between two dense layers, each with one
        score over all its weights and biases, in all its layers. At least one stays in each layer,
        and `minimum_remaining` of the method if that is more. The sparsity of a schedule is then
        the fraction of heads or neurons that go. Layers that have a part in them and would not be
        pruned, such as the output layer, are pruned with them. A mapping from patterns to these,
        such as `{"*.attention.*": HEADS, "*": NEURONS}`, means single weights if no pattern
        matches.
      pruning_policy: an object that chooses the layers: `PruneTransformerBlocks()`, which takes the
        decoders of Hugging Face models too, or another `PruningPolicy` as in tfmot.
      score_learning_rate_multiplier: learning rate of the scores over that of the optimizer, for
        any optimizer. `HardMovement` has 1 by default, since the order alone counts for scores that
        start at zero; `SoftMovement` has 1e-2 over 3e-5 and `L0` 1e-1 over 3e-5, as in the paper.
      **kwargs: arguments of `PruneLowMovement`, such as `name`, if `to_prune` is a layer of
        tf_keras.

    Returns:
      The pruned model, layer or list of layers.

    Raises:
      RuntimeError: Keras 3 does not run on TensorFlow.
      TypeError: an argument is not of its type.
      ValueError: nothing can be pruned, the model is pruned already or not built, a layer is
        quantized, a pattern matches or decides nothing, heads or neurons are to be pruned in a
        layer that has none, or `KeepZeros` finds no zeros, or would let some come back.

    Warns of transformer blocks and of matrices that the default choice leaves out, and of an output
    layer that was guessed, as the model cannot be traced.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683.
    """
    is_list = isinstance(to_prune, (list, tuple)) and len(to_prune) > 0
    return module_for(to_prune[0] if is_list else to_prune, "prune").prune_low_movement(
        to_prune,
        pruning_schedule,
        method,
        block_size=block_size,
        pruning_policy=pruning_policy,
        score_learning_rate_multiplier=score_learning_rate_multiplier,
        **kwargs,
    )


def strip_pruning(model: Any) -> Any:
    """Folds the masks into the weights and takes the pruning off a model.

    Attributes, names and the order of weights are those of the model before it was pruned. Outputs
    in evaluation equal those of the masked model to the bit; with `L0`, whose gates are not binary,
    they are equal up to rounding in mixed precision. Scores, masks and the compiled state are gone.

    Args:
      model: a model or layer that `prune_low_movement` returned, or a `Distiller` with one as its
        student. What was changed in place is changed back. The layers' weights are overwritten:
        training the pruned model further raises. If stripping raises, the pruned model is left as
        it was, and can be trained on and saved.

    Returns:
      The plain model or layer; for a `Distiller`, the student. A tf_keras model that was cloned by
      `prune_low_movement` gives back the model that it was cloned from.

    Raises:
      TypeError: `model` is not a Keras model or layer.
      ValueError: nothing in `model` is pruned, it was stripped already, or it is not built.

    Warns if masks were never refreshed, have fewer zeros than their schedule asks for at its
    `end_step`, have no zeros, or have nothing else; not of those of `KeepZeros`, which are fixed.
    """
    return module_for(model, "prune").strip_pruning(model)


def update_masks(model: Any, step: Any, *, force: bool = False) -> Any:
    """Refreshes the masks of a pruned model, if its schedules say that they are due.

    In a custom training loop, call it before each step with the optimizer's iterations, and once
    more after the last step with `force=True`. It may be called inside the `tf.function` of the
    step. `fit` needs only `UpdatePruningStep`; one call before `train_on_batch` allows one step,
    and has to be an eager one.

    Args:
      model: a pruned model or layer.
      step: integer scalar, the number of optimizer steps taken so far.
      force: whether to refresh every mask whose schedule has begun and is not over, due or not.

    Returns:
      float32 scalar tensor, the fraction of zeros over all prunable weights.

    Raises:
      RuntimeError: `strip_pruning` has folded the masks in.
      TypeError: `step` is not an integer.
      ValueError: nothing in the model is pruned, the model is not built, or `step` is negative; a
        score, or a weight that masks decide on, is NaN or infinite. For these a `tf.function`
        raises TensorFlow's InvalidArgumentError when it runs; one that XLA compiles leaves the
        masks as they are, and returns NaN.

    Warns if the weights of a model were trained before a step called any pruned layer.
    """
    return module_for(model, "callbacks").update_masks(model, step, force=force)


def pruned_layers(model: Any) -> dict[str, Any]:
    """The pruned layers of a model by path: in tf_keras their wrappers, in Keras 3 themselves.

    Raises:
      TypeError: `model` is not a Keras model or layer.
    """
    return module_for(model, "layer_tree").pruned_layers(model)


@contextlib.contextmanager
def prune_scope() -> Iterator[None]:
    """A scope in which files of whole pruned models load, with their optimizers.

        with tf_movprune.prune_scope():
            model = keras.models.load_model("pruned.keras")

    It serves Keras 3, and tf_keras if that was imported.
    """
    shells = ["keras3", *(["keras2"] if "tf_keras" in sys.modules else [])]
    with contextlib.ExitStack() as scopes:
        for shell in shells:
            module = importlib.import_module(f"tf_movprune.{shell}.saving")
            scopes.enter_context(module.prune_scope())
        yield


def create_optimizer(
    learning_rate: float,
    num_train_steps: int,
    num_warmup_steps: int,
    weight_decay: float = 0.0,
    clipnorm: float | None = 1.0,
    score_optimizer: Any = None,
    *,
    model: Any = None,
    gradient_accumulation_steps: int = 1,
) -> Any:
    """Creates the paper's optimizer: AdamW with linear warm-up and decay, and one clip over all.

    The betas are 0.9 and 0.999, epsilon is 1e-8. Scores, biases, normalisations and other vectors
    do not decay. Scores learn at `score_learning_rate_multiplier` times the rate of the weights;
    see `prune_low_movement`.

    Args:
      learning_rate: peak rate of the weights, greater than 0.
      num_train_steps: steps of the whole training, after which the rate is 0.
      num_warmup_steps: steps of linear warm-up from 0, less than `num_train_steps`.
      weight_decay: decoupled weight decay, at least 0, times the learning rate at each step.
      clipnorm: global norm to which all gradients together, scores included, are clipped; None
        for no clipping.
      score_optimizer: a Keras optimizer for the scores alone, such as `SGD(1.0)`, which needs no
        slots. Its learning rate, a number, follows the same warm-up and decay; clipping and decay
        settings of its own are refused.
      model: the model to train, whose Keras decides that of the optimizer. Without it, the Keras
        of `score_optimizer` decides; without either, it is tf_keras if that was imported.
      gradient_accumulation_steps: batches whose mean gradient a step is taken with, at least 1. All
        numbers of steps, and those of pruning schedules, count steps and not batches.

    Returns:
      A Keras optimizer, serialisable and checkpointed with its score optimizer.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: an argument is out of range.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, section 5.
    """
    if model is None and is_of_keras(score_optimizer):
        model = score_optimizer
    name = "optimizers"
    module = module_without_model(name) if model is None else module_for(model, name)
    return module.create_optimizer(
        learning_rate,
        num_train_steps,
        num_warmup_steps,
        weight_decay,
        clipnorm,
        score_optimizer,
        gradient_accumulation_steps,
    )
