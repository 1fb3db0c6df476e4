"""Movement pruning for TensorFlow: prune pretrained models while they are fine-tuned."""

from tf_movprune.callbacks import PruningSummaries, UpdatePruningStep
from tf_movprune.methods import HardMovement, Magnitude, MagnitudeScores
from tf_movprune.optimizers import create_optimizer
from tf_movprune.prune import prune_low_movement, prune_scope, strip_pruning
from tf_movprune.refresh import update_masks
from tf_movprune.report import summarize_sparsity
from tf_movprune.schedules import CubicSparsity
from tf_movprune.wrapper import PruneLowMovement

__version__ = "0.1.0.dev0"

__all__ = [
    "CubicSparsity",
    "HardMovement",
    "Magnitude",
    "MagnitudeScores",
    "PruneLowMovement",
    "PruningSummaries",
    "UpdatePruningStep",
    "create_optimizer",
    "prune_low_movement",
    "prune_scope",
    "strip_pruning",
    "summarize_sparsity",
    "update_masks",
]
