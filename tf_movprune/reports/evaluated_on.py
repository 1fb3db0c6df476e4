"""Examples that the metrics of a run are of, for whoever publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

HELD_OUT = "held_out"


class EvaluatedOn(NamedTuple):
    """The examples that a metric is of.

    Attributes:
      metric: the metric, without the name of the examples in it.
      split: the split of the data set that they are from.
      is_whole: True if they are all of that split, as far as is known.
      text: their number and kind; "validation data" if the number is not known.
    """

    metric: str
    split: str
    is_whole: bool
    text: str


def evaluated_on(info: Mapping[str, Any], metric: str) -> EvaluatedOn:
    """The examples that a metric of a run is of.

    Args:
      info: contents of `run.json`.
      metric: its name there, such as "accuracy", "accuracy_matched" or "held_out_accuracy".
    """
    data = info.get("data") or {}
    is_held_out = metric.startswith(f"{HELD_OUT}_")
    split = HELD_OUT if is_held_out else _validation_split(data, metric)
    found = data.get(split) or {}
    count = found.get("examples")
    is_cut = is_part(found, (info.get("settings") or {}).get("max_validation_examples"))
    number = "" if count is None else f"{count:,} "
    if is_held_out:
        text = f"{number}training examples held out"
        return EvaluatedOn(metric.removeprefix(f"{HELD_OUT}_"), "train", False, text)
    text = f"{number}validation examples" if number else "validation data"
    return EvaluatedOn(metric, split, not is_cut, f"the first {text}" if is_cut else text)


def is_part(found: Mapping[str, Any], most: int | None) -> bool:
    """Returns True if a run took a part of the examples that were there.

    Args:
      found: the entry of a split in `data`. Older versions did not record how many there were;
        then as many as there may be at most are taken for a part.
      most: as many examples as the run may have taken; None if it took all.
    """
    count = found.get("examples")
    if count is None or most is None:
        return False
    return count < found["available"] if "available" in found else count == most


def _validation_split(data: Mapping[str, Any], metric: str) -> str:
    """The split whose name ends as that of the metric does, as in MNLI."""
    for split in data:
        if split not in ("train", HELD_OUT) and metric.endswith(split.removeprefix("validation")):
            return split
    return "validation"
