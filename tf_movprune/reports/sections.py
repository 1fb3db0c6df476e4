"""The parts of a report: pictures with the sentences that explain them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tf_movprune.reports import costs, curves, grids, scatter
from tf_movprune.reports.formats import metric_name, percent
from tf_movprune.reports.runs import Run

_MOST_GROUPS = 4
_MOVEMENT = ("HardMovement", "SoftMovement")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture, its title, and what to see in it; or why it is missing."""

    title: str
    svg: str | None
    text: str
    missing: str = ""
    key: Sequence[str] = ()
    """Labels of the lines, in their order."""


@dataclasses.dataclass(frozen=True)
class Section:
    """Pictures under one heading."""

    title: str
    pictures: Sequence[Picture]

    @property
    def drawn(self) -> list[Picture]:
        return [picture for picture in self.pictures if picture.svg]

    @property
    def missing(self) -> list[Picture]:
        return [picture for picture in self.pictures if not picture.svg]


def comparison(runs: Sequence[Run], labels: Sequence[str]) -> Section:
    """Pictures of several runs together."""
    metric = metric_name(next((run.main_metric for run in runs if run.main_metric), "the metric"))
    pictures = [
        Picture(
            "Over training",
            curves.progress(runs),
            "All runs over their steps. Sparsity is the share of prunable weights that are zero.",
            "no run has a history of its training.",
            labels,
        )
    ]
    for kind, title, what in (
        ("sizes", "Accuracy against size", "size"),
        ("latency", "Accuracy against speed", "latency"),
    ):
        svg = costs.trade(runs, labels, kind)
        title = title.replace("Accuracy", metric[:1].upper() + metric[1:])
        text = (
            f"Up and to the left is better: a higher {metric} from a smaller model."
            if kind == "sizes"
            else f"Up and to the left is better: a higher {metric} in less time for one input."
        )
        missing = f"fewer than two runs have a result and their {what} in the same format."
        pictures.append(Picture(title, svg, text, missing))
    return Section("The runs side by side", pictures)


def details(run: Run) -> list[Section]:
    """The pictures of one run, under several headings."""
    return [
        Section("Training", [_progress(run), _churn(run)]),
        Section("What remains", _remaining(run)),
        Section("Why it remains", _reasons(run)),
        Section("Size", [_sizes(run)]),
    ]


def summary(run: Run, title: str) -> Section:
    """The pictures of one of several runs, under one heading."""
    if not run.pruning and run.remaining == 1.0:
        return Section(title, [_sizes(run)])
    return Section(title, [*_remaining(run), *_reasons(run), _churn(run), _sizes(run)])


def _progress(run: Run) -> Picture:
    return Picture(
        "Quality and sparsity",
        curves.progress([run]),
        "How the model learns while weights are taken away. Sparsity is the share of prunable "
        "weights that are zero.",
        "the run has no history.jsonl. Train with tf_movprune.RunRecorder to have one.",
    )


def _churn(run: Run) -> Picture:
    return Picture(
        "Mask churn",
        curves.churn(run),
        "Each time a mask lets go of something, or takes it back, is one change. They are added "
        "up, as a share of all that masks decide on. What lies above the sparsity came back, or "
        "gave way to others.",
        "no changes of masks were recorded.",
    )


def _remaining(run: Run) -> list[Picture]:
    pruning = run.pruning
    matrices = pruning.get("matrices") or []
    shares = [m["remaining"] / m["total"] for m in matrices if m.get("total")]
    text = "Percent of the weights of each matrix that remain."
    if len(shares) > 1 and max(shares) - min(shares) < 0.002:
        text += " All were pruned to the same share."
    elif all(m.get("layer") is not None for m in matrices):
        text += " The stronger the colour, the more."
    heads = pruning.get("heads") or []
    is_whole = all(value in (0, 1) for head in heads for value in head.get("remaining") or ())
    kept = sum(value > 0 for head in heads for value in head.get("remaining") or ())
    total = sum(len(head.get("remaining") or ()) for head in heads)
    nothing = "the run has no pruning.json, which is written when a pruned model's training ends."
    return [
        Picture(
            "What remains of each matrix",
            grids.by_matrix(matrices, "remaining", None),
            text,
            nothing,
        ),
        Picture(
            "What remains of each attention head",
            grids.by_head(heads),
            f"Strong cells are heads that stay: {kept} of {total}. Pale ones are pruned as a whole."
            if is_whole
            else "Percent of the weights of each attention head that remain. A head that is at 0 "
            "does nothing any more.",
            "the heads of this model are not known." if pruning else nothing,
        ),
        Picture(
            "Neurons that remain",
            grids.by_neurons(pruning.get("neurons") or []),
            "Neurons between the two dense layers of each layer. One remains as long as a weight "
            "leads to it and another one from it.",
            "the neurons of this model are not known." if pruning else nothing,
        ),
    ]


def _reasons(run: Run) -> list[Picture]:
    pictures = []
    groups = run.pruning.get("groups") or []
    for group in groups[:_MOST_GROUPS]:
        pictures += _scores(group, str(group.get("name")) if len(groups) > 1 else "")
    if len(groups) > _MOST_GROUPS:
        why = f"only the first {_MOST_GROUPS} of {len(groups)} groups of matrices are drawn."
        pictures.append(Picture("Scores of further groups", None, "", why))
    if not groups:
        why = "the run has no pruning.json."
        pictures.append(Picture("Weights and scores", None, "", why))
    return [*pictures, _agreement(run)]


def _scores(group: Mapping[str, Any], name: str) -> list[Picture]:
    pieces = str(group.get("pieces") or "weights")
    one = {"heads": "head", "neurons": "neuron", "weights": "weight"}.get(pieces, "block")
    quantity = "score" if group.get("points") else "magnitude"
    where = (
        f" Shown is {group['shown']}; other matrices have thresholds of their own."
        if group.get("shown")
        else ""
    )
    of = f", {name}" if name else ""
    if group.get("method") in _MOVEMENT:
        start = {
            "magnitudes": f"start from the magnitude of each {one}, rise",
            "zeros": f"start at zero for each {one}, whatever its size, rise",
        }.get(str(group.get("scores_start_from")), "rise")
        text = (
            f"Each dot is a {one}. Scores {start} where training moves weights away from zero, and "
            f"fall where it moves them towards it. The {pieces.split(' ')[0]} with the highest "
            "scores stay."
        )
    else:
        text = f"Each dot is a {one}, which is kept if its score is high enough."
    method = str(group.get("method"))
    return [
        Picture(
            f"Weight against score{of}",
            scatter.weight_against_score(group),
            text + where,
            f"{method} learns no scores.",
        ),
        Picture(
            f"Distribution of {quantity}s{of}",
            scatter.score_histogram(group),
            f"How many {pieces.split(' ')[0]} have which {quantity}. The threshold is where "
            f"pruning cuts; the outermost bars hold all that lies beyond.{where}",
            f"{method} ranks nothing.",
        ),
    ]


def _agreement(run: Run) -> Picture:
    pruning, text = run.pruning, ""
    if pruning.get("agreement") is not None:
        kept = f" A random choice would agree on {percent(run.remaining)}." if run.remaining else ""
        text = (
            "Percent of what was kept that magnitude pruning, which keeps the largest, would keep "
            f"too: {percent(pruning['agreement'])} overall.{kept}"
        )
    return Picture(
        "Agreement with magnitude",
        grids.by_matrix(pruning.get("matrices") or [], "agreement", 1.0),
        text,
        "the method is magnitude itself, or keeps the zeros that were there."
        if pruning
        else "the run has no pruning.json.",
    )


def _sizes(run: Run) -> Picture:
    return Picture(
        "Size by format and part",
        costs.sizes(run),
        "Bytes of the whole model. Zeros save space only in formats that store them compactly, or "
        "after compression.",
        "sizes were not measured.",
    )
