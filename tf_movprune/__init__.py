"""Movement pruning for TensorFlow: prune pretrained models while they are fine-tuned."""

from tf_movprune.core.methods import (
    L0,
    HardMovement,
    Magnitude,
    MagnitudeScores,
    PruningMethod,
    SoftMovement,
)
from tf_movprune.core.refresh import update_masks
from tf_movprune.core.schedules import CubicSparsity, CubicThreshold
from tf_movprune.export.compressed import CompressedReport, export_compressed, load_compressed
from tf_movprune.export.saved_model import ExportReport, export_saved_model
from tf_movprune.export.sizes import SizeReport, size_report
from tf_movprune.export.tflite import export_tflite
from tf_movprune.keras2.caching import cache_teacher_logits
from tf_movprune.keras2.callbacks import PruningSummaries, UpdatePruningStep
from tf_movprune.keras2.compact import compact, load_compacted
from tf_movprune.keras2.distiller import Distiller
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.once_sparse import OnceSparse
from tf_movprune.keras2.optimizers import create_optimizer
from tf_movprune.keras2.prune import prune_low_movement, prune_scope, strip_pruning
from tf_movprune.keras2.shared_masks import HEADS, NEURONS
from tf_movprune.keras2.tree import pruned_layers
from tf_movprune.recipes import ShortRun
from tf_movprune.report import summarize_sparsity

__version__ = "0.1.0.dev0"

BLOCKS_FLOAT32 = (4, 1)
"""A block size that LiteRT runs natively in float32, on Keras kernels [in, out]."""

BLOCKS_INT8 = (16, 1)
"""A block size that LiteRT runs natively in int8, on Keras kernels [in, out]."""

__all__ = [
    "BLOCKS_FLOAT32",
    "BLOCKS_INT8",
    "HEADS",
    "L0",
    "NEURONS",
    "CompressedReport",
    "CubicSparsity",
    "CubicThreshold",
    "Distiller",
    "ExportReport",
    "HardMovement",
    "Magnitude",
    "MagnitudeScores",
    "OnceSparse",
    "PruneLowMovement",
    "PruningMethod",
    "PruningSummaries",
    "ShortRun",
    "SizeReport",
    "SoftMovement",
    "UpdatePruningStep",
    "cache_teacher_logits",
    "compact",
    "create_optimizer",
    "export_compressed",
    "export_saved_model",
    "export_tflite",
    "load_compacted",
    "load_compressed",
    "prune_low_movement",
    "prune_scope",
    "pruned_layers",
    "size_report",
    "strip_pruning",
    "summarize_sparsity",
    "update_masks",
]
