"""Folders of runs as a training writes them, without any training."""

import json

import numpy as np

TITLES = {
    "query": "attention.self_attention.query",
    "key": "attention.self_attention.key",
    "value": "attention.self_attention.value",
    "attention output": "attention.dense_output.dense",
    "intermediate": "intermediate.dense",
    "output": "bert_output.dense",
}

INFO = {
    "format": 1,
    "task": "sst2",
    "title": "SST-2",
    "model": "bert-base-uncased",
    "library": "keras_hub",
    "method": "hard",
    "structure": "weights",
    "final_sparsity": 0.9,
    "distilled": False,
    "seed": 3,
    "settings": {"learning_rate": 3e-5, "xla": True, "lengths": [16, 32], "teacher": None},
    "versions": {"tensorflow": "2.21.0"},
    "machine": "x86_64, 2 cores",
    "data": {"train": {"examples": 67349, "source": "train.tsv"}},
    "commands": ["tf-movprune train sst2 --output_dir runs/hard"],
    "started": "2026-01-01T10:00:00+00:00",
    "finished": "2026-01-01T11:00:00+00:00",
    "seconds": 3600.0,
    "main_metric": "accuracy",
    "metrics": {"accuracy": 0.873, "loss": 0.4},
    "remaining": 0.1,
    "sizes": [
        {"format": "dense float32", "bytes": 440e6, "parts": {"embeddings": 95e6, "layers": 345e6}},
        {"format": "compressed", "quantization": "int8", "bytes": 31e6, "gzip_bytes": 30e6},
        {"format": "bound int8", "bytes": 30e6},
    ],
    "latency": [{"format": "TFLite", "quantization": "int8", "milliseconds": 12.5}],
}


def history():
    lines = [{"step": 0, "sparsity": 0.0}]
    for step in range(10, 110, 10):
        sparsity = min(0.9, step / 80)
        line = {"step": step, "loss": 1 / step, "learning_rate": 1e-5, "sparsity": sparsity}
        lines.append({**line, "churn": 0.1})
        if step % 50 == 0:
            lines.append({"step": step, "metrics": {"val_accuracy": 0.8 + step / 2000}})
    return lines


def pruning(layers=2):
    random = np.random.RandomState(0)
    weights, scores = random.standard_normal(300), random.standard_normal(300) * 1e-4
    counts = random.randint(0, 50, 20).tolist()
    matrices = [
        {
            "path": f"bert.encoder.layer.{layer}.{end}.kernel",
            "layer": layer,
            "title": title,
            "shape": [64, 64],
            "remaining": 400 + 10 * layer,
            "total": 4096,
            "group": "HardMovement to sparsity 0.9",
            "agreement": 0.71,
        }
        for layer in range(layers)
        for title, end in TITLES.items()
    ]
    return {
        "format": 1,
        "step": 100,
        "remaining": sum(m["remaining"] for m in matrices),
        "total": sum(m["total"] for m in matrices),
        "matrices": matrices,
        "heads": [{"layer": i, "remaining": [0.05, 0.15, 0.0, 0.3]} for i in range(layers)],
        "neurons": [{"layer": i, "kept": 60 + i, "total": 64} for i in range(layers)],
        "groups": [
            {
                "name": "HardMovement to sparsity 0.9",
                "method": "HardMovement",
                "pieces": "weights",
                "kernels": 12,
                "entries": 49152,
                "kept": 4900,
                "shown": "layer 1, intermediate",
                "quantity": "score",
                "threshold": 1e-4,
                "histogram": {
                    "edges": np.linspace(-3e-4, 3e-4, 21).tolist(),
                    "kept": counts,
                    "pruned": counts[::-1],
                },
                "points": {
                    "weight_is": "weight",
                    "weight": weights.tolist(),
                    "score": scores.tolist(),
                    "kept": (scores > 1e-4).astype(int).tolist(),
                },
            }
        ],
        "agreement": 0.71,
        "churn": 1.0,
    }


def write_run(folder, info=INFO, lines=None, pruned=None, **changes):
    """Writes the files of a run; None or an empty object leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    if info is not None:
        (folder / "run.json").write_text(json.dumps({**info, **changes}, indent=1))
    lines = history() if lines is None else lines
    if lines:
        (folder / "history.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    pruned = pruning() if pruned is None else pruned
    if pruned:
        (folder / "pruning.json").write_text(json.dumps(pruned))
    return folder
