"""Checkpoints of PyTorch that several suites use."""

import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy

import tf_movprune

CHECKPOINTS = pathlib.Path(__file__).parent / "pytorch" / "checkpoints"
CLASSES = {
    "bert_questions": "BertBackbone",
    "bert_texts": "BertTextClassifier",
    "bert_tokens": "BertBackbone",
    "bert_without_heads": "BertBackbone",
    "distilbert_texts": "DistilBertTextClassifier",
    "roberta_texts": "RobertaTextClassifier",
}
"""Classes of KerasHub for the checkpoints that it has any for."""

NAMES = sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))
TARGETS = [(name, None) for name in NAMES] + [(name, "hub") for name in CLASSES]
"""Checkpoints, each for Hugging Face's TF classes, None, and for KerasHub."""


def hub_class(name):
    import keras_hub

    return getattr(keras_hub.models, CLASSES[name])


def load(name, target, **arguments):
    """Loads a checkpoint into one of `TARGETS`."""
    cls = hub_class(name) if target else None
    return tf_movprune.load_pytorch(CHECKPOINTS / name, cls, **arguments)


def logits(model, inputs=None):
    """The logits of a model of either Keras on the inputs of the checkpoints, by output."""
    inputs = dict(np.load(CHECKPOINTS / "inputs.npz")) if inputs is None else inputs
    ids, mask = np.int32(inputs["ids"]), np.int32(inputs["mask"])
    if hasattr(model, "config"):
        outputs = dict(model({"input_ids": ids, "attention_mask": mask}))
    else:
        features = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
        outputs = model({key: features[key] for key in model.input})
    if not isinstance(outputs, dict):
        outputs = {"logits": outputs}
    return np.stack([value for key, value in outputs.items() if key.endswith("logits")])


def expected(name):
    return np.load(CHECKPOINTS / name / "expected.npy")


def arrays(folder):
    """The tensors of a safetensors file, by name."""
    return safetensors.numpy.load_file(folder / "model.safetensors")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def config(name):
    return config_of(CHECKPOINTS / name)


def weights(name):
    """The tensors of a checkpoint in safetensors, by name."""
    return arrays(CHECKPOINTS / name)


def write(folder, arrays, values, metadata=None):
    """Writes a checkpoint of arrays and a configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(arrays, folder / "model.safetensors", metadata or {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def copied(name, folder):
    return pathlib.Path(shutil.copytree(CHECKPOINTS / name, folder))


def with_neurons(arrays, layer, kept):
    """Arrays of a BERT without some of the neurons of a layer."""
    block = f"bert.encoder.layer.{layer}."
    changed = dict(arrays)
    for part in ("weight", "bias"):
        name = f"{block}intermediate.dense.{part}"
        changed[name] = arrays[name][kept]
    name = f"{block}output.dense.weight"
    changed[name] = arrays[name][:, kept]
    return changed
