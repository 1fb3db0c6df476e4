"""Tiny models of Hugging Face families, with random weights."""

import tf_keras as keras

SIZES = {
    "vocab_size": 99,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
_BOTH = {
    "vocab_size": 99,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}
_GPT2 = {"vocab_size": 99, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
FAMILIES = {
    "Albert": ("TFAlbertForSequenceClassification", {**SIZES, "embedding_size": 8}),
    "Bart": ("TFBartForConditionalGeneration", _BOTH),
    "Bert": ("TFBertForSequenceClassification", SIZES),
    "BertDecoder": (
        "TFBertLMHeadModel",
        {**SIZES, "is_decoder": True, "add_cross_attention": True},
    ),
    "CTRL": ("TFCTRLLMHeadModel", {**_GPT2, "dff": 32}),
    "Deberta": ("TFDebertaForSequenceClassification", SIZES),
    "Funnel": (
        "TFFunnelForMaskedLM",
        {"vocab_size": 99, "d_model": 16, "block_sizes": [1, 1], "n_head": 2, "d_head": 8}
        | {"d_inner": 32, "num_decoder_layers": 1},
    ),
    "GPT2": ("TFGPT2LMHeadModel", _GPT2),
    "Lxmert": (
        "TFLxmertModel",
        {**SIZES, "l_layers": 1, "x_layers": 1, "r_layers": 1, "visual_feat_dim": 8},
    ),
    "Marian": ("TFMarianMTModel", {**_BOTH, "decoder_vocab_size": 99}),
    "T5": (
        "TFT5ForConditionalGeneration",
        {"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    ),
    "XLNet": (
        "TFXLNetForSequenceClassification",
        {"vocab_size": 99, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32},
    ),
}


def make(family, *, built=True):
    """A model of a family."""
    import transformers

    keras.utils.set_random_seed(0)
    name, config = FAMILIES[family]
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**config))
    if built:
        model(model.dummy_inputs)
    return model
