"""The public names, which are loaded when they are first used."""

from .callbacks import (
    OnceSparse as OnceSparse,
)
from .callbacks import (
    PruningSummaries as PruningSummaries,
)
from .callbacks import (
    UpdatePruningStep as UpdatePruningStep,
)
from .compaction import (
    compact as compact,
)
from .compaction import (
    compact_in_training as compact_in_training,
)
from .compaction import (
    load_compacted as load_compacted,
)
from .core.distillation_loss import distillation_loss as distillation_loss
from .core.granularity import (
    BLOCKS_FLOAT32 as BLOCKS_FLOAT32,
)
from .core.granularity import (
    BLOCKS_INT8 as BLOCKS_INT8,
)
from .core.granularity import (
    HEADS as HEADS,
)
from .core.granularity import (
    NEURONS as NEURONS,
)
from .core.granularity import (
    Blocks as Blocks,
)
from .core.hidden_state_loss import hidden_state_loss as hidden_state_loss
from .core.methods import (
    L0 as L0,
)
from .core.methods import (
    HardMovement as HardMovement,
)
from .core.methods import (
    KeepZeros as KeepZeros,
)
from .core.methods import (
    Magnitude as Magnitude,
)
from .core.methods import (
    SoftMovement as SoftMovement,
)
from .core.pruning_method import PruningMethod as PruningMethod
from .core.schedules import (
    CubicSparsity as CubicSparsity,
)
from .core.schedules import (
    CubicThreshold as CubicThreshold,
)
from .core.scores import MagnitudeScores as MagnitudeScores
from .distillation import (
    Distiller as Distiller,
)
from .distillation import (
    cache_teacher_logits as cache_teacher_logits,
)
from .export.compressed import (
    CompressedReport as CompressedReport,
)
from .export.compressed import (
    export_compressed as export_compressed,
)
from .export.compressed import (
    load_compressed as load_compressed,
)
from .export.export_report import ExportReport as ExportReport
from .export.onnx import export_onnx as export_onnx
from .export.saved_model import export_saved_model as export_saved_model
from .export.sizes import (
    SizeReport as SizeReport,
)
from .export.sizes import (
    size_report as size_report,
)
from .export.tflite import export_tflite as export_tflite
from .keras2.layer import PruneLowMovement as PruneLowMovement
from .keras2.policies import PruneTransformerBlocks as PruneTransformerBlocks
from .pruning import (
    create_optimizer as create_optimizer,
)
from .pruning import (
    prune_low_movement as prune_low_movement,
)
from .pruning import (
    prune_scope as prune_scope,
)
from .pruning import (
    pruned_layers as pruned_layers,
)
from .pruning import (
    strip_pruning as strip_pruning,
)
from .pruning import (
    update_masks as update_masks,
)
from .pytorch.load import load_pytorch as load_pytorch
from .pytorch.save import save_pytorch as save_pytorch
from .recipes import ShortRun as ShortRun
from .reports.page import report as report
from .reports.recorder import RunRecorder as RunRecorder
from .runs.predictor import (
    Predictor as Predictor,
)
from .runs.predictor import (
    load_predictor as load_predictor,
)
from .runs.settings import TrainSettings as TrainSettings
from .runs.training import train as train
from .sparsity import (
    SparsityReport as SparsityReport,
)
from .sparsity import (
    summarize_sparsity as summarize_sparsity,
)

__version__: str
