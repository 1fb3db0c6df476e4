"""Reading and tokenizing SQuAD, beside training steps on it.

    python -m benchmarks.tasks --data_dir squad_v1.1
    python -m benchmarks.tasks --data_dir squad_v1.1 --library transformers

`--data_dir` has train*.json and dev*.json. The model is MiniLM-L6, dense; steps are of 32 windows
of 384 tokens, compiled by XLA, and timed after the first ones.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from examples.downloads import minilm_folder
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.preparation import load_model, prepare
from tf_movprune.runs.pruning_setup import optimizer_of
from tf_movprune.runs.settings import LIBRARIES, TrainSettings
from tf_movprune.tasks.batches import training_dataset


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--library", choices=LIBRARIES, default="keras_hub")
    parser.add_argument("--steps", type=int, default=5, help="to time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:  # empty: nothing is read from an earlier run
        settings = TrainSettings(
            task="squad",
            data_dir=args.data_dir,
            model=str(minilm_folder(pathlib.Path("runs/cache"))),
            library=args.library,
            method="dense",
            lengths=(384,),
            cache_dir=cache,
            max_validation_examples=1,
        )
        began = time.perf_counter()
        prepared, model = prepare(settings)
        both = time.perf_counter() - began
    reading = both - _seconds(lambda: load_model(settings, prepared))  # which `prepare` does too
    shell = shell_of(args.library)
    shell.compile_for(model, "questions", optimizer_of(model, settings, 100, is_pruned=False), True)
    data = training_dataset(prepared.features["train"], prepared.plan)
    data = data.map(lambda x, y: (shell.inputs(model, x), shell.labels("questions", y)))
    model.fit(data, steps_per_epoch=2, shuffle=False, verbose=0)
    seconds = _seconds(
        lambda: model.fit(data, steps_per_epoch=args.steps, shuffle=False, verbose=0)
    )
    hundred = seconds / args.steps * 100
    print(
        f"{args.library}: {prepared.features['train'].description}\n"
        f"read, tokenized and cut into windows in {reading:.1f} s; 100 steps of 32 x 384 take "
        f"{hundred:.0f} s, {hundred / reading:.0f} times as long"
    )


def _seconds(action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
