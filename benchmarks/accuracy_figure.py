"""Draws accuracy against what remains, as the paper does, from the results of `accuracy.py`.

python -m benchmarks.accuracy_figure --task sst2 --num_train_steps 600
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.accuracy import RESULTS, key_of

STYLES = {  # color, line and marker of each recipe, in the order of the legend
    "movement-soft": ("soft movement", "#009e73", "-", "o"),
    "movement-soft-distil": ("soft movement, distilled", "#009e73", "--", "o"),
    "movement-global": ("hard movement, global", "#cc79a7", "-", "o"),
    "movement": ("hard movement", "#0072b2", "-", "o"),
    "movement-distil": ("hard movement, distilled", "#0072b2", "--", "o"),
    "magnitude": ("magnitude", "#d55e00", "-", "o"),
    "l0": ("L0, as published", "#999999", "-", "s"),
    "hard": ("hard movement, as published", "#999999", ":", "v"),
    "soft": ("soft movement, as published", "#999999", "-.", "D"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--num_train_steps", type=int, default=600)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/accuracy.png"))
    args = parser.parse_args()

    points = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in args.results.read_text().splitlines():
        result = json.loads(line)
        task, recipe, steps, sparsity, _, layers, batch_size = key_of(result)
        if (task, steps, layers, batch_size) == (args.task, args.num_train_steps, 6, 32):
            remaining = result.get("remaining", 1 - sparsity)  # the first lines lack it
            points[recipe][sparsity].append((remaining, result["test_accuracy"]))
    if not points:
        parser.error(f"{args.results} has no runs of {args.num_train_steps} steps on {args.task}")

    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    if "dense" in points:
        accuracy = np.mean([accuracy for _, accuracy in points["dense"][0.0]])
        axes.axhline(100 * accuracy, color="black", linewidth=1, label="dense")
    for recipe, (label, color, line, marker) in STYLES.items():
        if recipe in points:
            means = sorted(tuple(np.mean(runs, axis=0)) for runs in points[recipe].values())
            remaining, accuracies = 100 * np.array(means).T
            face = "white" if "distil" in recipe else color
            style = {"color": color, "markerfacecolor": face, "label": label}
            axes.plot(remaining, accuracies, line, marker=marker, **style)
    axes.set(
        xscale="log",
        xlabel="remaining weights of the encoder, %",
        ylabel="accuracy, %",
        title=f"{args.task}, {args.num_train_steps} steps of 32 examples, MiniLM-L6",
    )
    axes.margins(x=0.1)
    ticks = [3, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(args.output, dpi=110)
    print(f"The figure is in {args.output}.")


if __name__ == "__main__":
    main()
