"""Examples and features of a task's splits, and the metrics of a model's outputs on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.tasks.answers import Logits, answer_texts
from tf_movprune.tasks.examples import Questions
from tf_movprune.tasks.feature_types import Features, Windows
from tf_movprune.tasks.features import text_features
from tf_movprune.tasks.metrics import predictions_of, task_metrics
from tf_movprune.tasks.task import Data, Task
from tf_movprune.tasks.tokenizer import Tokenizer
from tf_movprune.tasks.windows import question_windows


@dataclasses.dataclass(frozen=True)
class ScoredData:
    """The data of a task for a model.

    Attributes:
      task: the task.
      label_names: name of each class; empty if the task has none.
      tokenizer: the model's own.
      max_length: most tokens of a row.
      data: examples by split.
      features: their features.
    """

    task: Task
    label_names: tuple[str, ...]
    tokenizer: Tokenizer
    max_length: int
    data: dict[str, Data]
    features: dict[str, Features]

    @staticmethod
    def outputs_of(task: Task, label_names: Sequence[str]) -> int:
        """The number of outputs of a model's head for a task."""
        return {"questions": 2, "regression": 1}.get(task.kind, len(label_names))

    @property
    def outputs(self) -> int:
        """The number of outputs of the model's head."""
        return self.outputs_of(self.task, self.label_names)

    @property
    def evaluation_splits(self) -> list[str]:
        """The splits that metrics are of."""
        return [split for split in self.data if split != "train"]

    def predictions(self, split: str, outputs: Logits) -> Any:
        """Labels or scores [examples], or answers by the ids of the questions.

        Args:
          split: name of the split.
          outputs: logits of each row by the name of the output.
        """
        data, features = self.data[split], self.features[split]
        if not isinstance(data, Questions):
            return predictions_of(self.task.kind, np.stack(outputs["logits"]))
        if not isinstance(features, Windows):
            raise TypeError(f"Questions have windows as their features, got {features!r}.")
        return answer_texts(data, features, outputs)

    def scores(self, split: str, predictions: Any) -> dict[str, float]:
        """The task's metrics of predictions on a split.

        Splits that the task does not have, such as "held_out", are told by the names of metrics.
        """
        if split in self.task.splits:
            return task_metrics(self.task, self.data, {split: predictions})
        known = self.task.validation_splits[0]
        found = task_metrics(self.task, {known: self.data[split]}, {known: predictions})
        suffix = known.removeprefix("validation")
        return {f"{split}_{name.removesuffix(suffix)}": value for name, value in found.items()}

    def as_record(self) -> dict[str, Any]:
        """Counts and sources of the data, for the record of a run."""
        return {
            split: {
                "examples": len(data),
                "features": len(self.features[split]),
                "source": data.source,
                "fingerprint": _fingerprint(data, self.features[split]),
            }
            for split, data in self.data.items()
        }


def _fingerprint(data: Data, features: Features) -> str:
    """A hash of the ids and targets of features, and of what they are compared with."""
    found = hashlib.sha256(features.ids.values.tobytes() + features.ids.splits.tobytes())
    known = data.answers if isinstance(data, Questions) else data.label_names
    found.update(repr(known).encode())
    for name in sorted(features.targets):
        found.update(features.targets[name].tobytes())
    return found.hexdigest()


def features_of(
    data: Mapping[str, Data],
    tokenizer: Tokenizer,
    max_length: int,
    stride: int,
    cache_dir: str | None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Features]:
    """Features by split.

    Args:
      data: examples by split.
      tokenizer: the model's own.
      max_length: most tokens of a row.
      stride: tokens from the start of a window to that of the next.
      cache_dir: folder to keep them in.
      say: is called with the counts of each split.
    """
    found: dict[str, Features] = {}
    for split, examples in data.items():
        if isinstance(examples, Questions):
            found[split] = question_windows(
                examples, tokenizer, max_length, stride, cache_dir=cache_dir
            )
        else:
            found[split] = text_features(examples, tokenizer, max_length, cache_dir)
        say(f"{split}: {found[split].description}")
    return found
