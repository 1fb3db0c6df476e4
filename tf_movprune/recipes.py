"""Settings that were found to work, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_movprune.core.arguments import check_integer
from tf_movprune.core.granularity import WEIGHTS
from tf_movprune.core.methods import HardMovement
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.schedules import CubicSparsity
from tf_movprune.core.scores import MOVEMENT_PER_MAGNITUDE, MagnitudeScores, ScoreScale
from tf_movprune.core.settings import check_method
from tf_movprune.distillation import Distiller
from tf_movprune.pruning import create_optimizer, prune_low_movement
from tf_movprune.shells import module_for, module_without_model


@dataclasses.dataclass(frozen=True)
class ShortRun:
    """Movement pruning in hundreds or a few thousand steps, too few for the published recipe.

    The paper trains for 55,000 steps and more, the first thousands of them dense. If the scores of
    a short run start at zero, they are still noise when the first weights have to go, and large
    weights go first. The recipe therefore starts scores in the order of the weights' magnitudes,
    which movement overrules within some tens of steps. Scores learn by plain gradient descent,
    which keeps how *much* a weight matters while Adam keeps little but the sign, and which needs no
    optimizer slots.

        recipe = tf_movprune.ShortRun(num_train_steps=1500, final_sparsity=0.9)
        model = recipe.prune(model)
        model.compile(optimizer=recipe.create_optimizer(8e-5, model=model), ...)

    A fine-tuned dense model teaches it, if there is one; that is where most accuracy comes from:

        student = recipe.distiller(model, teacher)
        student.compile(optimizer=recipe.create_optimizer(3.2e-4, model=model), ...)

    `docs/short_runs.md` has measurements for BERTs with 2 to 12 layers, batches of 32 and 128 and a
    gradient clip of 1.

    Args:
      num_train_steps: optimizer steps of the whole run, at least 10.
      final_sparsity: fraction of zeros at the end, in [0, 1).
      method: a method that a sparsity schedule drives: `HardMovement()`,
        `HardMovement(scope="global")`, `SoftMovement(100.0, target=True)`, or `Magnitude()` to
        compare with. If its `score_initializer` is "zeros", the default, scores start from
        `MagnitudeScores` instead.

    Raises:
      TypeError: `num_train_steps` is not an integer, or `method` is not a `PruningMethod`.
      ValueError: an argument is out of its range, or the method takes another schedule.
    """

    num_train_steps: int
    final_sparsity: float = 0.9
    method: PruningMethod = HardMovement()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        check_integer("num_train_steps", self.num_train_steps, example=1500, minimum=10)
        _ = self.schedule  # raises here if final_sparsity is wrong
        check_method(self.method)
        if self.method.schedule_value != "sparsity":
            raise ValueError(
                f"A short run reaches a given sparsity, but {self.method} takes no sparsity "
                "schedule. Use HardMovement, or SoftMovement with target=True."
            )
        config = self.method.get_config()
        if config.get("score_initializer") == "zeros":
            config["score_initializer"] = MagnitudeScores(self._score_start)
            object.__setattr__(self, "method", type(self.method).from_config(config))

    @property
    def _score_start(self) -> float:
        """First score of an average weight: 1 before a sigmoid; elsewhere only order counts."""
        return 1.0 if self.method.has_penalty else MOVEMENT_PER_MAGNITUDE

    @property
    def schedule(self) -> CubicSparsity:
        """Schedule whose sparsity rises from a tenth to seven tenths of the run."""
        return CubicSparsity(
            self.final_sparsity,
            begin_step=self.num_train_steps // 10,
            end_step=self.num_train_steps * 7 // 10,
        )

    def prune(self, model: Any, *, block_size: Any = WEIGHTS, pruning_policy: Any = None) -> Any:
        """Prepares a model for pruning by this recipe: `prune_low_movement` with its settings.

        Args:
          model: the model to prune; `prune_low_movement` says what is changed in place.
          block_size: granularity of the masks; see `prune_low_movement`.
          pruning_policy: choice of layers; see `prune_low_movement`.

        Returns:
          The pruned model.
        """
        return prune_low_movement(
            model,
            self.schedule,
            self.method,
            block_size=block_size,
            pruning_policy=pruning_policy,
        )

    def distiller(self, student: Any, teacher: Any, *, hidden_states: Any = True) -> Any:
        """Makes the `Distiller` of this recipe, of logits and hidden states.

        The teacher's outputs weigh nine times as much as the labels. With hidden states a student
        does best at four times the learning rate that its teacher was fine-tuned with.

        Args:
          student: the pruned model.
          teacher: a model that was fine-tuned on the task; see `Distiller`.
          hidden_states: layers to compare; see `Distiller`. True needs a model whose blocks are
            known, of KerasHub or Hugging Face; None compares logits alone.

        Returns:
          A `Distiller`, to be compiled and trained in the student's place.
        """
        hidden = {} if hidden_states is None else {"hidden_states": hidden_states}
        return Distiller(student, teacher, alpha_distil=0.9, alpha_ce=0.1, **hidden)

    def create_optimizer(
        self,
        learning_rate: float,
        weight_decay: float = 0.0,
        clipnorm: float | None = 1.0,
        *,
        model: Any = None,
        gradient_accumulation_steps: int = 1,
    ) -> Any:
        """Creates AdamW for the weights, SGD for the scores, and warm-up over a tenth of the run.

        It expects the method's own `score_learning_rate_multiplier`, which `prune` uses.

        Args:
          learning_rate: peak rate of the weights.
          weight_decay: decoupled weight decay; see `create_optimizer`.
          clipnorm: global norm of all gradients together; see `create_optimizer`.
          model: the model to train, whose Keras decides; see `create_optimizer`.
          gradient_accumulation_steps: batches to a step; see `create_optimizer`.
        """
        return create_optimizer(
            learning_rate,
            self.num_train_steps,
            self.num_train_steps // 10,
            weight_decay,
            clipnorm,
            score_optimizer=self.score_optimizer(model),
            gradient_accumulation_steps=gradient_accumulation_steps,
        )

    def score_optimizer(self, model: Any = None) -> Any:
        """Creates plain gradient descent at the rate that fits where the scores start.

        Args:
          model: the model to train, whose Keras decides; see `create_optimizer`.

        Returns:
          A Keras optimizer, for the `score_optimizer` of `tf_movprune.create_optimizer`.
        """
        scale = ScoreScale(self.method.score_learning_rate_multiplier)
        name = "optimizers"
        module = module_without_model(name) if model is None else module_for(model, name)
        rate = self._score_start / MOVEMENT_PER_MAGNITUDE
        return module.plain_gradient_descent(scale.rate_for(rate))
