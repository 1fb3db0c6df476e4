"""Checks for mistakes in a training run, before its first step or when it is over.

They look at records of kernels, schedules and variables, and at nothing of Keras. There is one
function for each mistake, and so there are many. That `UpdatePruningStep` is missing is noticed in
`training_guard.py`, since then nothing calls these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tf_movprune.core.masked_kernel import (
    MaskedKernel,
    each_once,
    masked_parts,
    overall_sparsity,
)
from tf_movprune.core.masks import kept_count
from tf_movprune.core.refresh import groups
from tf_movprune.core.schedules import Ramp
from tf_movprune.core.scores import MOVEMENT_PER_MAGNITUDE, MagnitudeScores
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import counted

_DENSE_STEPS = 1000  # after fewer, scores that began at zero are still noise; the paper has 5,400


class Run(NamedTuple):
    """Optimizer steps of a run, from `start` to before `end`, and words for its length."""

    start: int
    end: int
    description: str


def length_of(run: Run) -> str:
    """Words for the steps of a run: how many, and after which."""
    return run.description + (f" after the first {run.start}" if run.start else "")


def describe_ramp(group: Sequence[MaskedKernel]) -> str:
    """One line on what a group prunes, and its sparsity at begin, middle and end of the ramp."""
    ramp = group[0].settings.ramp
    begin, end = ramp.begin_step, ramp.end_step
    steps = [begin] if end is None or end <= begin else [begin, (begin + end) // 2, end]
    if group[0].has_units:
        units = str(group[0].settings.block_size)
        pieces, places = counted(_total(group), units[:-1]), counted(len(group), "layer")
    else:
        sizes = [weight.shape.num_elements() for weight, _ in masked_parts(group)]
        pieces = counted(sum(sizes), "weight")
        places = counted(len(sizes), "matrix", "matrices")
    what = f"Pruning {pieces} in {places}."
    if ramp.is_fixed:
        return f"{what} Sparsity is fixed: {float(overall_sparsity(group)):.2f}."
    if ramp.value_name is None:
        return what
    values = ", ".join(f"{ramp.value_at(step):.2f} at {step}" for step in steps)
    return f"{what} {ramp.value_name.capitalize()} by step: {values}."


def check_schedule(ramp: Ramp, run: Run) -> None:
    """Raises ValueError if a schedule does not end, or never fires, within a run."""
    begin, end, frequency = ramp.begin_step, ramp.end_step, ramp.frequency
    length = length_of(run)
    if end is not None and end > run.end:
        raise ValueError(
            f"The schedule ends at step {end}, but {length}: it would stop at "
            f"{ramp.value_name} {ramp.value_at(run.end):.2f}. Lower end_step (a recipe makes it "
            f"from num_train_steps, which would be {run.end}) or train longer. If this is one of "
            "several calls of fit, pass num_train_steps to UpdatePruningStep."
        )
    if ramp.final_value == 0:  # as it is asked for
        return
    # A ramp from 0 prunes nothing yet at its first refresh.
    first = begin + frequency if ramp.value_at(begin) == 0 else begin
    last = run.end - 1 if end is None else end
    if run.start <= last and first > min(last, run.end - 1):
        raise ValueError(
            f"{type(ramp.schedule).__name__} never prunes on its way: with begin_step {begin} and "
            f"frequency {frequency} the first step at which it would is {first}, but its end_step "
            f"is {-1 if end is None else end}, and {length}. Lower begin_step or frequency, or "
            "train longer."
        )


def scores_by_path(kernels: Mapping[str, Sequence[MaskedKernel]]) -> dict[str, tf.Variable]:
    """All score variables, each once, by the path of the first layer that has them.

    Those of a layer with several kernels are numbered from the second one on.

    Args:
      kernels: masked kernels by the path of their layer.
    """
    found: dict[str, tf.Variable] = {}
    seen: set[int] = set()
    for path, members in kernels.items():
        number = 0
        for kernel in members:
            if kernel.scores is not None and id(kernel.scores) not in seen:
                seen.add(id(kernel.scores))
                number += 1
                found[path if number == 1 else f"{path} ({number})"] = kernel.scores
    return found


def sums_of_scores(scores: Mapping[str, tf.Variable]) -> list[tuple[float, float]]:
    """Two sums over each score variable, which change if the scores do."""
    sums = []
    for variable in scores.values():
        values = tf.cast(tf.convert_to_tensor(variable), tf.float64)
        sums.append((float(tf.reduce_sum(values)), float(tf.reduce_sum(values * values))))
    return sums


def warn_if_scores_stood_still(
    scores: Mapping[str, tf.Variable], before: Sequence[tuple[float, float]]
) -> None:
    """Warns of scores that training has not changed.

    Args:
      scores: score variables by the path of their layer.
      before: their `sums_of_scores` before training.
    """
    still = [path for path, a, b in zip(scores, before, sums_of_scores(scores)) if a == b]
    if still:
        warn(
            f"Training has not moved the movement scores of {', '.join(still)}: their masks follow "
            "from the first scores alone. A train step or loop of your own has to train the "
            "model's trainable_variables as they are after pruning, at a learning rate above 0."
        )


class DecayingRate(Protocol):
    """A learning rate that falls to 0 at `num_train_steps`."""

    num_train_steps: int
    peak_learning_rate: float

    def __call__(self, step: int) -> tf.Tensor: ...


def warn_if_rate_ends(rate: DecayingRate, run: Run) -> None:
    """Warns of a learning rate that is 0 before a run is over, or long after it."""
    if rate.num_train_steps < run.end:
        warn(
            f"The optimizer's learning rate is 0 from step {rate.num_train_steps} on, its "
            f"num_train_steps, but {length_of(run)}: nothing would learn in the steps after. Make "
            f"the optimizer for num_train_steps={run.end}, or train shorter."
        )
    elif rate.num_train_steps > 1.1 * run.end:
        left = float(rate(run.end)) / rate.peak_learning_rate
        warn(
            f"The optimizer was made for num_train_steps={rate.num_train_steps}, but "
            f"{length_of(run)}: the learning rate would still be {left:.0%} of its peak at the "
            f"end. Make the optimizer for num_train_steps={run.end}, or train longer. If this is "
            "one of several calls of fit, pass num_train_steps to UpdatePruningStep."
        )


def built_too_early(unknown: str) -> ValueError:
    """The error to raise if an optimizer does not know the scores that it should train."""
    return ValueError(
        f"The optimizer was built before the model was pruned, and does not know {unknown}. "
        "Compile the pruned model with a new optimizer, such as what create_optimizer of a "
        "ShortRun or of tf_movprune makes with model=model."
    )


def warn_if_scores_learn_otherwise(
    group: Sequence[MaskedKernel],
    optimizer_name: str,
    is_plain_gradient_descent: bool,
    rate: float | Callable[[int], tf.Tensor] | None,
) -> None:
    """Warns of scores of `ShortRun` that learn by another optimizer than the recipe's.

    Args:
      group: kernels with the same settings.
      optimizer_name: class of the optimizer of their scores.
      is_plain_gradient_descent: whether that is gradient descent without momentum.
      rate: its learning rate, or the schedule of it; None if it is not known.
    """
    method, scale = group[0].method, group[0].settings.score_scale
    if getattr(method, "score_initializer", None) != MagnitudeScores(MOVEMENT_PER_MAGNITUDE):
        return
    if callable(rate):
        ramp = group[0].settings.ramp
        rate = max(float(rate(step)) for step in (ramp.begin_step, ramp.final_step or 0))
    if not is_plain_gradient_descent:
        what = f"by {optimizer_name}"
    elif rate is not None and not 0.1 <= float(rate) / scale.rate_for(1.0) <= 10:
        what = f"at rate {float(rate):.3g}"
    else:
        return
    warn(
        f"Scores start from MagnitudeScores({MOVEMENT_PER_MAGNITUDE}), as in tf_movprune.ShortRun, "
        "whose scores learn by gradient descent without momentum at rate 1, but here they learn "
        f"{what}: accuracy is lower then. Compile with recipe.create_optimizer(...), or "
        "pass a Keras optimizer SGD(1.0) as score_optimizer to tf_movprune.create_optimizer."
    )


def warn_if_scores_are_noise(group: Sequence[MaskedKernel], step: int) -> None:
    """Warns of scores that start at zero shortly before the first weights go by their order."""
    method, ramp = group[0].method, group[0].settings.ramp
    if not method.has_scores or method.schedule_value != "sparsity" or step > 0:
        return
    is_late = ramp.begin_step >= _DENSE_STEPS
    if not is_late and not any(np.any(kernel.scores) for kernel in group):
        warn(
            f"Movement scores start at zero and pruning begins at step {ramp.begin_step}. Scores "
            "are noise for the first hundreds of steps, and cuts by them remove large weights: "
            "accuracy was at chance when this was measured (docs/short_runs.md). Use "
            "tf_movprune.ShortRun, or start the scores from tf_movprune.MagnitudeScores, or train "
            "densely for thousands of steps before begin_step, as the paper does."
        )


def warn_if_ahead(kernels: Iterable[MaskedKernel], step: int) -> None:
    """Warns of masks with more zeros than their schedule has at the step at which training goes on.

    This happens when weights were loaded without the optimizer's state.
    """
    for group in groups(kernels):
        if group[0].method.schedule_value != "sparsity":
            continue
        sparsity, target = 1 - _kept(group) / _total(group), group[0].settings.ramp.value_at(step)
        # A mask has up to one zero more than its share, which shows among few heads or neurons.
        if sparsity > target + 0.01 + len(group) / _total(group):
            warn(
                f"Masks have sparsity {sparsity:.3f}, but training starts at step {step}, where "
                f"their schedule says {target:.3f}: weights will come back. To resume, restore the "
                "optimizer too, with tf.train.Checkpoint(model=model, optimizer=model.optimizer)."
            )


def warn_if_behind(name: str, kernels: Mapping[str, Sequence[MaskedKernel]]) -> None:
    """Warns of masks that were never refreshed, are behind their schedule, or have no zeros.

    Those of methods that keep zeros are right from the start, also if nothing else remains.

    Args:
      name: name of the model, for messages.
      kernels: masked kernels by the name of their layer.
    """
    all_kernels = each_once(
        kernel
        for members in kernels.values()
        for kernel in members
        if not kernel.method.keeps_zeros
    )
    if not all_kernels:
        return
    if all(np.all(kernel.threshold == -np.inf) for kernel in all_kernels) and (
        _kept(all_kernels) == _total(all_kernels)
    ):
        warn(
            f"The masks of {name!r} were never refreshed: stripping gives the model as it was. "
            "Train it with tf_movprune.UpdatePruningStep(), or call tf_movprune.update_masks."
        )
        return
    empty = [
        layer
        for layer, members in kernels.items()
        if not all(np.any(k.mask) or k.method.keeps_zeros for k in members)
    ]
    if empty:
        warn(
            f"Nothing remains of a kernel of {', '.join(empty)}. Prune less, or leave these layers "
            "out; hard and soft movement and magnitude keep minimum_remaining of each."
        )
    for group in groups(all_kernels):
        _warn_if_group_is_behind(name, group)


def _warn_if_group_is_behind(name: str, group: Sequence[MaskedKernel]) -> None:
    method, ramp = group[0].method, group[0].settings.ramp
    kept, total = _kept(group), _total(group)
    if method.schedule_value != "sparsity":
        if kept == total:
            warn(
                f"{type(method).__name__} has pruned nothing in {name!r}. Raise final_lambda, "
                "or score_learning_rate_multiplier, or train longer."
            )
        return
    if ramp.end_step is None:
        return
    target = ramp.value_at(ramp.end_step)
    minimum = getattr(method, "minimum_remaining", None) or 0.0
    # One more in each matrix may be the rounding of a method that counts in another way.
    sizes = [kernel.size for kernel in group]
    allowed = (max(int(kept_count(n, target)), int(minimum * n) + 1) for n in sizes)
    if kept > sum(allowed) + len(sizes):
        warn(
            f"Sparsity is {1 - kept / total:.4f} in masks whose {type(ramp.schedule).__name__} "
            f"says {target:.4f} at its end_step {ramp.end_step}. Train to end_step, and after a "
            "loop of your own call tf_movprune.update_masks(model, step, force=True)."
        )


def _kept(kernels: Iterable[MaskedKernel]) -> int:
    return sum(int(np.count_nonzero(kernel.mask)) for kernel in kernels)


def _total(kernels: Iterable[MaskedKernel]) -> int:
    return sum(kernel.size for kernel in kernels)
