"""Accuracy of recipes for short runs: appends one line of JSON to a results file for each run.

    python -m benchmarks.short_runs --data_dir GLUE/SST-2 --recipe movement magnitude --seed 0 1

Runs that are in the results file already are skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import pathlib
import platform

import tensorflow as tf
import tf_keras as keras
import transformers

import tf_movprune
from examples.downloads import minilm_folder
from examples.fine_tuning import Settings, accuracy, fit, load_classifier, optimizer_for
from examples.sentiment_data import load_task, tokenize


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A method, how its scores learn, and from where to where in the run the sparsity rises."""

    method: tf_movprune.methods.PruningMethod | None
    score_optimizer: float | None = None
    multiplier: float | None = None
    begin: float = 0.1
    end: float = 0.7
    learning_rate: float = 8e-5


def movement(scale: float, **kwargs) -> Recipe:
    start = tf_movprune.MagnitudeScores(scale)
    return Recipe(tf_movprune.HardMovement(start), **kwargs)


RECIPES = {
    "dense": Recipe(None),
    "magnitude": Recipe(tf_movprune.Magnitude()),
    "published": Recipe(tf_movprune.HardMovement()),
    "movement": movement(1e-3, score_optimizer=1.0),
    "movement-3e-4": movement(3e-4, score_optimizer=1.0),
    "movement-3e-3": movement(3e-3, score_optimizer=1.0),
    "movement-begin0": movement(1e-3, score_optimizer=1.0, begin=0.0),
    "movement-end0.5": movement(1e-3, score_optimizer=1.0, end=0.5),
    "movement-end0.85": movement(1e-3, score_optimizer=1.0, end=0.85),
    "movement-lr1.6e-4": movement(1e-3, score_optimizer=1.0, learning_rate=1.6e-4),
    "magnitude-lr1.6e-4": Recipe(tf_movprune.Magnitude(), learning_rate=1.6e-4),
    "magnitude-end0.5": Recipe(tf_movprune.Magnitude(), end=0.5),
    "movement-adam": movement(1.0, multiplier=1e-2 / 8e-5),
}


def run(recipe: Recipe, data, folder, settings: Settings, sparsity: float) -> dict:
    settings = dataclasses.replace(settings, learning_rate=recipe.learning_rate)
    model = load_classifier(folder, settings.seed)
    callbacks = []
    if recipe.method is not None:
        steps = settings.num_train_steps
        schedule = tf_movprune.CubicSparsity(
            sparsity, begin_step=int(recipe.begin * steps), end_step=int(recipe.end * steps)
        )
        model = tf_movprune.prune_low_movement(
            model, schedule, recipe.method, score_learning_rate_multiplier=recipe.multiplier
        )
        callbacks.append(tf_movprune.UpdatePruningStep())
    rate = recipe.score_optimizer
    optimizer = optimizer_for(
        settings, score_optimizer=None if rate is None else keras.optimizers.SGD(rate)
    )
    record = fit(
        model, optimizer, data["train"], data["validation"], settings, callbacks, verbose=2
    )
    return {
        "test_accuracy": accuracy(model, data["test"]),
        "validation": dict(zip(record.steps, record.accuracies)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="movie_reviews")
    parser.add_argument("--data_dir", default=None)
    parser.add_argument("--recipe", nargs="+", default=["movement", "magnitude"], choices=RECIPES)
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--num_train_steps", type=int, default=1500)
    parser.add_argument("--final_sparsity", type=float, default=0.9)
    parser.add_argument("--results", type=pathlib.Path, default="benchmarks/short_runs.jsonl")
    args = parser.parse_args()

    done = []
    if args.results.exists():
        done = [json.loads(line)["key"] for line in args.results.read_text().splitlines()]
    folder = minilm_folder(pathlib.Path("runs/cache"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    splits = load_task(args.task, args.data_dir)
    data = {name: tokenize(tokenizer, *split) for name, split in splits.items()}
    task = "sst2" if args.data_dir else args.task
    for seed in args.seed:
        for name in args.recipe:
            key = [task, name, args.num_train_steps, args.final_sparsity, seed]
            if key in done:
                continue
            keras.backend.clear_session()
            settings = Settings(args.num_train_steps, seed=seed)
            result = run(RECIPES[name], data, folder, settings, args.final_sparsity)
            result = {
                "key": key,
                **result,
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, TensorFlow {tf.__version__}",
            }
            print(result, flush=True)
            with open(args.results, "a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
