"""AdamW as the reference trains with it, for Keras 3: one schedule and one clip over all."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core.arguments import check_integer, check_number
from tf_movprune.core.learning_rate import check_warmup, decays, linear_warmup_decay
from tf_movprune.core.score_optimizers import check_no_average, check_settings
from tf_movprune.core.scores import is_scores
from tf_movprune.keras3 import compat


@keras.saving.register_keras_serializable("tf_movprune")
class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly to its peak and falls linearly to 0.

    Args:
      peak_learning_rate: rate at the end of warm-up, greater than 0.
      num_train_steps: steps of the whole training, greater than `num_warmup_steps`.
      num_warmup_steps: steps of warm-up, at least 0.
      batches_per_step: batches that are counted as one step, as gradients of so many are summed.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        num_train_steps: int,
        num_warmup_steps: int,
        batches_per_step: int = 1,
    ):
        self.peak_learning_rate, self.num_train_steps, self.num_warmup_steps = check_warmup(
            peak_learning_rate, num_train_steps, num_warmup_steps
        )
        self.batches_per_step = batches_per_step

    def __call__(self, step):
        return linear_warmup_decay(
            tf.convert_to_tensor(step) // self.batches_per_step,
            self.peak_learning_rate,
            self.num_train_steps,
            self.num_warmup_steps,
        )

    def get_config(self):
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "num_train_steps": self.num_train_steps,
            "num_warmup_steps": self.num_warmup_steps,
            "batches_per_step": self.batches_per_step,
        }


@keras.saving.register_keras_serializable("tf_movprune")
class MovementAdamW(keras.optimizers.AdamW):
    """AdamW that leaves scores, biases, normalisations and other vectors undecayed.

    Args:
      score_optimizer: Keras optimizer for the scores, which then have no slots here. It takes no
        part in clipping: `global_clipnorm` spans all gradients. It counts steps with this one.
      **kwargs: arguments of `AdamW`.

    Raises:
      ValueError: `use_ema` is true and there is a `score_optimizer`; or, when it is built, it sums
        the gradients of another number of batches than its learning rate counts as a step.
    """

    def __init__(self, *args, score_optimizer=None, name="MovementAdamW", **kwargs):
        super().__init__(*args, name=name, **kwargs)
        self.score_optimizer = score_optimizer
        if score_optimizer is not None:
            check_no_average(self.use_ema)
            compat.count_together(score_optimizer, self)
        self._remember_excluded([], [])

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        super().exclude_from_weight_decay(var_list, var_names)
        self._remember_excluded(list(var_list or []), list(var_names or []))

    def _remember_excluded(self, variables: list[Any], names: list[str]) -> None:
        # Not by assigning an attribute: Keras would take them for variables of the optimizer.
        self.__dict__["_excluded"] = variables, names

    def build(self, variables):
        if self.built:
            return
        batches = self.gradient_accumulation_steps or 1
        counted = getattr(compat.learning_rate_of(self), "batches_per_step", batches)
        if batches != counted:
            raise ValueError(
                f"The learning rate counts {counted} batches as a step, got "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}. Pass that number "
                "to create_optimizer."
            )
        theirs, names = self._excluded
        undecayed = [v for v in variables if not decays(v.name, len(v.shape))]
        super().exclude_from_weight_decay([*theirs, *undecayed], names)
        super().build(variables)
        if self.score_optimizer is not None:
            self.score_optimizer.build([v for v in variables if is_scores(v)])
            # It gets sums, and counts steps as this one does.
            self.score_optimizer.gradient_accumulation_steps = self.gradient_accumulation_steps

    def add_optimizer_variables(self, trainable_variables, name, initializer="zeros"):
        """Makes slots; scores with an optimizer of their own have None in their place."""
        if self.score_optimizer is None:
            return super().add_optimizer_variables(trainable_variables, name, initializer)
        mine = [v for v in trainable_variables if not is_scores(v)]
        made = super().add_optimizer_variables(mine, name, initializer)

        def spread(slots):
            slots = iter(slots)
            return [None if is_scores(v) else next(slots) for v in trainable_variables]

        return spread(made) if isinstance(name, str) else tuple(map(spread, made))

    @property
    def variables(self):
        mine = super().variables
        if self.score_optimizer is None:
            return mine
        return mine + compat.variables_without_counter(self.score_optimizer)

    def update_step(self, gradient, variable, learning_rate):
        if self.score_optimizer is not None and is_scores(variable):
            rate = self.score_optimizer.learning_rate
            self.score_optimizer.update_step(gradient, variable, rate)
        else:
            super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        config = super().get_config()
        if self.score_optimizer is not None:
            serialized = keras.optimizers.serialize(self.score_optimizer)
            serialized["config"]["gradient_accumulation_steps"] = None
            config["score_optimizer"] = serialized
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if config.get("score_optimizer") is not None:
            config["score_optimizer"] = keras.optimizers.deserialize(
                config["score_optimizer"], custom_objects=custom_objects
            )
        return super().from_config(config, custom_objects=custom_objects)


def create_optimizer(
    learning_rate: float,
    num_train_steps: int,
    num_warmup_steps: int,
    weight_decay: float = 0.0,
    clipnorm: float | None = 1.0,
    score_optimizer: keras.optimizers.Optimizer | None = None,
    gradient_accumulation_steps: int = 1,
) -> MovementAdamW:
    """Creates the paper's optimizer for a Keras 3 model; see `tf_movprune.create_optimizer`."""
    check_number("weight_decay", weight_decay, example=0.01, minimum=0)
    if clipnorm is not None:
        check_number("clipnorm", clipnorm, example=1.0, above=0)

    batches = check_integer(
        "gradient_accumulation_steps", gradient_accumulation_steps, example=4, minimum=1
    )

    def scheduled(peak: float) -> LinearWarmupDecay:
        return LinearWarmupDecay(peak, num_train_steps, num_warmup_steps, batches)

    return MovementAdamW(
        learning_rate=scheduled(learning_rate),
        weight_decay=weight_decay,
        epsilon=1e-8,
        global_clipnorm=clipnorm,
        score_optimizer=None if score_optimizer is None else _with_rate(score_optimizer, scheduled),
        gradient_accumulation_steps=batches if batches > 1 else None,
    )


def plain_gradient_descent(rate: float) -> keras.optimizers.Optimizer:
    """Gradient descent without momentum at a rate."""
    return keras.optimizers.SGD(rate)


def _with_rate(optimizer: Any, scheduled: Any) -> keras.optimizers.Optimizer:
    """A fresh copy of an optimizer, whose learning rate is the peak of the schedule."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "score_optimizer must be a Keras optimizer such as keras.optimizers.SGD(1.0), got "
            f"{optimizer!r}."
        )
    config = optimizer.get_config()
    config["learning_rate"] = scheduled(check_settings(config))
    return type(optimizer).from_config(config)
