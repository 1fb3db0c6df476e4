"""Places of matrices, by their paths in models of both Kerases."""

import pytest

from tf_movprune.core.matrix_places import place_of


@pytest.mark.parametrize(
    "path, place",
    [
        ("bert.encoder.layer.3.attention.self_attention.query.kernel", (3, "query")),
        ("bert.encoder.layer.0.attention.dense_output.dense.kernel", (0, "attention output")),
        ("bert.encoder.layer.11.intermediate.dense.kernel", (11, "intermediate")),
        ("bert.encoder.layer.1.bert_output.dense.kernel", (1, "output")),
        ("distilbert.transformer.layer.2.attention.v_lin.kernel", (2, "value")),
        ("distilbert.transformer.layer.2.attention.out_lin.kernel", (2, "attention output")),
        ("distilbert.transformer.layer.2.ffn.lin1.kernel", (2, "intermediate")),
        (
            "bert_backbone_1.transformer_layer_5._self_attention_layer._key_dense.kernel",
            (5, "key"),
        ),
        (
            "transformer_layer_0._self_attention_layer._output_dense.kernel",
            (0, "attention output"),
        ),
        ("transformer_layer_0._feedforward_intermediate_dense.kernel", (0, "intermediate")),
        (
            "disentangled_attention_encoder_layer_4._feedforward_output_dense.kernel",
            (4, "output"),
        ),
        ("decoder.block.1.layer.0.SelfAttention.q.kernel", (1, "decoder query")),
        ("layer_2.query.kernel", (2, "query")),
        ("blocks.0.up.kernel", (None, "blocks.0.up.kernel")),
        ("attention.query.kernel", (None, "attention.query.kernel")),
        ("first.kernel", (None, "first.kernel")),
    ],
)
def test_place_of(path, place):
    assert tuple(place_of(path)) == place
    assert place_of(path.removesuffix(".kernel")).layer == place[0]
