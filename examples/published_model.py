"""Takes a published pruned BERT for questions from PyTorch to TFLite, and asks it one.

python -m examples.published_model madlag/bert-base-uncased-squad1.1-block-sparse-0.20-v1
python -m examples.published_model FOLDER --keras 3 --quantization float32

The model is a folder with a PyTorch checkpoint, or a name on the Hugging Face hub. What is printed
last are sizes, and medians of calls on one thread that took turns: of the file that was written,
and of one of the model as it was loaded, with all its zeros.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import transformers
from ai_edge_litert.interpreter import Interpreter

import tf_movprune

QUESTION = "Where is the Eiffel Tower located?"
CONTEXT = (
    "The Eiffel Tower is a wrought-iron lattice tower on the Champ de Mars in Paris, France. It is "
    "named after the engineer Gustave Eiffel, whose company designed and built the tower."
)
NAMES = {  # of inputs, in the models of either Keras
    "2": ("input_ids", "attention_mask", "token_type_ids"),
    "3": ("token_ids", "padding_mask", "segment_ids"),
}


def main(argv: list[str] | None = None) -> str:
    """Loads, compacts, exports and asks. Returns the answer."""
    args = parse_arguments(argv)
    tokenizer = tokenizer_of(args.tokenizer or args.model)
    output = pathlib.Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    model = tf_movprune.load_pytorch(args.model, class_for(args.keras), threshold=args.threshold)
    print(f"loaded in {time.perf_counter() - start:.1f} s: {model.count_params():,} parameters")
    print(tf_movprune.summarize_sparsity(model))

    quantization = None if args.quantization == "float32" else args.quantization
    options = {"quantization": quantization, "sequence_length": args.sequence_length}
    loaded = tf_movprune.export_tflite(model, output / "loaded.tflite", shrink=False, **options)
    start = time.perf_counter()
    model = tf_movprune.compact(model)
    print(f"compacted in {time.perf_counter() - start:.1f} s: {model.count_params():,} parameters")
    small = tf_movprune.export_tflite(model, output / "model.tflite", **options)
    print(small)
    if tokenizer is None:
        print(f"{args.model} has no tokenizer, and no question was asked. Pass --tokenizer FOLDER.")
        return ""
    encoded = encode(tokenizer, args.question, args.context, args.sequence_length)
    inputs = dict(zip(NAMES[args.keras], encoded.values(), strict=True))
    runners = {report.path: runner(report.path) for report in (loaded, small)}
    times = seconds(runners, inputs, args.rounds)
    for report in (loaded, small):
        print(
            f"{report.path}: {report.bytes / 1e6:.1f} MB, {1e3 * times[report.path]:.1f} ms for "
            f"{args.sequence_length} tokens, {times[report.path] / times[loaded.path]:.2f} of the "
            "first"
        )
    answer = best_answer(tokenizer, encoded, runners[small.path](**inputs))
    print(f"{args.question} {answer!r}")
    return answer


def tokenizer_of(place: str) -> Any:
    """The tokenizer of a folder or of a name on the hub; None if it has none."""
    try:
        return transformers.AutoTokenizer.from_pretrained(place)
    except Exception:  # transformers fails in many ways if files are missing
        return None


def class_for(keras: str) -> Any:
    """The class of KerasHub for Keras 3; for tf_keras None, the one that the checkpoint names."""
    if keras == "2":
        return None
    import keras_hub

    return keras_hub.models.BertBackbone


def encode(tokenizer: Any, question: str, context: str, length: int) -> dict[str, np.ndarray]:
    encoded = tokenizer(
        question,
        context,
        max_length=length,
        truncation="only_second",
        padding="max_length",
        return_token_type_ids=True,
        return_tensors="np",
    )
    return {name: np.int32(encoded[name]) for name in NAMES["2"]}


def runner(path: pathlib.Path) -> Any:
    return Interpreter(model_path=str(path), num_threads=1).get_signature_runner()


def seconds(
    runners: Mapping[pathlib.Path, Any], inputs: Mapping[str, np.ndarray], rounds: int
) -> dict[pathlib.Path, float]:
    """The median time of each file, all of which take turns."""
    times: dict[pathlib.Path, list[float]] = {path: [] for path in runners}
    for _ in range(rounds):
        for path, run in runners.items():
            start = time.perf_counter()
            run(**inputs)
            times[path].append(time.perf_counter() - start)
    return {path: float(np.median(values)) for path, values in times.items()}


def best_answer(
    tokenizer: Any, encoded: Mapping[str, np.ndarray], logits: Mapping[str, np.ndarray]
) -> str:
    """The span of the context, of at most 15 tokens, whose two logits add up to most."""
    context = encoded["token_type_ids"][0].astype(bool) & encoded["attention_mask"][0].astype(bool)
    start, end = (
        np.where(context, logits[f"{side}_logits"][0], -np.inf) for side in ("start", "end")
    )
    lengths = np.arange(len(end)) - np.arange(len(start))[:, None]
    sums = np.where((lengths >= 0) & (lengths < 15), start[:, None] + end, -np.inf)
    first, last = np.unravel_index(np.argmax(sums), sums.shape)
    return tokenizer.decode(encoded["input_ids"][0, first : last + 1])


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a PyTorch checkpoint, or a name on the hub")
    parser.add_argument("--keras", choices=("2", "3"), default="2", help="Hugging Face or KerasHub")
    parser.add_argument("--threshold", type=float, help="if the checkpoint has scores")
    parser.add_argument("--tokenizer", help="folder or name of another tokenizer than the model's")
    parser.add_argument("--quantization", choices=("int8", "float16", "float32"), default="int8")
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--context", default=CONTEXT)
    parser.add_argument("--output_dir", default="runs/published_model")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, ValueError) as error:  # of what was asked for
        sys.exit(f"{type(error).__name__}: {error}")
