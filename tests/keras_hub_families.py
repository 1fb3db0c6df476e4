"""Tiny KerasHub models of many families, with random weights, and the matrices in their blocks."""

import keras
import keras_hub
import numpy as np
import pytest
from packaging.version import Version

saves_tasks = pytest.mark.skipif(
    Version(keras_hub.__version__) < Version("0.29"),
    reason="KerasHub before 0.29 saves no task without a preprocessor",
)

_SIZES = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
_TEXT = {**_SIZES, "max_sequence_length": 12}
_GROUPED = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
_EXPERTS = {**_GROUPED, "num_experts": 4, "top_k": 2, "moe_intermediate_dim": 8}
_ELECTRA = {name: size for name, size in _TEXT.items() if name != "vocabulary_size"}
_F_NET = {name: size for name, size in _TEXT.items() if name != "num_heads"}
_VIT = {
    "image_shape": (8, 8, 3),
    "patch_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "mlp_dim": 32,
}
_WHISPER = {
    **_SIZES,
    "num_mels": 4,
    "max_encoder_sequence_length": 8,
    "max_decoder_sequence_length": 12,
}
_RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64],
    "stackwise_num_blocks": [1],
    "stackwise_num_strides": [1],
    "block_type": "basic_block",
    "image_shape": (8, 8, 3),
}

SIZES = {
    "Bert": _TEXT,
    "Roberta": _TEXT,
    "XLMRoberta": _TEXT,
    "DistilBert": _TEXT,
    "DebertaV3": {**_TEXT, "bucket_size": 8},
    "Albert": {**_TEXT, "embedding_dim": 8},
    "Electra": {**_ELECTRA, "vocab_size": 50, "embedding_dim": 8},
    "GPT2": _TEXT,
    "OPT": _TEXT,
    "ViT": _VIT,
    "Gemma": {**_GROUPED, "head_dim": 4},
    "Gemma3": {**_GROUPED, "head_dim": 4, "image_size": 16, "vision_encoder": None},
    "Llama": _GROUPED,
    "Mistral": _GROUPED,
    "Phi3": _GROUPED,
    "Qwen": _GROUPED,
    "Qwen3": {**_GROUPED, "head_dim": 4},
    "T5": _SIZES,
    "Bart": _TEXT,
    "Whisper": _WHISPER,
    "FNet": _F_NET,
    "Mixtral": {**_GROUPED, "num_experts": 2},
    "QwenMoe": {**_EXPERTS, "shared_expert_intermediate_dim": 8},
    "Qwen3Moe": {**_EXPERTS, "head_dim": 4},
    "GptOss": {**_GROUPED, "num_experts": 4, "top_k": 2},
    "ResNet": _RESNET,
}


def _attention(layer, names="_{}_dense"):
    return [f"{layer}.{names.format(part)}" for part in ("query", "key", "value", "output")]


_SELF, _CROSS = _attention("_self_attention_layer"), _attention("_cross_attention_layer")
_MLP = ["_feedforward_intermediate_dense", "_feedforward_output_dense"]
_GATED_MLP = ["_feedforward_intermediate_dense", "_feedforward_gate_dense", _MLP[1]]
_T5_SELF = _attention("self_attention", "{}_projector")
_T5_CROSS = _attention("cross_attention", "{}_projector")
_T5_MLP = ["input_projector", "gate_projector", "output_projector"]
_GEMMA_MLP = ["gating_ffw", "gating_ffw_2", "ffw_linear"]


def _both(*parts):
    return {f"transformer_layer_{i}": [*parts] for i in range(2)}


def _encoder_and_decoder(encoder, decoder):
    return {f"transformer_encoder_layer_{i}": encoder for i in range(2)} | {
        f"transformer_decoder_layer_{i}": decoder for i in range(2)
    }


# The matrices of each block, as paths of layers: all that its family's default choice takes.
BLOCKS = {
    **dict.fromkeys(
        ["Bert", "Roberta", "XLMRoberta", "DistilBert", "Electra", "GPT2", "OPT"],
        _both(*_SELF, *_MLP),
    ),
    **dict.fromkeys(["Llama", "Mistral", "Qwen3"], _both(*_SELF, *_GATED_MLP)),
    **dict.fromkeys(["Bart", "Whisper"], _encoder_and_decoder(_SELF + _MLP, _SELF + _CROSS + _MLP)),
    "DebertaV3": {f"disentangled_attention_encoder_layer_{i}": _SELF + _MLP for i in range(2)},
    "Albert": {"group_0_inner_layer_0": _SELF + _MLP},
    "ViT": {
        f"vit_encoder.encoder_layers.{i}": [*_attention("mha"), "mlp.dense_1", "mlp.dense_2"]
        for i in range(2)
    },
    "Gemma": {
        f"decoder_block_{i}": _attention("attention", "{}_dense") + _GEMMA_MLP for i in range(2)
    },
    "T5": _encoder_and_decoder(_T5_SELF + _T5_MLP, _T5_SELF + _T5_CROSS + _T5_MLP),
    "FNet": {f"f_net_layer_{i}": ["_intermediate_dense", "_output_dense"] for i in range(2)},
    "Mixtral": _both(*_attention("_self_attention_layer", "{}_dense")),
}


def backbone(family, **changes):
    """A backbone of a family; skips the test if this KerasHub is older than the family."""
    keras.utils.set_random_seed(0)
    cls = getattr(keras_hub.models, f"{family}Backbone", None)
    if cls is None:
        pytest.skip(f"keras-hub {keras_hub.__version__} has no {family}.")
    return cls(**{**SIZES[family], **changes})


def draw(model, seed=0):
    """Weights and biases of a size at which every one of them counts."""
    random = np.random.RandomState(seed)
    for weight in model.weights:
        if "norm" not in weight.path and "float" in weight.dtype:
            weight.assign(random.normal(0, 0.3, weight.shape))


def inputs_of(model, batch=2, length=8):
    """Random inputs for a model."""
    random = np.random.RandomState(0)

    def make(name, spec):
        shape = [size or n for size, n in zip(spec.shape, (batch, length, None, None))]
        if "padding_mask" in name:
            return np.arange(length) < random.randint(length // 2, length + 1, [batch, 1])
        if "float" in spec.dtype:
            return random.standard_normal(shape).astype("float32")
        return random.randint(1, 2 if "segment" in name else 50, shape)

    if isinstance(model.input, dict):
        return {name: make(name, spec) for name, spec in model.input.items()}
    return make("", model.input)


def quick(*some, of):
    """All families as parameters of a test, with those that are not `some` marked as slow."""
    return [pytest.param(x, marks=() if x in some else pytest.mark.slow) for x in of]
