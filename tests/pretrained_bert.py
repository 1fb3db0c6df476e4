"""A tiny BERT in the files of a pretrained one, which both Kerases load."""

import pathlib

import numpy as np
import safetensors.numpy
import transformers


def write(folder: pathlib.Path, words: list[str], layers: int = 2, hidden: int = 32) -> str:
    """Writes a small BERT and its tokenizer, as the package of MiniLM holds them."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertConfig(
        architectures=["BertModel"],
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    ).save_pretrained(folder)
    weights = random_weights(len(vocabulary), hidden, layers, 64, 64)
    safetensors.numpy.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def random_weights(vocab_size, hidden, layers, intermediate, positions):
    """A BERT's weights in the layout of PyTorch, named as in the file of MiniLM."""
    random, weights = np.random.RandomState(0), {}

    def add(name, *shape):
        weights[f"{name}.weight"] = random.normal(0, 0.1, shape).astype(np.float32)

    def add_dense(name, outputs, inputs):
        add(name, outputs, inputs)
        weights[f"{name}.bias"] = random.normal(0, 0.1, outputs).astype(np.float32)

    def add_norm(name):
        weights[f"{name}.weight"] = np.ones(hidden, np.float32)
        weights[f"{name}.bias"] = np.zeros(hidden, np.float32)

    add("embeddings.word_embeddings", vocab_size, hidden)
    add("embeddings.position_embeddings", positions, hidden)
    add("embeddings.token_type_embeddings", 2, hidden)
    add_norm("embeddings.LayerNorm")
    for i in range(layers):
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            add_dense(f"encoder.layer.{i}.attention.{name}", hidden, hidden)
        add_norm(f"encoder.layer.{i}.attention.output.LayerNorm")
        add_dense(f"encoder.layer.{i}.intermediate.dense", intermediate, hidden)
        add_dense(f"encoder.layer.{i}.output.dense", hidden, intermediate)
        add_norm(f"encoder.layer.{i}.output.LayerNorm")
    add_dense("pooler.dense", hidden, hidden)
    return weights
