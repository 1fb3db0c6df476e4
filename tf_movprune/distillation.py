"""Distillation with models of either Keras; the models decide which."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from tf_movprune.core.distillation_checks import DEFAULT_ALPHA_HIDDEN
from tf_movprune.shells import module_for, shell_name


class _OfEitherKeras(type):
    """The class of `Distiller`, of which the Distillers of both shells count as instances."""

    def __instancecheck__(cls, instance: Any) -> bool:
        # Without its module, a shell has made no Distiller.
        modules = (sys.modules.get(f"tf_movprune.{s}.distiller") for s in ("keras2", "keras3"))
        return any(isinstance(instance, module.Distiller) for module in modules if module)


class Distiller(metaclass=_OfEitherKeras):
    """Trains a student on labels and its teacher's outputs; a model for `fit` and `evaluate`.

        loss = alpha_distil * KL + alpha_ce * CE + alpha_hidden * HS + sum(student.losses)

    KL is `distillation_loss`. CE is the cross-entropy of the student's logits with integer labels,
    or the `loss` given to `compile`. Both are means over the outputs if there are several, such as
    the start and end of an answer. HS, which is there if `hidden_states` are chosen, is the mean of
    `hidden_state_loss` over these layers. All are float32 under every precision policy.

        student = tf_movprune.prune_low_movement(student, schedule)
        distiller = tf_movprune.Distiller(student, teacher)
        distiller.compile(optimizer, metrics=["accuracy"], jit_compile=True)
        distiller.fit(dataset, callbacks=[tf_movprune.UpdatePruningStep()])
        plain = tf_movprune.strip_pruning(distiller)  # the student

    The Distiller is a model of the Keras of the student and the teacher. Outputs are logits
    [batch, ..., classes]: a tensor, a list, tuple or dict of tensors, or a Hugging Face output,
    whose `logits`, or `start_logits` and `end_logits`, are used. Labels are `y`, or in the inputs
    under Hugging Face's names if there is no `y`. They may be missing if `alpha_ce` is 0. Examples
    or tokens labelled -100, or masked by a Keras mask, count for nothing in the loss and in
    metrics. `sample_weight` weights CE but not KL: an example of weight 0 is labelled by the
    teacher alone.

    The logs are `loss`, `ce_loss`, `distillation_loss`, with HS `hidden_state_loss`, and the
    metrics of `compile` on the student's logits. `predict` returns the student's outputs. Weights,
    checkpoints and `trainable_weights` are the student's. Under a distribution strategy, make both
    models in its scope.

    Args:
      student: built model of Keras 3 or tf_keras.
      teacher: built model of the same Keras, which runs in inference mode; None if all data come
        from `cache_teacher_logits`.
      temperature: temperature of KL, greater than 0.
      alpha_distil: weight of KL, at least 0.
      alpha_ce: weight of CE, at least 0. One of the weights must be above 0.
      hidden_states: layers whose outputs the student learns too, of the same width in both models:
        True for the blocks of KerasHub's backbones and of Hugging Face's encoders; a pattern over
        the paths of layers or a list of patterns, such as `"*.transformer_layer_*"`; or a dict from
        patterns for the student's layers to those for the teacher's. Of layers inside each other
        that match, the outermost count. They are compared first with first, at the tokens that a
        Keras mask leaves, or else `padding_mask` or `attention_mask` among the inputs. None
        compares none.
      alpha_hidden: weight of HS, at least 0; 1 unless given.

    Raises:
      TypeError: a model is not a Keras model, the two are of different Kerases, or `hidden_states`
        does not choose layers.
      ValueError: a model is not built or ends in a softmax or sigmoid, the teacher is pruned or
        shares weights that the student trains, a number is out of its range, or `hidden_states`
        matches no layers, or not as many of the student as of the teacher. In `compile`: a
        loss takes probabilities, as those with `from_logits=False` do. In `fit`: the
        outputs or hidden states of student and teacher do not match, labels do not fit them, or
        there is neither a teacher nor cached logits.

    Reference:
      Hinton, Vinyals & Dean (2015), https://arxiv.org/abs/1503.02531; Sanh, Wolf & Rush (2020),
      https://arxiv.org/abs/2005.07683, section 6; Kurtic et al. (2023),
      https://arxiv.org/abs/2310.06927, for hidden states.
    """

    def __new__(
        cls,
        student: Any,
        teacher: Any,
        temperature: float = 2.0,
        alpha_distil: float = 0.5,
        alpha_ce: float = 0.5,
        hidden_states: Any = None,
        alpha_hidden: float = DEFAULT_ALPHA_HIDDEN,
        **kwargs: Any,
    ) -> Any:
        module = module_for(student, "distiller")
        if teacher is not None and shell_name(teacher) != shell_name(student):
            names = {"keras2": "tf_keras", "keras3": "Keras 3"}
            raise TypeError(
                f"The student is of {names[shell_name(student)]}, and the teacher of "
                f"{names[shell_name(teacher)]}. Load both in the same Keras."
            )
        numbers = (temperature, alpha_distil, alpha_ce)
        return module.Distiller(student, teacher, *numbers, hidden_states, alpha_hidden, **kwargs)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(
            "tf_movprune.Distiller makes a model of its student's Keras, and has no subclasses. "
            "Subclass Distiller of tf_movprune.keras3.distiller or tf_movprune.keras2.distiller."
        )


def cache_teacher_logits(dataset: Any, teacher: Any, hidden_states: Any = None) -> Any:
    """Runs the teacher once over a dataset and keeps both in memory for `Distiller.fit`.

    Inputs become `WithTeacherLogits(inputs, teacher_logits, hidden_states)`, with logits in float32
    by output, and hidden states in float16, 2 bytes for each layer, token and unit of the width:
    2 GB for 10,000 texts of 128 tokens and one layer of BERT-base. Labels and weights stay as
    they are. Batches and their order are those of one pass over
    `dataset`, so shuffle afterwards: `cached.unbatch().shuffle(1000).batch(32)`. Random
    augmentation is frozen.

    Args:
      dataset: finite dataset of batches of dense tensors: `x`, `(x, y)` or `(x, y, sample_weight)`.
      teacher: built model of Keras 3 or tf_keras, run in inference mode.
      hidden_states: layers of the teacher whose outputs are kept too, as in `Distiller`.

    Returns:
      A dataset of the same batches, with known cardinality.

    Raises:
      TypeError: `dataset` is not a dataset of dense tensors, or `teacher` not a Keras model.
      ValueError: the dataset is empty or infinite, or the teacher is pruned, not built, or ends in
        a softmax or sigmoid; `hidden_states` matches no layer, or what a layer gives is not
        finite in float16.
    """
    module = module_for(teacher, "teacher_cache")
    return module.cache_teacher_logits(dataset, teacher, hidden_states)
