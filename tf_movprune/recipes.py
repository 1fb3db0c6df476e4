"""Settings that were found to work, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.methods import HardMovement, MagnitudeScores, PruningMethod
from tf_movprune.core.schedules import CubicSparsity
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.optimizers import MovementAdamW, create_optimizer

_START = 1e-3  # movement that is worth as much as the magnitude of an average weight


@dataclasses.dataclass(frozen=True)
class ShortRun:
    """Movement pruning in hundreds or a few thousand steps, where the published recipe fails.

    The paper trains for 55,000 steps and more, the first thousands of them dense. From zero the
    scores of a short run are still noise when the first weights have to go, and what goes first is
    large. So scores start in the order of the weights' magnitudes, and movement overrules it within
    some tens of steps. And they learn by plain gradient descent, which keeps how *much* a weight
    matters where Adam keeps little but the sign, and needs no optimizer slots.

        recipe = tf_movprune.ShortRun(num_train_steps=1500, final_sparsity=0.9)
        model = tf_movprune.prune_low_movement(model, recipe.schedule, recipe.method)
        model.compile(optimizer=recipe.create_optimizer(8e-5), ...)

    `docs/short_runs.md` has the measurements, of BERTs with 2 to 12 layers, batches of 32 and 128
    and a gradient clip of 1.

    Args:
      num_train_steps: optimizer steps of the whole run, at least 10.
      final_sparsity: fraction of zeros at the end, in [0, 1).
      method: one that a sparsity schedule drives: `HardMovement()`,
        `HardMovement(scope="global")`, `SoftMovement(100.0, target=True)`, or `Magnitude()` to
        compare with. Where its `score_initializer` is "zeros", the default, scores start from
        `MagnitudeScores` instead.

    Raises:
      TypeError: `num_train_steps` is not an integer, or `method` not a method.
      ValueError: an argument is out of its range, or the method takes another schedule.
    """

    num_train_steps: int
    final_sparsity: float = 0.9
    method: PruningMethod = HardMovement()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        check_integer("num_train_steps", self.num_train_steps, example=1500)
        if self.num_train_steps < 10:
            raise ValueError(
                f"num_train_steps must be at least 10, got {self.num_train_steps}: there has to "
                "be time to prune."
            )
        _ = self.schedule  # raises here what is wrong with final_sparsity
        if not isinstance(self.method, PruningMethod):
            raise TypeError(
                f"method must be an object such as tf_movprune.HardMovement(), got {self.method!r}."
            )
        if self.method.schedule_value != "sparsity":
            raise ValueError(
                f"A short run reaches a given sparsity, but {self.method} takes no sparsity "
                "schedule. Use HardMovement, or SoftMovement with target=True."
            )
        config = self.method.get_config()
        if config.get("score_initializer") == "zeros":
            config["score_initializer"] = MagnitudeScores(_START * self._unit)
            object.__setattr__(self, "method", type(self.method).from_config(config))

    @property
    def _unit(self) -> float:
        """Of the scores: near 1 for a sigmoid; elsewhere only their order counts."""
        return 1 / _START if self.method.has_penalty else 1.0

    @property
    def schedule(self) -> CubicSparsity:
        """Sparsity rises from a tenth to seven tenths of the run."""
        return CubicSparsity(
            self.final_sparsity,
            begin_step=self.num_train_steps // 10,
            end_step=self.num_train_steps * 7 // 10,
        )

    def create_optimizer(self, learning_rate: float, **kwargs: Any) -> MovementAdamW:
        """AdamW for the weights, SGD for the scores; warm-up over a tenth of the run.

        It is for the method's own `score_learning_rate_multiplier`, which is the default.

        Args:
          learning_rate: peak rate of the weights.
          **kwargs: of `create_optimizer`.
        """
        rate = self._unit / self.method.score_learning_rate_multiplier
        return create_optimizer(
            learning_rate,
            self.num_train_steps,
            self.num_train_steps // 10,
            score_optimizer=keras.optimizers.SGD(rate),
            **kwargs,
        )
