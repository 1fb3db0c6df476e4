"""Settings that were found to work, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_movprune._keras import keras
from tf_movprune.arguments import check_integer
from tf_movprune.methods import HardMovement, MagnitudeScores
from tf_movprune.optimizers import MovementAdamW, create_optimizer
from tf_movprune.schedules import CubicSparsity


@dataclasses.dataclass(frozen=True)
class ShortRun:
    """Movement pruning in hundreds or a few thousand steps, where the published recipe fails.

    The paper trains for 55,000 steps and more, the first thousands of them dense. From zero the
    scores of a short run are still noise when the first weights have to go, and what goes first is
    large. So scores start in the order of the weights' magnitudes, small enough for movement to
    overrule it within some tens of steps. And they learn by plain gradient descent, which keeps how
    *much* a weight matters where Adam keeps little but the sign, and needs no optimizer slots.

        recipe = tf_movprune.ShortRun(num_train_steps=1500, final_sparsity=0.9)
        model = tf_movprune.prune_low_movement(model, recipe.schedule, recipe.method)
        model.compile(optimizer=recipe.create_optimizer(8e-5), ...)

    `docs/short_runs.md` has the measurements. They are of a 6-layer BERT, batches of 32 and a
    gradient clip of 1.

    Args:
      num_train_steps: optimizer steps of the whole run, at least 10.
      final_sparsity: fraction of zeros at the end, in [0, 1).

    Raises:
      TypeError: `num_train_steps` is not an integer.
      ValueError: an argument is out of its range.
    """

    num_train_steps: int
    final_sparsity: float = 0.9

    def __post_init__(self) -> None:
        check_integer("num_train_steps", self.num_train_steps, example=1500)
        if self.num_train_steps < 10:
            raise ValueError(
                f"num_train_steps must be at least 10, got {self.num_train_steps}: there has to "
                "be time to prune."
            )
        _ = self.schedule  # raises here what is wrong with final_sparsity

    @property
    def schedule(self) -> CubicSparsity:
        """Sparsity rises from a tenth to seven tenths of the run."""
        return CubicSparsity(
            self.final_sparsity,
            begin_step=self.num_train_steps // 10,
            end_step=self.num_train_steps * 7 // 10,
        )

    @property
    def method(self) -> HardMovement:
        """Hard movement from scores of 1e-3 times the relative magnitude of the weights."""
        return HardMovement(MagnitudeScores(scale=1e-3))

    def create_optimizer(self, learning_rate: float, **kwargs: Any) -> MovementAdamW:
        """AdamW for the weights and SGD at rate 1 for the scores; warm-up over a tenth of the run.

        Args:
          learning_rate: peak rate of the weights.
          **kwargs: of `create_optimizer`.
        """
        return create_optimizer(
            learning_rate,
            self.num_train_steps,
            self.num_train_steps // 10,
            score_optimizer=keras.optimizers.SGD(1.0),
            **kwargs,
        )
