"""Checks of the models and numbers that a Distiller is given, and their messages."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, NamedTuple

from tf_movprune.core.arguments import check_number
from tf_movprune.core.distillation_batches import LABEL_NAMES
from tf_movprune.core.nested import named_leaves
from tf_movprune.core.wording import counted

DEFAULT_ALPHA_HIDDEN = 1.0
"""The weight of hidden states, if they are compared."""


class Numbers(NamedTuple):
    """The numbers that a Distiller is given."""

    temperature: float
    alpha_distil: float
    alpha_ce: float
    alpha_hidden: float


def check_numbers(numbers: Numbers, *, has_hidden_states: bool) -> None:
    """Raises TypeError or ValueError if a number of a Distiller is out of its range.

    Args:
      numbers: the numbers.
      has_hidden_states: whether hidden states are compared.
    """
    check_number("temperature", numbers.temperature, example=2.0, above=0)
    for name in ("alpha_distil", "alpha_ce", "alpha_hidden"):
        check_number(name, getattr(numbers, name), example=0.5, minimum=0)
    if not has_hidden_states and numbers.alpha_hidden != DEFAULT_ALPHA_HIDDEN:
        raise ValueError(
            f"alpha_hidden is the weight of hidden states, got {numbers.alpha_hidden} and none of "
            "these. Choose layers by hidden_states, or leave alpha_hidden out."
        )
    if numbers.alpha_distil == numbers.alpha_ce == 0:
        if not has_hidden_states:
            raise ValueError(
                "alpha_distil and alpha_ce are both 0: there is nothing to learn from."
            )
        if numbers.alpha_hidden == 0:
            raise ValueError(
                "alpha_distil, alpha_ce and alpha_hidden are 0: there is nothing to learn from."
            )


def check_gives_logits(model: Any, role: str, ends_in_probabilities: Callable[[Any], bool]) -> None:
    """Raises ValueError if a model is not built, or ends in a softmax or sigmoid.

    Args:
      model: a Keras model.
      role: "student" or "teacher".
      ends_in_probabilities: returns whether all outputs of a model come out of a softmax or
        sigmoid.
    """
    if not model.built:
        raise ValueError(
            f"The {role} {model.name!r} is not built yet. Call it once on example inputs, for "
            "instance model(batch)."
        )
    if ends_in_probabilities(model):
        raise ValueError(
            f"The {role} {model.name!r} gives probabilities, and logits are distilled: it ends in "
            "a softmax or sigmoid. Leave that out, and pass compile a loss with from_logits=True, "
            "or none."
        )


def check_takes_logits(loss: Any, losses: ModuleType) -> None:
    """Raises ValueError if a loss for `compile`, or one in a list or dict, takes probabilities.

    Args:
      loss: a loss, its name, or a list, tuple or mapping of these.
      losses: the module `keras.losses` or `tf_keras.losses`.
    """
    for _, given in named_leaves(loss):
        found = _loss_of(given, losses)
        function = _without_partial(found)
        name = getattr(function, "__name__", type(function).__name__)
        if name in ("KLDivergence", "kl_divergence"):
            remedy = "Apply tf.nn.softmax to the logits in a loss function of your own"
        elif _from_logits(found, losses) in (None, True):
            continue
        else:
            remedy = f"Pass {_class_name(name)}(from_logits=True)"
        raise ValueError(
            f"Expected a loss of logits, got {name}, which would take the student's logits for "
            f"probabilities. {remedy}, or no loss if the labels are integers."
        )


def _loss_of(given: Any, losses: ModuleType) -> Any:
    """The loss or function of losses of a name; anything else, and names not known, themselves."""
    try:
        return losses.get(given) if isinstance(given, str) else given
    except ValueError:
        return given


def _without_partial(loss: Any) -> Any:
    """The function that a `functools.partial` was made of; other losses themselves."""
    return loss.func if isinstance(loss, functools.partial) else loss


def _from_logits(loss: Any, losses: ModuleType) -> Any:
    """The `from_logits` of a loss; None if it has none."""
    if isinstance(loss, losses.Loss):
        own = getattr(loss, "from_logits", None)
        with contextlib.suppress(Exception):  # whatever one of a user's own raises
            return loss.get_config().get("from_logits") if own is None else own
        return None
    parameters = inspect.signature(loss).parameters if callable(loss) else {}
    found = parameters.get("from_logits")
    return None if found is None or found.default is found.empty else found.default


def _class_name(name: str) -> str:
    """The name of the class of losses that belongs to a function of Keras."""
    return "".join(f"{part[:1].upper()}{part[1:]}" for part in name.split("_"))


def check_not_pruned(teacher: Any, pruned_layers: Collection[Any]) -> None:
    """Raises ValueError if a teacher has pruned layers."""
    if pruned_layers:
        raise ValueError(
            f"The teacher {teacher.name!r} is still pruned. If it is the student, swap the two: "
            "Distiller(student, teacher). Otherwise pass what tf_movprune.strip_pruning(teacher) "
            "returns."
        )


def check_apart(student: Any, teacher: Any) -> None:
    """Raises ValueError if a student trains weights of its teacher."""
    fixed = {id(weight) for weight in teacher.weights}
    # Names in Keras 3 are bare, such as "kernel"; variables there have paths besides.
    names = ((id(w), getattr(w, "path", w.name)) for w in student.trainable_weights)
    shared = [name for key, name in names if key in fixed]
    if shared:
        raise ValueError(
            f"The teacher shares {counted(len(shared), 'weight')} with the student, such as "
            f"{shared[0]!r}, and would change while it trains. prune_low_movement keeps the layers "
            "of the model that it is given: load the teacher anew, or copy it before, with "
            "keras.models.clone_model and set_weights."
        )


def no_teacher() -> ValueError:
    """The error of data without a teacher's logits, where there is no teacher."""
    return ValueError(
        "This Distiller has no teacher, and the data carry no teacher's logits. Pass it a "
        "teacher, or data that tf_movprune.cache_teacher_logits returned, for validation too."
    )


def no_hidden_states() -> ValueError:
    """The error of data with a teacher's logits, where its hidden states are wanted too."""
    return ValueError(
        "The student is to learn hidden states, and the data carry the teacher's logits alone. "
        "Pass hidden_states to tf_movprune.cache_teacher_logits as well, or not to the Distiller."
    )


def no_labels() -> ValueError:
    """The error of data without labels, if the cross-entropy has a weight."""
    names = ", ".join(LABEL_NAMES.values())
    return ValueError(
        f"Labels are missing. Pass y, or {names} among the inputs, or set alpha_ce=0 to learn from "
        "the teacher alone."
    )


def not_saved() -> ValueError:
    """The error of saving a Distiller as a whole."""
    return ValueError(
        "A Distiller is not saved as a whole: save its student, "
        "tf_movprune.strip_pruning(distiller) once it is pruned. To go on training later, use "
        "save_weights or tf.train.Checkpoint."
    )


def not_pruned_itself() -> ValueError:
    """The error of pruning a Distiller."""
    return ValueError(
        "Prune the student before distilling: tf_movprune.Distiller("
        "tf_movprune.prune_low_movement(student, ...), teacher)."
    )
