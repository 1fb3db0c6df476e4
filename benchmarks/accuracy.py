"""Accuracy of methods and recipes: appends one line of JSON to a results file for each run.

    python -m benchmarks.accuracy --data_dir GLUE/SST-2 --recipe movement magnitude --seed 0 1
    python -m benchmarks.accuracy --recipe movement --num_train_steps 500   # movie reviews
    python -m benchmarks.accuracy --table                                   # of the results file

Runs that are in the results file already are skipped. The model is MiniLM-L6, whole encoder pruned.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import datetime
import json
import os
import pathlib
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers

import tf_movprune
from benchmarks import hugging_face_bert as bert
from benchmarks.fine_tuning import Settings, accuracy, fit, optimizer_for
from benchmarks.sentiment_data import LENGTHS, encoded, load_task
from examples.downloads import minilm_folder

RESULTS = pathlib.Path("benchmarks/accuracy.jsonl")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A method, how its scores learn, and from where to where in the run the schedule rises.

    `score_sgd` is the rate of plain gradient descent on the scores: from a start at 1, rate 1e3 is
    a start at 1e-3 and rate 1. `score_adam` is their rate under the optimizer of the weights.
    """

    method: tf_movprune.PruningMethod | None = None
    score_sgd: float | None = None
    score_adam: float | None = None
    begin: float = 0.1
    end: float = 0.7
    learning_rate: float = 8e-5
    distil: bool = False
    hidden: float = 0.0
    """Weight of the teacher's hidden states."""
    start_at_teacher: bool = False
    """Whether the teacher's weights are pruned, and not those of MiniLM."""
    dropout: bool = True
    """If false, the pruned model is trained without the dropout of dense training, a tenth."""
    heads: float | None = None
    """Fraction of the heads that go. Then the sparsity is that of the neurons."""
    recovery: float = 0.0
    """For how long the compacted model is trained on, in multiples of `num_train_steps`."""


START = tf_movprune.MagnitudeScores()
MOVEMENT = Recipe(tf_movprune.HardMovement(START), score_sgd=1e3)  # as ShortRun has it
GLOBAL = Recipe(tf_movprune.HardMovement(START, scope="global"), score_sgd=1e3)
TARGET = Recipe(
    tf_movprune.SoftMovement(100.0, target=True, score_initializer=START), score_sgd=1e3
)
SOFT = Recipe(tf_movprune.SoftMovement(100.0), score_adam=1e-2)


def changed(recipe: Recipe, **changes) -> Recipe:
    return dataclasses.replace(recipe, **changes)


HIDDEN = {"distil": True, "hidden": 1.0}
DISTILLED = changed(MOVEMENT, **HIDDEN, learning_rate=3.2e-4)
SHORT = changed(DISTILLED, dropout=False)  # as the preset short has it
FROM_TEACHER = changed(SHORT, start_at_teacher=True)
EARLY = changed(FROM_TEACHER, end=0.5)
STRUCTURE = changed(MOVEMENT, heads=0.5, distil=True, end=0.5, learning_rate=1.6e-4)

RECIPES = {
    "dense": Recipe(),
    "magnitude": Recipe(tf_movprune.Magnitude()),
    "magnitude-global": Recipe(tf_movprune.Magnitude(scope="global")),
    "movement": MOVEMENT,
    "movement-distil": changed(MOVEMENT, distil=True),
    "movement-global": GLOBAL,
    "movement-global-distil": changed(GLOBAL, distil=True),
    "movement-soft": TARGET,
    "movement-soft-distil": changed(TARGET, distil=True),
    # the teacher's hidden states too
    "movement-hidden": changed(MOVEMENT, **HIDDEN),
    "movement-hidden-lr-3.2e-4": DISTILLED,
    "movement-hidden-lr-6.4e-4": changed(DISTILLED, learning_rate=6.4e-4),
    "movement-hidden-10-lr-3.2e-4": changed(DISTILLED, hidden=10.0),
    "movement-hidden-from-teacher-lr-3.2e-4": changed(DISTILLED, start_at_teacher=True),
    "movement-hidden-no-dropout-lr-3.2e-4": SHORT,
    "magnitude-hidden-no-dropout-lr-3.2e-4": changed(
        SHORT, method=tf_movprune.Magnitude(), score_sgd=None
    ),
    "movement-from-teacher": FROM_TEACHER,
    "movement-from-teacher-lr-6.4e-4": changed(FROM_TEACHER, learning_rate=6.4e-4),
    "movement-from-teacher-lr-1.28e-3": changed(FROM_TEACHER, learning_rate=1.28e-3),
    "movement-from-teacher-hidden-10": changed(FROM_TEACHER, hidden=10.0),
    "movement-from-teacher-global": changed(FROM_TEACHER, method=GLOBAL.method),
    "movement-from-teacher-end-0.5": EARLY,
    "movement-from-teacher-end-0.3": changed(FROM_TEACHER, end=0.3),
    "movement-from-teacher-end-0.5-lr-6.4e-4": changed(EARLY, learning_rate=6.4e-4),
    "movement-from-teacher-end-0.5-global": changed(EARLY, method=GLOBAL.method),
    "magnitude-from-teacher-end-0.5": changed(
        EARLY, method=tf_movprune.Magnitude(), score_sgd=None
    ),
    "magnitude-from-teacher": changed(FROM_TEACHER, method=tf_movprune.Magnitude(), score_sgd=None),
    "movement-soft-hidden-lr-3.2e-4": changed(TARGET, **HIDDEN, learning_rate=3.2e-4),
    "magnitude-hidden-lr-3.2e-4": Recipe(tf_movprune.Magnitude(), **HIDDEN, learning_rate=3.2e-4),
    "movement-structure-hidden-lr-3.2e-4": changed(STRUCTURE, **HIDDEN, learning_rate=3.2e-4),
    # whole heads and neurons: a smaller dense model
    "magnitude-structure": Recipe(tf_movprune.Magnitude(), heads=0.5),
    "movement-structure": changed(MOVEMENT, heads=0.5),
    "movement-structure-distil": changed(MOVEMENT, heads=0.5, distil=True),
    "movement-structure-distil-end-0.5": changed(MOVEMENT, heads=0.5, distil=True, end=0.5),
    "movement-structure-distil-lr-1.6e-4": STRUCTURE,
    "movement-structure-distil-from-teacher": changed(STRUCTURE, start_at_teacher=True),
    "movement-structure-distil-recovery": changed(STRUCTURE, recovery=2.0),
    # the paper's settings
    "hard": Recipe(tf_movprune.HardMovement()),  # at any score rate
    "hard-distil": Recipe(tf_movprune.HardMovement(), distil=True),
    "soft": SOFT,
    "soft-distil": changed(SOFT, distil=True),
    "l0": Recipe(tf_movprune.L0(125.0), score_adam=1e-1),
    # one setting of another recipe changed
    "movement-scale-3e-4": changed(MOVEMENT, score_sgd=1 / 3e-4),
    "movement-scale-3e-3": changed(MOVEMENT, score_sgd=1 / 3e-3),
    "movement-adam": changed(MOVEMENT, score_sgd=None, score_adam=1e-2),
    "movement-begin-0": changed(MOVEMENT, begin=0.0),
    "movement-end-0.5": changed(MOVEMENT, end=0.5),
    "movement-end-0.85": changed(MOVEMENT, end=0.85),
    "movement-lr-1.6e-4": changed(MOVEMENT, learning_rate=1.6e-4),
    "magnitude-lr-1.6e-4": Recipe(tf_movprune.Magnitude(), learning_rate=1.6e-4),
    # a threshold schedule: how much remains follows from lambda, not from --final_sparsity
    **{
        f"movement-soft-lambda-{weight}": changed(
            TARGET, method=tf_movprune.SoftMovement(float(weight), score_initializer=START)
        )
        for weight in (1000, 4000, 6000)
    },
}


HEADS = "*.attention.*"


def schedule_of(recipe: Recipe, steps: int, sparsity: float):
    span = {"begin_step": int(recipe.begin * steps), "end_step": int(recipe.end * steps)}
    if recipe.heads is not None:
        return {
            HEADS: tf_movprune.CubicSparsity(recipe.heads, **span),
            "*": tf_movprune.CubicSparsity(sparsity, **span),
        }
    if recipe.method.schedule_value == "threshold":
        return tf_movprune.CubicThreshold(0.1, **span)
    if recipe.method.schedule_value == "sparsity":
        return tf_movprune.CubicSparsity(sparsity, **span)
    return None


def block_size_of(recipe: Recipe):
    if recipe.heads is None:
        return (1, 1)
    return {HEADS: tf_movprune.HEADS, "*": tf_movprune.NEURONS}


def classifier(
    folder: str, seed: int, layers: int, dropout: bool = True
) -> transformers.TFPreTrainedModel:
    """MiniLM with its first layers only, or with each of its layers several times in a row."""
    model = bert.load(folder, seed, **({} if dropout else bert.NO_DROPOUT))
    original = model.config.num_hidden_layers
    if layers == original:
        return model
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    keras.utils.set_random_seed(seed)
    other = type(model)(config)
    other(other.dummy_inputs)
    for part in ("embeddings", "pooler"):
        getattr(other.bert, part).set_weights(getattr(model.bert, part).get_weights())
    other.classifier.set_weights(model.classifier.get_weights())
    for i, layer in enumerate(other.bert.encoder.layer):
        source = i if layers < original else i * original // layers
        layer.set_weights(model.bert.encoder.layer[source].get_weights())
    other.bert.embeddings.trainable = False
    return other


def fine_tune(
    model,
    data,
    settings: Settings,
    teacher: str | None,
    hidden: float,
    callbacks=(),
    score_optimizer=None,
) -> dict:
    trained = model
    if teacher is not None:
        trained = tf_movprune.Distiller(
            model,
            bert.load(teacher, 0),
            alpha_distil=0.9,
            alpha_ce=0.1,
            **({"hidden_states": True, "alpha_hidden": hidden} if hidden else {}),
        )
    optimizer = optimizer_for(model, settings, score_optimizer=score_optimizer)
    record = fit(
        trained, optimizer, data["train"], data["validation"], settings, callbacks, verbose=2
    )
    return {
        "test_accuracy": accuracy(model, data["test"]),
        "validation": dict(zip(record.steps, record.accuracies)),
    }


def run(
    recipe: Recipe,
    data,
    folder,
    layers,
    settings: Settings,
    sparsity: float,
    teacher: str,
    save_to: str | None = None,
) -> dict:
    settings = dataclasses.replace(settings, learning_rate=recipe.learning_rate)
    start = teacher if recipe.start_at_teacher else folder
    model = classifier(start, settings.seed, layers, recipe.dropout)
    pruning = {}
    if recipe.method is not None:
        multiplier = recipe.score_adam and recipe.score_adam / recipe.learning_rate
        if recipe.score_sgd is not None:
            multiplier, pruning["score_optimizer"] = 1.0, keras.optimizers.SGD(recipe.score_sgd)
        tf_movprune.prune_low_movement(
            model,
            schedule_of(recipe, settings.num_train_steps, sparsity),
            recipe.method,
            block_size=block_size_of(recipe),
            score_learning_rate_multiplier=multiplier,
        )
        pruning["callbacks"] = [tf_movprune.UpdatePruningStep()]
    dense_teacher = teacher if recipe.distil else None
    result = fine_tune(model, data, settings, dense_teacher, recipe.hidden, **pruning)
    result["remaining"] = 1 - tf_movprune.summarize_sparsity(model).sparsity
    if recipe.recovery:
        model = tf_movprune.compact(tf_movprune.strip_pruning(model))
        steps = int(recipe.recovery * settings.num_train_steps)
        settings = dataclasses.replace(settings, num_train_steps=steps, seed=settings.seed + 1)
        recovered = fine_tune(model, data, settings, dense_teacher, recipe.hidden)
        result = {**result, **recovered, "before_recovery": result}
    if save_to is not None:
        model.save_pretrained(save_to)
    return result


def key_of(result: dict) -> tuple:
    """Task, recipe, steps, sparsity, seed, layers and batch size; the first lines lack the last."""
    return tuple(result["key"]) + (6, 32)[len(result["key"]) - 5 :]


def table(results: list[dict]) -> str:
    """Markdown: a line to each task, length, sparsity and recipe, with all its seeds."""
    found = collections.defaultdict(dict)
    remaining = collections.defaultdict(list)
    for result in results:
        task, recipe, steps, sparsity, seed, layers, batch_size = key_of(result)
        key = (task, layers, batch_size, steps, 1 - sparsity, recipe)
        found[key][seed] = result["test_accuracy"]
        remaining[key].append(result.get("remaining", 1 - sparsity))
    lines = [
        "| task | layers × batch | steps | remaining | recipe | seeds | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in sorted(found, key=lambda k: (*k[:4], -k[4], -np.mean([*found[k].values()]))):
        task, layers, batch_size, steps, _, recipe = key
        seeds = ", ".join(f"{100 * value:.1f}" for _, value in sorted(found[key].items()))
        mean, left = 100 * np.mean([*found[key].values()]), np.mean(remaining[key])
        recovery = int(RECIPES[recipe].recovery * steps)
        steps = f"{steps} + {recovery}" if recovery else steps
        lines.append(
            f"| {task} | {layers} × {batch_size} | {steps} | {left:.1%} | `{recipe}` "
            f"| {seeds} | {mean:.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="movie_reviews")
    parser.add_argument("--data_dir", default=None)
    parser.add_argument("--recipe", nargs="+", default=["movement", "magnitude"], choices=RECIPES)
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--num_train_steps", type=int, default=1500)
    parser.add_argument("--layers", type=int, default=6, help="of the encoder: 2, 6 or 12")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--final_sparsity", type=float, default=0.9)
    parser.add_argument(
        "--teacher",
        help="folder of one; without it that of a dense run of as many steps. Results do not tell "
        "by which teacher they are: give it a file of --results of its own",
    )
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the results, and train nothing")
    args = parser.parse_args()

    lines = args.results.read_text().splitlines() if args.results.exists() else []
    results = [json.loads(line) for line in lines]
    if args.table:
        print(table(results))
        return
    done = {key_of(result) for result in results}
    folder = str(minilm_folder(pathlib.Path("runs/cache")))
    encode = bert.encoder(folder, LENGTHS[-1])
    splits = load_task(args.task, args.data_dir)
    data = {name: encoded(encode, *split) for name, split in splits.items()}
    task = "sst2" if args.data_dir else args.task
    own = f"runs/teachers/{task}-{args.num_train_steps}-{args.layers}-{args.batch_size}"
    teacher = args.teacher or own

    def key(name: str, seed: int) -> tuple:
        sparsity = 0.0 if name == "dense" else args.final_sparsity
        return task, name, args.num_train_steps, sparsity, seed, args.layers, args.batch_size

    def has_to_run(name: str, seed: int) -> bool:
        return key(name, seed) not in done

    runs = [(n, seed) for seed in args.seed for n in args.recipe if has_to_run(n, seed)]
    if any(RECIPES[name].distil for name, _ in runs) and not pathlib.Path(teacher).exists():
        runs = [("dense", 0), *(run for run in runs if run != ("dense", 0))]  # is their teacher
    for name, seed in runs:
        keras.backend.clear_session()
        settings = Settings(
            args.num_train_steps, batch_size=args.batch_size, seed=seed, evaluations=5
        )
        result = run(
            RECIPES[name],
            data,
            folder,
            args.layers,
            settings,
            args.final_sparsity,
            teacher,
            save_to=own if (name, seed) == ("dense", 0) else None,
        )
        result = {
            "key": key(name, seed),
            **result,
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}",
        }
        print(result, flush=True)
        if has_to_run(name, seed):
            with open(args.results, "a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
