"""Models of real shapes with random weights, for what does not depend on the values."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras
import transformers

SHAPES = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}


def bert_config(shape: str, **kwargs) -> transformers.BertConfig:
    sizes = SHAPES[shape]
    return transformers.BertConfig(
        **sizes, intermediate_size=4 * sizes["hidden_size"], num_labels=2, **kwargs
    )


def bert_classifier(shape: str, **kwargs) -> transformers.TFPreTrainedModel:
    """A BERT with frozen embeddings, built."""
    keras.utils.set_random_seed(0)
    model = transformers.TFBertForSequenceClassification(bert_config(shape, **kwargs))
    model(model.dummy_inputs)
    model.bert.embeddings.trainable = False
    return model


def kernel_shapes(shape: str) -> list[tuple[int, int]]:
    """Shapes of the encoder's matrices."""
    hidden, layers = SHAPES[shape]["hidden_size"], SHAPES[shape]["num_hidden_layers"]
    return [*[(hidden, hidden)] * 4, (hidden, 4 * hidden), (4 * hidden, hidden)] * layers


def functional_classifier(shape: str, length: int, vocabulary: int = 30522) -> keras.Model:
    """The same encoder as a Functional Keras model, which tfmot can prune."""
    sizes = SHAPES[shape]
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    ids = keras.Input([length], dtype=tf.int32, name="input_ids")
    embeddings = keras.layers.Embedding(vocabulary, hidden, trainable=False)(ids)
    states = keras.layers.LayerNormalization(trainable=False)(embeddings)
    for _ in range(sizes["num_hidden_layers"]):
        attention = keras.layers.MultiHeadAttention(heads, hidden // heads)(states, states)
        states = keras.layers.LayerNormalization()(keras.layers.Add()([states, attention]))
        inner = keras.layers.Dense(4 * hidden, activation="gelu")(states)
        inner = keras.layers.Dense(hidden)(inner)
        states = keras.layers.LayerNormalization()(keras.layers.Add()([states, inner]))
    pooled = keras.layers.GlobalAveragePooling1D()(states)
    logits = keras.layers.Dense(2, name="classifier")(pooled)
    return keras.Model(ids, logits)


def random_batch(batch_size: int, length: int, vocabulary: int = 30522, seed: int = 0):
    """Inputs and labels of one batch."""
    random = tf.random.Generator.from_seed(seed)
    ids = random.uniform([batch_size, length], 1000, vocabulary, tf.int32)
    labels = random.uniform([batch_size], 0, 2, tf.int32)
    return {"input_ids": ids, "attention_mask": tf.ones_like(ids)}, labels
