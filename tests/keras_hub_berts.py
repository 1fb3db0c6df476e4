"""KerasHub BERTs with the weights of Hugging Face's PyTorch layout."""

import keras
import keras_hub

EMBEDDINGS = {
    "token_embedding.embeddings": "word_embeddings.weight",
    "position_embedding.position_embeddings": "position_embeddings.weight",
    "segment_embedding.embeddings": "token_type_embeddings.weight",
    "embeddings_layer_norm.gamma": "LayerNorm.weight",
    "embeddings_layer_norm.beta": "LayerNorm.bias",
}
MATRICES = {
    "_self_attention_layer._query_dense": "attention.self.query",
    "_self_attention_layer._key_dense": "attention.self.key",
    "_self_attention_layer._value_dense": "attention.self.value",
    "_self_attention_layer._output_dense": "attention.output.dense",
    "_feedforward_intermediate_dense": "intermediate.dense",
    "_feedforward_output_dense": "output.dense",
}
NORMS = {
    "_self_attention_layer_norm": "attention.output.LayerNorm",
    "_feedforward_layer_norm": "output.LayerNorm",
}


def at(layer, path):
    for name in path.split("."):
        layer = getattr(layer, name)
    return layer


def sequence_classifier(config, weights):
    """A classifier on a backbone without dropout, with frozen embeddings.

    Returns the model, and its dense layers in blocks by the names of their matrices.
    """
    backbone = keras_hub.models.BertBackbone(
        config["vocab_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["hidden_size"],
        config["intermediate_size"],
        dropout=0.0,
        max_sequence_length=config["max_position_embeddings"],
        num_segments=config["type_vocab_size"],
    )
    classifier = keras.layers.Dense(len(config["id2label"]), name="classifier")
    inputs = backbone.input
    model = keras.Model(inputs, classifier(backbone(inputs)["pooled_output"]))

    def assign(variable, name):
        value = weights[name]
        is_kernel = name.endswith("weight") and "embeddings" not in name and value.ndim == 2
        variable.assign((value.T if is_kernel else value).reshape(variable.shape))

    def assign_dense(layer, name):
        assign(layer.kernel, f"{name}.weight")
        assign(layer.bias, f"{name}.bias")

    for path, name in EMBEDDINGS.items():
        layer, attribute = path.split(".")
        assign(getattr(backbone.get_layer(layer), attribute), f"bert.embeddings.{name}")
        backbone.get_layer(layer).trainable = False
    matrices = {}
    for i in range(config["num_hidden_layers"]):
        block, prefix = backbone.get_layer(f"transformer_layer_{i}"), f"bert.encoder.layer.{i}."
        block._feedforward_intermediate_dense.activation = keras.activations.gelu  # the exact one
        for path, name in MATRICES.items():
            matrices[prefix + name] = at(block, path)
            assign_dense(at(block, path), prefix + name)
        for path, name in NORMS.items():
            assign(at(block, path).gamma, f"{prefix}{name}.weight")
            assign(at(block, path).beta, f"{prefix}{name}.bias")
    assign_dense(backbone.get_layer("pooled_dense"), "bert.pooler.dense")
    assign_dense(classifier, "classifier")
    return model, matrices
