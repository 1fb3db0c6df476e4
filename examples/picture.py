"""One picture of a comparison: accuracy and sparsity over steps, what stayed, and why."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import tf_movprune
from tf_movprune.shells import module_for

COLORS = {"dense": "#555555", "movement": "#0072b2", "magnitude": "#d55e00"}


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Weights, mask, and scores where there are any."""

    weights: np.ndarray
    mask: np.ndarray
    scores: np.ndarray | None


def matrices(model) -> dict[str, Matrix]:
    """The pruned matrices of a model by path; none of a dense one."""
    kernels_of = module_for(model, "layer_tree").kernels_of
    found = {}
    for path, layer in tf_movprune.pruned_layers(model).items():
        (kernel,) = kernels_of([layer])
        mask, scores = kernel.mask.numpy(), kernel.scores
        weights = kernel.weights().numpy().reshape(mask.shape)
        found[path] = Matrix(weights, mask, None if scores is None else scores.numpy())
    return found


def draw(
    results,
    kept: dict[str, dict[str, Matrix]],
    titles: dict[str, str],
    path: pathlib.Path,
    sparsity: float,
) -> pathlib.Path:
    """Draws what the matrices kept with each method, in columns by `titles` of ends of paths."""
    figure, axes = plt.subplots(2, 3, figsize=(16, 9), constrained_layout=True)
    _draw_curves(axes[0, 0], axes[0, 1], results)
    movement, magnitude = kept["movement"], kept["magnitude"]
    remaining = {p: m.mask.mean() for p, m in movement.items()}
    _draw_grid(axes[0, 2], remaining, titles, "movement: weights that stay, %", vmax=1.0)
    shared = {p: (m.mask & magnitude[p].mask).sum() / m.mask.sum() for p, m in movement.items()}
    _draw_grid(axes[1, 2], shared, titles, "of these, magnitude keeps the same, %", vmax=1.0)
    first = next(p for p in movement if _title(p, titles) == "intermediate")
    name = f"layer {_layer(first)}, intermediate"
    _draw_scores(axes[1, 0], movement[first], f"{name}: score against weight")
    _draw_weights(axes[1, 1], movement[first], magnitude[first], f"{name}: what stays")
    figure.suptitle(f"Fine-tuning and pruning to {1 - sparsity:.0%} of the encoder's weights")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _draw_curves(accuracy, sparsity, results) -> None:
    for r in results:
        accuracy.plot(r.steps, r.validation_accuracy, "o-", color=COLORS[r.method], label=r.method)
        sparsity.plot(r.steps, r.sparsity, "o-", color=COLORS[r.method], label=r.method)
    accuracy.set(title="validation accuracy", xlabel="step")
    sparsity.set(title="sparsity of the encoder", xlabel="step", ylim=(-0.02, 1))
    for axes in (accuracy, sparsity):
        axes.grid(alpha=0.3)
        axes.legend()


def _draw_grid(axes, values: dict[str, float], titles, title: str, vmax: float) -> None:
    layers = max(_layer(path) for path in values) + 1
    grid = np.full([layers, len(titles)], np.nan)
    for path, value in values.items():
        grid[_layer(path), list(titles.values()).index(_title(path, titles))] = value
    axes.imshow(grid, vmin=0, vmax=vmax, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        color = "white" if value > 0.6 * vmax else "black"
        axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=color)
    axes.set(title=title, ylabel="layer", yticks=range(layers), xticks=range(len(titles)))
    axes.set_xticklabels(titles.values(), fontsize=8)


def _draw_scores(axes, matrix: Matrix, title: str) -> None:
    weights, mask, scores = _sample(matrix.weights, matrix.mask, matrix.scores)
    axes.scatter(weights[~mask], scores[~mask], s=4, color="#bbbbbb", label="pruned")
    axes.scatter(weights[mask], scores[mask], s=4, color=COLORS["movement"], label="stays")
    low, high = np.quantile(scores, [0.002, 0.998])
    axes.set(title=title, xlabel="weight", ylabel="movement score", ylim=(low, high))
    axes.legend(loc="upper right")


def _draw_weights(axes, movement: Matrix, magnitude: Matrix, title: str) -> None:
    limit = float(np.quantile(np.abs(movement.weights), 0.9995))
    bins = np.linspace(-limit, limit, 80)
    axes.hist(movement.weights.ravel(), bins, color="#dddddd", label="all weights", log=True)
    for name, matrix in (("movement", movement), ("magnitude", magnitude)):
        axes.hist(
            matrix.weights[matrix.mask],
            bins,
            histtype="step",
            linewidth=1.5,
            color=COLORS[name],
            label=f"stay with {name}",
        )
    axes.set(title=title, xlabel="weight", ylabel="number of weights")
    axes.legend(loc="upper right", fontsize=8)


def _sample(*arrays: np.ndarray, size: int = 6000) -> list[np.ndarray]:
    chosen = np.random.RandomState(0).permutation(arrays[0].size)[:size]
    return [array.ravel()[chosen] for array in arrays]


def _layer(path: str) -> int:
    """The first number in a path: that of the layer."""
    return int(re.search(r"\d+", path.removeprefix("bert_backbone"))[0])


def _title(path: str, titles: dict[str, str]) -> str:
    return next(title for end, title in titles.items() if path.endswith(end))
