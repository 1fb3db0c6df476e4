"""Runs of a task: fine-tuning, pruning, distillation and recovery, each of which can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tf_movprune.callbacks import UpdatePruningStep
from tf_movprune.compaction import compact
from tf_movprune.distillation import Distiller
from tf_movprune.export.sizes import size_report
from tf_movprune.pruning import strip_pruning
from tf_movprune.reports import RunRecorder
from tf_movprune.sparsity import summarize_sparsity
from tf_movprune.tasks.batches import training_dataset
from tf_movprune.tasks.checkpoints import Checkpoints
from tf_movprune.tasks.evaluation import Evaluation
from tf_movprune.tasks.preparation import Prepared, load_model, prepare
from tf_movprune.tasks.pruning_setup import optimizer_of, prune
from tf_movprune.tasks.run_folder import FORMAT, RunFolder, machine, now, versions
from tf_movprune.tasks.settings import FINE_TUNE, TrainSettings
