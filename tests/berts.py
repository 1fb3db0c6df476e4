"""Tiny Hugging Face models that several suites use."""

import numpy as np
import tf_keras as keras

import tf_movprune


def bert(**changes):
    """A dense BERT classifier of two layers; `changes` are of its configuration."""
    import transformers

    keras.utils.set_random_seed(0)
    config = transformers.BertConfig(
        **{
            "vocab_size": 99,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 40,
            "initializer_range": 0.3,
            **changes,
        }
    )
    model = transformers.TFBertForSequenceClassification(config)
    model(np.ones([1, 4], np.int32))
    return model


def stripped_bert(**changes):
    """A BERT classifier whose encoder was pruned to 10 % by magnitude, without wrappers."""
    model = bert(**changes)
    schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=2)
    tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 2)
    return tf_movprune.strip_pruning(model)
