"""The callback that records a training for reports."""

from __future__ import annotations

import os

from tf_movprune.callbacks import OfEitherKeras
from tf_movprune.core.arguments import check_update_freq
from tf_movprune.reports.run_folder import RunFolder


class RunRecorder(OfEitherKeras):
    """Records a training in a folder, for `tf_movprune.report`.

    It is a callback of `fit` of either Keras, for pruned and for dense models. Put it after
    `UpdatePruningStep` in the list of callbacks, and after any that add metrics to the logs.

    While the model trains, a line is added to `history.jsonl` every few steps and at the end of
    each epoch, with what is known of `step`, `loss` (the mean since the last such line, or over the
    epoch), `learning_rate`, `sparsity`, `churn` (the fraction of mask entries that changed since
    the last line) and, at the end of epochs, `metrics`. When training ends, `pruning.json` is
    written: what remains of each matrix, head and neuron, samples of weights and scores, and how
    far masks agree with magnitude pruning.

    If training goes on from a step, lines after that step are cut off first: those of a run that
    was killed, or all if the optimizer is new.

    Args:
      folder: folder of the run, which is made if there is none.
      update_freq: `"epoch"`, or a number of training steps of at least 1. Each time, all masks are
        compared with those before: 0.1 s on a BERT-base.

    Raises:
      OSError: the folder cannot be made; in training, a file in it cannot be written.
      TypeError: `update_freq` is neither a string nor an integer.
      ValueError: `update_freq` is another string, or less than 1.
    """

    _place = "run_recorder", "RunRecorder"

    def __init__(self, folder: str | os.PathLike[str], update_freq: str | int = 50):
        frequency = check_update_freq(update_freq)
        self.folder = os.fspath(folder)
        self.update_freq = update_freq
        super().__init__(RunFolder(folder), frequency)
