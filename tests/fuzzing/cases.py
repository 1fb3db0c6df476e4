"""Random ways to prune a network, and what the masks must be then by the paper alone."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import reference
from fuzzing.networks import LEFT_OUT, MATRICES, Network, networks
from hypothesis import strategies as st
from shells import kernels
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune
from tf_movprune import HEADS, NEURONS, CubicSparsity, CubicThreshold
from tf_movprune.core.refresh import groups

STEPS = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, how it is pruned, and what is done with it then."""

    network: Network
    structure: str
    method: Any
    schedule: Any
    block_size: Any
    trained_by: str
    saved_as: str
    quantization: str | None
    exported_as: str | None

    def prune(self, model):
        return tf_movprune.prune_low_movement(
            model, self.schedule, self.method, block_size=self.block_size
        )

    @property
    def one_method(self) -> Any:
        return next(iter(self.method.values())) if isinstance(self.method, dict) else self.method

    @property
    def contents(self) -> set[str]:
        """Names of all that is in it, to see that everything occurs."""
        network, method = self.network, self.one_method
        schedule = self.schedule
        if isinstance(schedule, dict):
            schedule = next(iter(schedule.values()))
        return {
            *(part.kind for part in network.parts),
            *(part.wiring for part in network.parts),
            network.data,
            *(network.kind, network.policy, self.structure, self.trained_by),
            f"saved as {self.saved_as}",
            type(method).__name__,
            type(schedule).__name__,
            f"scope {getattr(method, 'scope', None)}",
            f"target {getattr(method, 'target', None)}",
            f"patterns {isinstance(self.schedule, dict)}",
            f"quantization {self.quantization}",
            f"export {self.exported_as}",
        }


SPARSITIES = st.sampled_from([0.25, 0.5, 0.7, 0.9, 0.999])
MINIMUMS = st.sampled_from([None, 0.1, 0.29])
SCOPES = st.sampled_from(["local", "global"])
STARTS = st.sampled_from(["zeros", tf_movprune.MagnitudeScores(0.01), 0.5])


@st.composite
def ramps(draw, cls, final, latest):
    begin = draw(st.integers(0, 1))
    end = draw(st.integers(begin + 1, latest))
    return cls(
        final,
        begin_step=begin,
        end_step=end,
        **{f"initial_{cls.schedule_value}": draw(st.sampled_from([0.0, final / 2]))},
        frequency=1 if latest == STEPS else draw(st.integers(1, end - begin)),
        freeze_step=draw(st.sampled_from([None, end])),
    )


@st.composite
def sparsity_schedules(draw, latest):
    final = draw(SPARSITIES)
    kind = draw(st.sampled_from(["cubic"] * 4 + ["polynomial", "constant"]))
    if kind == "constant":
        return tfmot.ConstantSparsity(final, begin_step=draw(st.integers(0, 2)), frequency=1)
    if kind == "polynomial":
        begin = draw(st.integers(0, 1))
        end = draw(st.integers(begin + 1, latest))
        return tfmot.PolynomialDecay(final / 2, final, begin, end, power=3, frequency=1)
    return draw(ramps(CubicSparsity, final, latest))


@st.composite
def methods(draw, structure):
    """A method, and the kind of its schedule."""
    names = ["hard", "hard", "magnitude", "target", "threshold"]
    name = draw(st.sampled_from(names if structure in ("heads", "neurons") else [*names, "l0"]))
    if name == "hard":
        method = tf_movprune.HardMovement(draw(STARTS), draw(SCOPES), draw(MINIMUMS))
    elif name == "magnitude":
        method = tf_movprune.Magnitude(draw(SCOPES), draw(MINIMUMS))
    elif name == "l0":
        method = tf_movprune.L0(draw(st.sampled_from([1.0, 1e4])), seed=draw(st.integers(0, 2)))
    else:
        method = tf_movprune.SoftMovement(
            draw(st.sampled_from([0.0, 100.0])),
            draw(st.sampled_from([0.005, 0.2])),
            target=name == "target",
            score_initializer=draw(STARTS),
        )
    return method


@st.composite
def cases(draw):
    """Cases most of which are not refused."""
    structure = draw(st.sampled_from(["weights"] * 3 + ["blocks", "heads", "neurons"]))
    if structure == "heads":
        network = draw(
            networks(["sequences", "tokens"], ["attention"], ["functional", "nested", "subclassed"])
        )
    elif structure == "neurons":
        network = draw(
            networks(
                ["vectors", "sequences", "images"], ["mlp"], ["sequential", "functional"], False
            )
        )
    else:
        network = draw(networks(must_have=MATRICES if structure == "blocks" else ()))
    method = draw(methods(structure))
    trained_by = draw(st.sampled_from(["loop"] * 5 + ["fit"]))
    latest = STEPS if trained_by == "fit" else STEPS + 2
    if method.schedule_value is None:
        schedule = None
    elif method.schedule_value == "threshold":
        schedule = draw(ramps(CubicThreshold, draw(st.sampled_from([0.1, 0.51, 0.9])), latest))
    else:
        schedule = draw(sparsity_schedules(latest))
    if structure == "neurons":  # of layers that both read and have some, all or none are pruned
        schedule = {"*_up*": schedule}
    named = [n for n, part in zip(network.names, network.parts) if part.kind in LEFT_OUT]
    named += ["logits", *["table"] * (network.data == "tokens")]
    reached = draw(st.lists(st.sampled_from(named), unique=True, max_size=1))
    if structure == "weights" and reached:
        pattern = f"*{reached[0]}*"
        if schedule is None:
            method = {pattern: method, "*": method}
        else:
            schedule = {pattern: schedule, "*": schedule}
    is_kept = structure not in ("heads", "neurons") and network.has_known_layers
    return Case(
        network,
        structure,
        method,
        schedule,
        draw(block_sizes(structure, network)),
        trained_by,
        draw(st.sampled_from(["weights", "checkpoint", *["whole"] * (2 * is_kept)])),
        draw(st.sampled_from([None, None, "int8", "float16"])),
        draw(st.sampled_from([None] * 30 + ["saved_model", "tflite"])),
    )


@st.composite
def block_sizes(draw, structure, network):
    if structure == "weights":
        return (1, 1)
    if structure == "heads":
        return {"*attention*": HEADS}
    if structure == "neurons":
        return NEURONS
    size = draw(st.sampled_from([(2, 1), (1, 2), (4, 4)]))
    kinds = dict.fromkeys(part.kind for part in network.parts if part.kind in MATRICES)
    return {f"*{kind}*": size for kind in kinds}


class Expected:
    """The masks that a pruned model must have, by NumPy and the paper.

    `refresh` is to be called before each refresh of the library, with the scores of that moment.
    """

    def __init__(self, model):
        self._groups = groups(kernels(model))
        self._masks = {
            id(kernel): np.ones(kernel.mask.shape, bool)
            for group in self._groups
            for kernel in group
        }

    def refresh(self, step: int, *, force: bool = False) -> None:
        for group in self._groups:
            if _is_due(group[0].settings, step, force):
                self._masks.update(zip(map(id, group), _masks(group, step)))

    def check(self) -> None:
        for kernel in (kernel for group in self._groups for kernel in group):
            np.testing.assert_array_equal(kernel.mask.numpy(), self._masks[id(kernel)])


def _is_due(settings, step: int, force: bool) -> bool:
    schedule = settings.schedule
    if settings.method.schedule_value is None:
        return True
    begin, end = schedule.begin_step, schedule.end_step
    if not isinstance(schedule, CubicSparsity | CubicThreshold):  # each step, until its end if any
        return begin <= step and (step <= end or end == -1)
    initial = vars(schedule)[f"initial_{schedule.schedule_value}"]
    frequency, freeze = schedule.frequency, schedule.freeze_step
    if freeze is not None and step >= freeze:
        return step == freeze
    if step < begin:
        return initial > 0 and step % frequency == 0
    return force or (step - begin) % frequency == 0 or step == end


def _value(settings, step: int) -> Fraction:
    schedule, name = settings.schedule, settings.method.schedule_value
    if isinstance(schedule, tfmot.ConstantSparsity):
        return reference.decimal(schedule.target_sparsity)
    initial, final = (getattr(schedule, f"{end}_{name}") for end in ("initial", "final"))
    return reference.cubic(step, initial, final, schedule.begin_step, schedule.end_step)


def _masks(group, step: int) -> list[np.ndarray]:
    """The masks of kernels that are selected together."""
    settings = group[0].settings
    method, importances = settings.method, [k.importance().numpy().astype(float) for k in group]
    if method.schedule_value is None:
        return [reference.hard_concrete_gate(scores) > 0 for scores in importances]
    value, fraction = _value(settings, step), method.minimum_remaining
    if method.schedule_value == "threshold":
        return [reference.soft_mask(scores, float(value), fraction) for scores in importances]
    sizes = [kernel.size for kernel in group]
    if fraction is None:
        least = [1] * len(sizes)
    else:
        is_soft = isinstance(method, tf_movprune.SoftMovement)
        least = [int(reference.decimal(fraction) * size) + is_soft for size in sizes]
    if getattr(method, "scope", "global") == "global":
        count = max(reference.kept_count(sum(sizes), value), sum(least))
        masks = reference.global_topk_masks(importances, count, least)
    else:
        counts = [max(reference.kept_count(size, value), n) for size, n in zip(sizes, least)]
        masks = [reference.topk_mask(*pair) for pair in zip(importances, counts)]
    if group[0].has_units:  # of which one stays in any case
        masks = [m if m.any() else reference.topk_mask(x, 1) for m, x in zip(masks, importances)]
    return masks
