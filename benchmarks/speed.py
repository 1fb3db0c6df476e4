"""Speed and memory of pruning beside dense fine-tuning, in one run, interleaved: `make bench`.

    python -m benchmarks.speed                    # all of it, about twenty minutes on two cores
    python -m benchmarks.speed --only step refresh
    python -m benchmarks.speed --shape tiny --rounds 3 --lengths 16   # to see whether it runs

Prints a table of targets and measurements, and exits with 1 where one is missed. Every number is a
ratio of medians of measurements that took turns in the same process.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from benchmarks import hugging_face_bert, keras3_speed, models
from benchmarks.measuring import Table, draw_scores, interleaved, seconds
from benchmarks.sentiment_data import LENGTHS, encoded, load_task, training_batches
from benchmarks.training import Trainer
from examples.downloads import minilm_folder
from tf_movprune.core import masks

PARTS = ("first", "step", "keras3", "nan", "refresh", "memory", "scaling", "batches", "others")
STEPS = 10_000  # of the schedules: more than are run
BATCH = 32
FIRST_STEPS = 20


# ---- variants


def cubic(kind: type, final: float, frequency: int = 1, begin: int = 0):
    return kind(final, begin_step=begin, end_step=STEPS, frequency=frequency)


def prune(model: keras.Model, variant: str, begin: int = 0) -> keras.optimizers.Optimizer:
    """Prunes a model in one of several ways, and returns the optimizer to train it with."""
    frequency = 10 if variant == "every 10th" else 1
    sparsity = cubic(tf_movprune.CubicSparsity, 0.9, frequency, begin)
    hard = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))
    score_optimizer = keras.optimizers.SGD(1.0) if variant == "plain SGD" else None
    if variant in ("hard", "every 10th", "plain SGD"):
        tf_movprune.prune_low_movement(model, sparsity, hard)
    elif variant == "soft":
        threshold = cubic(tf_movprune.CubicThreshold, 0.1)
        tf_movprune.prune_low_movement(model, threshold, tf_movprune.SoftMovement(100.0))
    elif variant == "magnitude":
        tf_movprune.prune_low_movement(model, sparsity, tf_movprune.Magnitude())
    elif variant != "dense":
        raise ValueError(f"Unknown variant {variant!r}.")
    return tf_movprune.create_optimizer(3e-5, 2 * STEPS, 100, score_optimizer=score_optimizer)


def taking_turns(*batches) -> tf.data.Dataset:
    """Endless: one batch, or several, which may be of different lengths."""
    endless = [tf.data.Dataset.from_tensors(batch).cache().repeat() for batch in batches]
    if len(endless) == 1:
        return endless[0]
    turns = tf.data.Dataset.range(len(endless)).repeat()
    return tf.data.Dataset.choose_from_datasets(endless, turns)


def trainer(
    shape: str, length: int | Sequence[int], variant: str, begin: int = 0, **compile_arguments
) -> Trainer:
    model = models.bert_classifier(shape)
    optimizer = prune(model, variant, begin)
    callbacks = [] if variant == "dense" else [tf_movprune.UpdatePruningStep()]
    compile_arguments = {"jit_compile": True, **compile_arguments}
    lengths = [length] if isinstance(length, int) else length
    dataset = taking_turns(*(models.random_batch(BATCH, n) for n in lengths))
    return Trainer(
        keras, model, callbacks, dataset, 2 * STEPS, optimizer=optimizer, **compile_arguments
    )


# ---- measuring


def measure_first_steps(table: Table, shape: str, length: int, rounds: int) -> None:
    """Measures the start of trainings whose schedules begin later, as those of recipes do.

    The first step is traced and compiled. The refresh of masks is compiled beside the steps that
    follow, for which the first of them are measured as well.
    """
    trainer(shape, length, "dense").step()  # what only the first program of a process pays
    variants = {"dense": None, "hard": 1.2, "plain SGD": 1.2}
    first, all_of_them = collections.defaultdict(list), collections.defaultdict(list)
    for _ in range(rounds):
        for variant in variants:
            trained = trainer(shape, length, variant, begin=STEPS // 10)
            first[variant].append(seconds(trained.step))
            others = sum(seconds(trained.step) for _ in range(FIRST_STEPS - 1))
            all_of_them[variant].append(first[variant][-1] + others)
    for variant, target in variants.items():
        if variant != "dense":
            where = f"at {BATCH} × {length}, compilation, / dense"
            ratio = np.median(first[variant]) / np.median(first["dense"])
            table.add(f"{variant}: first step {where}", ratio, target)
            ratio = np.median(all_of_them[variant]) / np.median(all_of_them["dense"])
            table.add(f"{variant}: first {FIRST_STEPS} steps {where}", ratio, None)


def measure_steps(table: Table, shape: str, lengths: list[int], rounds: int) -> None:
    targets = {"hard": 1.06, "soft": 1.06, "every 10th": 1.04, "plain SGD": 1.04, "magnitude": None}
    trainer(shape, min(lengths), "dense").step()  # what only the first program of a process pays
    for length in sorted(lengths, reverse=True):
        is_longest = length == max(lengths)
        variants = ["dense", *(targets if is_longest else ["hard"])]
        trainers = {}
        for variant in variants:
            trainers[variant] = trainer(shape, length, variant)
            trainers[variant].step()
        steps = {variant: t.step for variant, t in trainers.items() if variant != "every 10th"}
        if is_longest:  # nine steps without a refresh, and one with it
            sparse = trainers["every 10th"]
            sparse.step()
            steps["without refresh"] = sparse.step
        times = interleaved(steps, rounds)
        where = f"step at {BATCH} × {length} / dense step"
        for variant in variants[1:]:
            if variant == "every 10th":
                time_of = 0.9 * times["without refresh"] + 0.1 * times["hard"]
            else:
                time_of = times[variant]
            target = targets[variant] if is_longest else 1.10
            name = "hard, refresh at every 10th step" if variant == "every 10th" else variant
            table.add(f"{name}: {where}", time_of / times["dense"], target)


def measure_checks(table: Table, shape: str, lengths: list[int], rounds: int) -> None:
    """Measures the looks for NaN before a refresh and after a step, as a part of the step."""
    for length in lengths:
        trained = trainer(shape, length, "hard")
        trained.step()
        (update,) = (x for x in trained.callbacks.callbacks if hasattr(x, "_check_finite"))
        times = interleaved({"step": trained.step, "check": update._check_finite}, rounds)
        name = f"hard: both looks for NaN / step at {BATCH} × {length}"
        table.add(name, 2 * times["check"] / times["step"], 0.02)


def refreshes(shape: str) -> tuple[dict[str, Callable], list[np.ndarray]]:
    """Refreshes of all matrices, by name, of scores as movement makes them: heavy-tailed."""
    random = np.random.RandomState(0)
    shapes = models.kernel_shapes(shape)
    arrays = [draw_scores(random, size) for size in shapes]
    scores = [tf.Variable(array) for array in arrays]
    chosen = [tf.Variable(tf.ones(size, tf.bool)) for size in shapes]
    sparsity = tf.Variable(0.9, dtype=tf.float64)
    total = sum(array.size for array in arrays)

    def assign(found) -> None:
        for variable, mask in zip(chosen, found):
            variable.assign(mask)

    def local():
        counts = masks.kept_count([array.size for array in arrays], sparsity)
        assign(masks.topk_masks([tf.convert_to_tensor(s) for s in scores], counts)[0])

    def together():
        tensors = [tf.convert_to_tensor(s) for s in scores]
        assign(masks.global_topk_masks(tensors, masks.kept_count(total, sparsity))[0])

    def by_top_k():
        for variable, tensor in zip(chosen, scores):
            flat = tf.reshape(tensor, [-1])
            count = flat.shape[0] // 10
            indices = tf.math.top_k(flat, count, sorted=False).indices
            mask = tf.scatter_nd(indices[:, None], tf.ones([count], tf.bool), flat.shape)
            variable.assign(tf.reshape(mask, tensor.shape))

    compiled = {
        "local": tf.function(local, jit_compile=True, autograph=False),
        "global": tf.function(together, jit_compile=True, autograph=False),
        "top_k": tf.function(by_top_k),
    }
    return compiled, arrays


def measure_refreshes(table: Table, shape: str, rounds: int) -> None:
    compiled, arrays = refreshes(shape)
    row = np.concatenate([array.ravel() for array in arrays])

    def partition_each():
        for array in arrays:
            np.partition(array.ravel(), int(0.9 * array.size))

    functions = {
        **compiled,
        "partition": partition_each,
        "partition of all": lambda: np.partition(row, int(0.9 * row.size)),
    }
    for function in compiled.values():
        function()
    times = interleaved(functions, rounds)
    beside = "NumPy `partition` of"
    local, together = times["local"], times["global"]
    table.add(f"local refresh / {beside} the same scores", local / times["partition"], 0.5)
    table.add(f"global refresh / {beside} all scores", together / times["partition of all"], 0.5)
    table.add(
        f"`tf.math.top_k` of each matrix / {beside} the same", times["top_k"] / times["partition"]
    )


def measure_memory(table: Table, shape: str, length: int) -> None:
    """Of each masked weight: by the sizes of tensors, and by the peak of a process of its own."""
    weights = sum(rows * columns for rows, columns in models.kernel_shapes(shape))

    def run(variant: str, xla_flags: str = "") -> dict[str, int]:
        arguments = ["--shape", shape, "--lengths", str(length), "--memory_of", variant]
        xla_flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip()
        printed = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed", *arguments],
            env={**os.environ, "XLA_FLAGS": xla_flags},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return json.loads(printed.splitlines()[-1])

    def measure(variant: str) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as folder:
            # Another process than that of the peak, which grows as it dumps.
            run(variant, f"--xla_dump_to={folder} --xla_dump_hlo_module_re=.*run_step.*")
            (report,) = pathlib.Path(folder).glob("*memory-usage-report.txt")
            buffers = int(re.match(r"Total bytes used: (\d+)", report.read_text())[1])
        return {**run(variant), "buffers": buffers}

    found = {variant: measure(variant) for variant in ("dense", "hard", "plain SGD")}
    for variant, tensors, peak in (("hard", 13, 16), ("plain SGD", 5, 8)):
        for name, key, target in (
            ("variables", "tensors", tensors),
            ("all buffers of XLA's step", "buffers", None),
            ("peak RSS", "peak", peak),
        ):
            extra = (found[variant][key] - found["dense"][key]) / weights
            table.add(f"memory of a masked weight, {variant}, {name}", extra, target, " bytes")


def memory_of(variant: str, shape: str, length: int) -> dict[str, int]:
    trained = trainer(shape, length, variant)
    for _ in range(3):
        trained.step()
    variables = {v.ref(): v for v in [*trained.model.variables, *trained.model.optimizer.variables]}
    return {
        "tensors": sum(
            v.dtype.size * v.shape.num_elements() for v in map(_read, variables.values())
        ),
        "peak": peak_bytes(),
    }


def peak_bytes() -> int:
    """The most memory that this process held. `getrusage` would count its parent's too."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _read(variable):
    return getattr(variable, "_variable", variable)  # of an AutoCastVariable


def measure_scaling(table: Table, largest: str, figure: pathlib.Path) -> None:
    """Local refreshes of models from 11 to 302 million pruned weights, drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = []
    for shape in [largest] if largest == "tiny" else ["minilm", "bert-base", "bert-large"]:
        compiled, arrays = refreshes(shape)
        compiled["local"]()
        count = sum(array.size for array in arrays)
        points.append((count, interleaved({"local": compiled["local"]}, 7)["local"]))
        print(f"{count:,} weights: {1e3 * points[-1][1]:.0f} ms", flush=True)
        if shape == largest:
            break
    counts, times = zip(*points)
    _, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    axes.loglog(counts, 1e3 * np.array(times), "o-", label="one exact local refresh")
    axes.loglog(counts, 1e3 * times[0] / counts[0] * np.array(counts), "--", label="linear")
    axes.set(xlabel="weights", ylabel="milliseconds")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    plt.savefig(figure, dpi=110)
    growth = (times[-1] / times[0]) / (counts[-1] / counts[0])
    table.add(f"time for each weight, {counts[-1]:,} weights / {counts[0]:,}", growth)


def measure_batches(table: Table, shape: str, rounds: int) -> None:
    """What batches of like lengths save in one epoch of the demo's sentences."""
    folder = minilm_folder(pathlib.Path("runs/cache"))
    encode = hugging_face_bert.encoder(str(folder), LENGTHS[-1])
    data = encoded(encode, *load_task("movie_reviews", None)["train"])
    steps = len(data) // BATCH
    batches = training_batches(data, BATCH, seed=0).take(steps)
    counts = collections.Counter(ids.shape[1] for ids, _ in batches)
    order = np.random.RandomState(0).permutation(len(data))[: steps * BATCH]
    sizes = np.array([len(data.ids[i]) for i in order]).reshape(steps, BATCH)

    lengths = sorted(counts)
    trained = trainer(shape, lengths, "hard")
    first = {length: seconds(trained.step) for length in lengths}
    times = interleaved(dict.fromkeys(lengths, trained.step), rounds)  # a step to each in turn
    longest = lengths[-1]
    mean = sum(counts[length] * times[length] for length in lengths) / steps
    what = f"batches of like lengths, {len(lengths)} programs"
    table.add(f"{what}: mean step / step at {BATCH} × {longest}", mean / times[longest])
    compilation = np.median([first[length] - times[length] for length in lengths[1:]])
    name = f"compilation of the program for another length / step at {BATCH} × {longest}"
    table.add(name, compilation / times[longest])
    programs = len(set(sizes.max(axis=1)))
    table.add("programs, where batches are padded to their longest sentence", programs)


def measure_others(table: Table, shape: str, length: int, rounds: int) -> None:
    """What has no target: tfmot, no XLA, several steps to an execution, half precision."""
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        prune,
        pruning_callbacks,
        pruning_schedule,
    )

    def functional(kind: str) -> Trainer:
        keras.utils.set_random_seed(0)
        model, callbacks = models.functional_classifier(shape, length), []
        if kind == "tfmot":  # on the same layers
            schedule = pruning_schedule.PolynomialDecay(0.0, 0.9, 0, STEPS, frequency=1)

            def wrap(layer):
                if layer.name == "classifier" or not isinstance(
                    layer, (keras.layers.Dense, keras.layers.MultiHeadAttention)
                ):
                    return layer
                return prune.prune_low_magnitude(layer, schedule)

            model = keras.models.clone_model(model, clone_function=wrap)
            callbacks = [pruning_callbacks.UpdatePruningStep()]
        elif kind != "dense":
            method = tf_movprune.HardMovement() if kind == "hard" else tf_movprune.Magnitude()
            schedule = cubic(tf_movprune.CubicSparsity, 0.9)
            model = tf_movprune.prune_low_movement(model, schedule, method)
            callbacks = [tf_movprune.UpdatePruningStep()]
        inputs, labels = models.random_batch(BATCH, length)
        # tfmot's masks are updated under conditions with assertions, which XLA cannot compile.
        dataset = taking_turns((inputs["input_ids"], labels))
        optimizer = keras.optimizers.Adam(3e-5)
        return Trainer(keras, model, callbacks, dataset, 2 * STEPS, optimizer=optimizer)

    def compare(name: str, trainers: dict[str, Trainer]) -> None:
        for each in trainers.values():
            each.step()
        times = interleaved({kind: each.step for kind, each in trainers.items()}, rounds)
        for kind in list(trainers)[1:]:
            table.add(f"{kind}: {name} / dense", times[kind] / times["dense"])

    where = f"step at {BATCH} × {length}"
    kinds = ("dense", "hard", "magnitude", "tfmot")
    compare(f"Functional model, graph mode, {where}", {kind: functional(kind) for kind in kinds})
    for name, arguments in (
        ("graph mode without XLA", {"jit_compile": False}),
        ("steps_per_execution=16", {"steps_per_execution": 16}),
    ):
        kinds = ("dense", "hard")
        trainers = {kind: trainer(shape, length, kind, **arguments) for kind in kinds}
        compare(f"{name}, {where}", trainers)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        trainers = {kind: trainer(shape, length, kind) for kind in ("dense", "hard")}
    finally:
        keras.mixed_precision.set_global_policy("float32")
    compare(f"mixed_bfloat16, {where}", trainers)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--shape", default="minilm", choices=models.SHAPES)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 64])
    parser.add_argument("--largest", default="bert-large", choices=models.SHAPES)
    parser.add_argument("--rounds", type=int, default=9, help="of which the median is taken")
    parser.add_argument("--output_dir", type=pathlib.Path, default=pathlib.Path("runs/speed"))
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of, args.shape, args.lengths[0])))
        return 0

    args.output_dir.mkdir(parents=True, exist_ok=True)
    table, longest = Table(), max(args.lengths)
    if "refresh" in args.only:
        measure_refreshes(table, args.shape, args.rounds)
    if "first" in args.only:
        measure_first_steps(table, args.shape, longest, min(3, args.rounds))
    if "step" in args.only:
        measure_steps(table, args.shape, args.lengths, args.rounds)
    if "keras3" in args.only:
        in_tf_keras = {kind: trainer(args.shape, longest, kind).step for kind in ("dense", "hard")}
        keras3_speed.measure(table, args.shape, BATCH, longest, STEPS, args.rounds, in_tf_keras)
    if "nan" in args.only:
        measure_checks(table, args.shape, args.lengths, args.rounds)
    if "memory" in args.only:
        measure_memory(table, args.shape, longest)
    if "scaling" in args.only:
        measure_scaling(table, args.largest, args.output_dir / "scaling.png")
    if "batches" in args.only:
        measure_batches(table, args.shape, args.rounds)
    if "others" in args.only:
        measure_others(table, args.shape, min(args.lengths), args.rounds)

    machine = f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}"
    today = datetime.date.today().isoformat()
    table.report(args.output_dir / "speed.md", f"{args.shape}, {today}, {machine}, seed 0.")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
