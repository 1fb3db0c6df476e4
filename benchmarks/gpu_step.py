"""A train step with movement beside a dense one, and one refresh of masks, on a GPU.

    python -m benchmarks.gpu_step           # all of it, where TensorFlow or JAX sees a GPU
    python -m benchmarks.gpu_step export    # needs TensorFlow, and no GPU
    python -m benchmarks.gpu_step run       # needs a GPU, JAX and NumPy, and no TensorFlow
    python -m benchmarks.gpu_step --shape tiny --batch_size 4 --length 16 --dropout 0 \\
        --reference_steps 3 --copy_mib 16 --allow_cpu     # to see whether it runs

TensorFlow runs the programs where it sees a GPU. Elsewhere `export` writes the StableHLO text of
the same XLA programs, and how to draw their arguments; `run` compiles and runs them through JAX.
Both run one after the other, or on two machines, with `--output_dir` carried from one to the other.

Weights are random, those of all models the same, and training is in the middle of its schedule.
Prints a table of targets and measurements, and exits with 1 where one is missed. Every number is
from medians of measurements that took turns, each of ten steps.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from benchmarks.measuring import IN_A_ROW, Table, draw, interleaved

POLICIES = ("float32", "mixed_bfloat16")
STEP_TARGET = {"mixed_bfloat16": 1.05}
REFRESH_TARGET = 4.0  # times what it takes to read the scores once
MANIFEST = "programs.json"
LOSS_TOLERANCE = 0.01  # relative, of a GPU's loss to a CPU's
SMALL = 4096  # entries of the largest variable whose results are compared: of tiny models, all


# ---- programs


class JaxTraining:
    """A model's arguments as JAX arrays, and the programs that `export` wrote."""

    def __init__(self, folder: pathlib.Path, entry: dict):
        self.policy, self.variant = entry["policy"], entry["variant"]
        self.arguments = entry["arguments"]
        self.programs = {
            name: (compile_text(folder / program["file"]), program["takes"], program["gives"])
            for name, program in entry["programs"].items()
        }
        self.draw()

    def draw(self) -> None:
        """Sets all values to what is drawn for them."""
        import jax

        self.values = {a["name"]: jax.device_put(draw(**a)) for a in self.arguments}

    def call(self, name: str) -> None:
        executable, takes, gives = self.programs[name]
        found = executable.execute_sharded([self.values[taken] for taken in takes])
        for given, (value,) in zip(
            gives, found.disassemble_into_single_device_arrays(), strict=True
        ):
            self.values[given] = value

    def get(self, name: str) -> np.ndarray:
        return np.asarray(self.values[name])


def compile_text(file: pathlib.Path):
    from jax.extend.backend import get_backend
    from jaxlib.xla_client import CompileOptions, DeviceList

    backend, start = get_backend(), time.perf_counter()
    text = gzip.decompress(file.read_bytes()).decode()
    devices = DeviceList(tuple(backend.local_devices()[:1]))
    executable = backend.compile_and_load(text, devices, CompileOptions())
    print(f"Compiled {file.name} in {time.perf_counter() - start:.0f} s.", flush=True)
    return executable


def jax_copier(entries: int) -> Callable[[], object]:
    """Reads and writes a vector ten times."""
    import jax

    copy = jax.jit(lambda x: x + 1)
    vector = jax.random.normal(jax.random.key(0), [entries], "float32")

    def copies():
        for _ in range(IN_A_ROW):
            copied = copy(vector)
        copied.block_until_ready()

    return copies


def jax_device(allow_cpu: bool) -> str:
    import jax

    jax.config.update("jax_enable_x64", True)  # iterations are int64
    device = jax.devices()[0]
    if device.platform == "cpu" and not allow_cpu:
        raise RuntimeError("JAX sees no GPU. Pass --allow_cpu to see whether the programs run.")
    return f"{device.device_kind}, JAX {jax.__version__}"


# ---- measuring


def run_steps(training, refresh: str | None, count: int = IN_A_ROW) -> np.ndarray:
    """Trains, and waits for the last loss."""
    for _ in range(count):
        if refresh:
            training.call(refresh)
        training.call("step")
    return training.get("loss")


def run_refreshes(training) -> np.ndarray:
    for _ in range(IN_A_ROW):
        training.call("refresh")
    return training.get("sparsity")


def measure_steps(table: Table, policy: str, trainings: dict, rounds: int) -> None:
    ways = {"dense": (trainings["dense"], None)}
    for variant, training in trainings.items():
        if variant != "dense":
            ways[f"{variant}, refresh at each step"] = training, "refresh"
            ways[f"{variant}, refresh at each 10th step"] = training, "refresh every 10th"
    functions = {name: functools.partial(run_steps, *way) for name, way in ways.items()}
    for function in functions.values():
        function()
    times = interleaved(functions, rounds)
    dense = times.pop("dense")
    table.add(f"dense step, {policy}", 1e3 * dense / IN_A_ROW, unit=" ms")
    for name, seconds in times.items():
        table.add(f"{name}: step / dense step, {policy}", seconds / dense, STEP_TARGET.get(policy))


def measure_refresh(table: Table, training, copier: Callable, entries: int, rounds: int) -> None:
    """Against the time in which a copy, which reads and writes, moves as many bytes as scores."""
    scores = sum(math.prod(a["shape"]) for a in training.arguments if a["how"][0] == "scores")
    functions = {"refresh": functools.partial(run_refreshes, training), "copy": copier(entries)}
    for function in functions.values():
        function()
    times = interleaved(functions, rounds)
    table.add("bandwidth of a copy", 8 * entries * IN_A_ROW / times["copy"] / 1e9, unit=" GB/s")
    table.add(f"refresh of {scores:,} scores", 1e3 * times["refresh"] / IN_A_ROW, unit=" ms")
    read = times["copy"] * scores / (2 * entries)
    name = "refresh / reading the scores once at that bandwidth"
    table.add(name, times["refresh"] / read, REFRESH_TARGET)


def measure(table: Table, trainings_of: Callable[[str], dict], copier: Callable, args) -> None:
    for policy in args.policies:
        trainings = trainings_of(policy)
        measure_steps(table, policy, trainings, args.rounds)
        if policy == args.policies[0]:
            entries = args.copy_mib * 2**18
            pruned = next(t for variant, t in trainings.items() if variant != "dense")
            measure_refresh(table, pruned, copier, entries, args.rounds)


# ---- comparing


def results(training, entry: dict) -> dict[str, np.ndarray]:
    """The losses of a few steps, each after a refresh, and the small variables that changed."""
    refresh = "refresh" if "refresh" in training.programs else None
    losses = [run_steps(training, refresh, 1) for _ in range(entry["reference_steps"])]
    given = {name for program in entry["programs"].values() for name in program["gives"]}
    small = [a["name"] for a in entry["arguments"] if math.prod(a["shape"]) <= SMALL]
    return {
        "losses": np.array(losses),
        **{name: training.get(name) for name in small if name in given},
    }


def compare(got: dict[str, np.ndarray], want: dict[str, np.ndarray], what: str) -> None:
    """Prints the largest differences; raises where the losses are those of another training."""
    differences: dict[str, list] = {"losses": [0.0], "floats": [0.0], "masks": [0.0]}
    for name, value in want.items():
        kind = "losses" if name == "losses" else "masks" if value.dtype == bool else "floats"
        difference = np.abs(np.subtract(got[name], value, dtype=np.float64))
        differences[kind].append(difference.sum() if kind == "masks" else difference.max())
    print(
        f"{what}: {len(want['losses'])} steps differ from TensorFlow's on a CPU by up to "
        f"{np.max(differences['losses']):.1e} in the loss, {np.max(differences['floats']):.1e} in "
        f"{len(differences['floats']) - 1} small variables, and in "
        f"{np.sum(differences['masks']):.0f} entries of masks.",
        flush=True,
    )
    if not np.allclose(got["losses"], want["losses"], rtol=LOSS_TOLERANCE, atol=0):
        raise ValueError(f"Expected losses {want['losses']}, got {got['losses']}.")


# ---- the two parts


def export(args) -> None:
    # Indices of all weights are else written out in the text. TensorFlow reads this once, when it
    # is imported; where it runs the programs itself, they stay as they are.
    flags = os.environ.get("TF_XLA_FLAGS", "")
    os.environ["TF_XLA_FLAGS"] = f"{flags} --tf_xla_disable_constant_folding=true"
    from benchmarks import gpu_export

    entries = []
    for policy in args.policies:
        for variant in ("dense", *args.variants):
            training = gpu_export.TensorFlowTraining(*sizes(args), policy, variant, args.dropout)
            entry = training.write(args.output_dir)
            entry["reference_steps"] = args.reference_steps
            if args.reference_steps:
                reference = args.output_dir / f"{entry['prefix']}-reference.npz"
                np.savez_compressed(reference, **results(training, entry))
            entries.append(entry)
            print(f"Exported {variant}, {policy}.", flush=True)
    manifest = {"sizes": sizes(args), "entries": entries}
    (args.output_dir / MANIFEST).write_text(json.dumps(manifest))


def sizes(args) -> list:
    return [args.shape, args.batch_size, args.length]


def jax_trainings(args, policy: str) -> dict[str, JaxTraining]:
    """Of each variant, compared first where there is something to compare with."""
    manifest = json.loads((args.output_dir / MANIFEST).read_text())
    entries = [entry for entry in manifest["entries"] if entry["policy"] == policy]
    trainings = {entry["variant"]: JaxTraining(args.output_dir, entry) for entry in entries}
    for entry in entries:
        if entry["reference_steps"]:
            got = results(trainings[entry["variant"]], entry)
            np.savez_compressed(args.output_dir / f"{entry['prefix']}-results.npz", **got)
            want = dict(np.load(args.output_dir / f"{entry['prefix']}-reference.npz"))
            compare(got, want, f"{entry['variant']}, {policy}")
    return trainings


def run(args) -> list[str]:
    """Through JAX. Returns which targets are missed."""
    device, table = jax_device(args.allow_cpu), Table()
    manifest = json.loads((args.output_dir / MANIFEST).read_text())
    exported = {entry["policy"] for entry in manifest["entries"]}
    args.policies = [policy for policy in args.policies if policy in exported]
    measure(table, functools.partial(jax_trainings, args), jax_copier, args)
    return report(table, device, manifest["sizes"], args)


def run_with_tensorflow(args, device: str) -> list[str]:
    """The same, without a detour. Returns which targets are missed."""
    from benchmarks import gpu_export

    def trainings_of(policy: str) -> dict:
        return {
            variant: gpu_export.TensorFlowTraining(*sizes(args), policy, variant, args.dropout)
            for variant in ("dense", *args.variants)
        }

    table = Table()
    measure(table, trainings_of, gpu_export.copier, args)
    return report(table, device, sizes(args), args)


def report(table: Table, device: str, of_sizes: list, args) -> list[str]:
    shape, batch_size, length = of_sizes
    table.report(args.output_dir / "gpu_step.md", f"{shape}, {batch_size} × {length}, {device}.")
    return table.missed


def tensorflow_device() -> str | None:
    from benchmarks import gpu_export

    return gpu_export.device()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=["export", "run"], help="both unless given")
    parser.add_argument("--shape", default="bert-base", help="of benchmarks.models")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--variants", nargs="+", default=["hard"], choices=["hard", "plain SGD"])
    parser.add_argument("--reference_steps", type=int, default=0, help="to compare with a CPU's")
    parser.add_argument("--rounds", type=int, default=9, help="of which the median is taken")
    parser.add_argument("--copy_mib", type=int, default=1024, help="of the copy that is timed")
    parser.add_argument("--allow_cpu", action="store_true", help="run on a CPU without a GPU")
    parser.add_argument("--output_dir", type=pathlib.Path, default=pathlib.Path("runs/gpu_step"))
    args = parser.parse_args()
    if args.reference_steps and args.dropout:
        parser.error("--reference_steps needs --dropout 0: elsewhere each run drops other units.")

    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.part is None and (device := tensorflow_device()):
        return 1 if run_with_tensorflow(args, device) else 0
    if args.part is None:
        command = [sys.executable, "-m", "benchmarks.gpu_step", "export", *sys.argv[1:]]
        subprocess.run(command, check=True)
    if args.part == "export":
        export(args)
        return 0
    return 1 if run(args) else 0


if __name__ == "__main__":
    sys.exit(main())
