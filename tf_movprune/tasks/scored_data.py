"""Examples and features of a task's splits, and the metrics of a model's outputs on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.tasks.examples import Questions
from tf_movprune.tasks.feature_types import Features
from tf_movprune.tasks.features import text_features
from tf_movprune.tasks.metrics import score
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

    def scores(self, split: str, outputs: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
        """The task's metrics of a model's outputs on a split."""
        return score(self.task, self.data[split], self.features[split], outputs)

    def named(self, split: str, scores: Mapping[str, float]) -> dict[str, float]:
        """Metrics under names that tell the split, unless it is "validation"."""
        if split == "validation":
            return dict(scores)
        return {f"{split}_{name}": value for name, value in scores.items()}

    def as_record(self) -> dict[str, Any]:
        """Counts and sources of the data, for the record of a run."""
        return {
            split: {
                "examples": len(data),
                "features": len(self.features[split]),
                "source": data.source,
            }
            for split, data in self.data.items()
        }


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
