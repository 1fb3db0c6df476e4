"""AdamW as the reference trains with it: one schedule and one clip over weights and scores."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_movprune.core.arguments import check_integer, check_number
from tf_movprune.core.learning_rate import check_warmup, decays, linear_warmup_decay
from tf_movprune.core.score_optimizers import check_no_average, check_settings
from tf_movprune.core.scores import is_scores
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import OpenAdamW, PlainSGD, keras, register


@register
class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly to its peak and falls linearly to 0.

        peak * step / num_warmup_steps                                     step < num_warmup_steps
        peak * (num_train_steps - step) / (num_train_steps - num_warmup_steps)     from there on
        0                                                                  step >= num_train_steps

    Args:
      peak_learning_rate: rate at the end of warm-up, greater than 0.
      num_train_steps: steps of the whole training, greater than `num_warmup_steps`.
      num_warmup_steps: steps of warm-up, at least 0.
    """

    def __init__(self, peak_learning_rate: float, num_train_steps: int, num_warmup_steps: int):
        self.peak_learning_rate, self.num_train_steps, self.num_warmup_steps = check_warmup(
            peak_learning_rate, num_train_steps, num_warmup_steps
        )

    def __call__(self, step):
        return linear_warmup_decay(
            step, self.peak_learning_rate, self.num_train_steps, self.num_warmup_steps
        )

    def get_config(self):
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "num_train_steps": self.num_train_steps,
            "num_warmup_steps": self.num_warmup_steps,
        }


@register
class MovementAdamW(OpenAdamW):
    """AdamW that leaves scores, biases, normalisations and other vectors undecayed.

    Args:
      score_optimizer: Keras optimizer for the scores, which then have no slots here. It takes no
        part in clipping: `global_clipnorm` spans all gradients.
      gradient_accumulation_steps: batches whose mean gradient a step is taken with. `iterations`
        counts steps.
      **kwargs: arguments of `AdamW`.

    Raises:
      ValueError: `use_ema` is true and there is a `score_optimizer`.
    """

    def __init__(
        self,
        *args,
        score_optimizer=None,
        gradient_accumulation_steps=1,
        name="MovementAdamW",
        **kwargs,
    ):
        super().__init__(*args, name=name, **kwargs)
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._sums: list[tf.Variable] = []
        if score_optimizer is not None:
            check_no_average(self.use_ema)
        self.score_optimizer = score_optimizer

    def build(self, var_list):
        if self.gradient_accumulation_steps > 1 and not self._sums:
            self._batches = self.add_variable([], tf.int64, name="batches")
            self._sums = [self.add_variable_from_reference(v, "gradient_sum") for v in var_list]
        if self.score_optimizer is not None:
            self.score_optimizer.build([v for v in var_list if is_scores(v)])
            var_list = [v for v in var_list if not is_scores(v)]
        super().build(var_list)

    @property
    def variables(self):
        mine = list(super().variables)
        if self.score_optimizer is not None:
            counter = self.score_optimizer.iterations  # follows ours
            mine += [v for v in self.score_optimizer.variables if v is not counter]
        return type(super().variables)(mine)

    def set_weights(self, weights):
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def apply_gradients(self, grads_and_vars, **kwargs):
        if self.gradient_accumulation_steps == 1:
            return super().apply_gradients(grads_and_vars, **kwargs)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                "gradient_accumulation_steps must be 1 under a strategy of several replicas in "
                f"tf_keras, got {self.gradient_accumulation_steps}. Use larger batches."
            )
        gradients, variables = zip(*grads_and_vars)
        with tf.init_scope():
            self.build(variables)
        for total, gradient in zip(self._sums, gradients):
            if gradient is not None:
                total.assign_add(tf.cast(tf.convert_to_tensor(gradient), total.dtype))
        self._batches.assign_add(1)

        def take_step():
            means = [total / self.gradient_accumulation_steps for total in self._sums]
            present = [(m, v) for m, g, v in zip(means, gradients, variables) if g is not None]
            super(MovementAdamW, self).apply_gradients(present, **kwargs)
            for total in self._sums:
                total.assign(tf.zeros_like(total))
            return self.iterations.read_value()

        is_last = self._batches % self.gradient_accumulation_steps == 0
        return tf.cond(is_last, take_step, self.iterations.read_value)

    def decays(self, variable):
        return self.weight_decay > 0 and decays(variable.name, len(variable.shape))

    def apply_clipped(self, grads_and_vars, apply):
        if self.score_optimizer is not None:
            of_scores = [(grad, v) for grad, v in grads_and_vars if is_scores(v)]
            grads_and_vars = [(grad, v) for grad, v in grads_and_vars if not is_scores(v)]
            # It must not count by itself: a LossScaleOptimizer skips steps, but counts them here.
            compat.apply_unclipped(self.score_optimizer, of_scores, self.iterations)
        return apply(grads_and_vars)

    def get_config(self):
        config = super().get_config()
        config["gradient_accumulation_steps"] = self.gradient_accumulation_steps
        if self.score_optimizer is not None:
            config["score_optimizer"] = keras.optimizers.serialize(self.score_optimizer)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        known = {c.__name__: c for c in (LinearWarmupDecay, PlainSGD)} | (custom_objects or {})
        # The scope is for H5 files, whose loader does not resolve registered names.
        with keras.saving.custom_object_scope(known):
            if config.get("score_optimizer") is not None:
                config["score_optimizer"] = keras.optimizers.deserialize(
                    config["score_optimizer"], custom_objects=known
                )
            return super().from_config(config, known)


def create_optimizer(
    learning_rate: float,
    num_train_steps: int,
    num_warmup_steps: int,
    weight_decay: float = 0.0,
    clipnorm: float | None = 1.0,
    score_optimizer: keras.optimizers.Optimizer | None = None,
    gradient_accumulation_steps: int = 1,
) -> MovementAdamW:
    """Creates the paper's optimizer for a tf_keras model; see `tf_movprune.create_optimizer`."""
    check_number("weight_decay", weight_decay, example=0.01, minimum=0)
    if clipnorm is not None:
        check_number("clipnorm", clipnorm, example=1.0, above=0)

    batches = check_integer(
        "gradient_accumulation_steps", gradient_accumulation_steps, example=4, minimum=1
    )

    def scheduled(peak: float) -> LinearWarmupDecay:
        return LinearWarmupDecay(peak, num_train_steps, num_warmup_steps)

    return MovementAdamW(
        learning_rate=scheduled(learning_rate),
        weight_decay=weight_decay,
        epsilon=1e-8,
        global_clipnorm=clipnorm,
        score_optimizer=None if score_optimizer is None else _with_rate(score_optimizer, scheduled),
        gradient_accumulation_steps=batches,
    )


def plain_gradient_descent(rate: float) -> keras.optimizers.Optimizer:
    """Gradient descent without momentum at a rate."""
    return keras.optimizers.SGD(rate)


def _with_rate(optimizer: keras.optimizers.Optimizer, scheduled: Any) -> keras.optimizers.Optimizer:
    """A fresh copy of an optimizer, whose learning rate is the peak of the schedule."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "score_optimizer must be a tf_keras optimizer such as tf_keras.optimizers.SGD(1.0), "
            f"got {optimizer!r}."
        )
    config = optimizer.get_config()
    config["learning_rate"] = scheduled(check_settings(config))
    is_plain = type(optimizer) is keras.optimizers.SGD and not config["momentum"]
    return (PlainSGD if is_plain else type(optimizer)).from_config(config)
