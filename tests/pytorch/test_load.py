"""Checkpoints of PyTorch compute in both Kerases what they compute in PyTorch."""

import json
import sys
import types

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints
import transformers
from pytorch_checkpoints import TARGETS, load, with_neurons

import tf_movprune


@pytest.mark.parametrize(("name", "target"), TARGETS)
def test_outputs_are_those_of_pytorch(name, target):
    model = load(name, target)
    np.testing.assert_allclose(checkpoints.logits(model), checkpoints.expected(name), atol=1e-5)


def test_the_class_is_the_one_that_the_checkpoint_names_or_its_head_tells(tmp_path):
    values = checkpoints.config("bert_tokens")
    del values["architectures"]
    folder = checkpoints.write(tmp_path / "a", checkpoints.weights("bert_tokens"), values)
    assert type(tf_movprune.load_pytorch(folder)) is transformers.TFBertForTokenClassification


def test_removed_heads_are_gone_and_named():
    model = load("bert_without_heads", None)
    assert model.config.pruned_heads == {0: [0, 2], 1: [1]}
    assert [
        layer.attention.self_attention.num_attention_heads for layer in model.bert.encoder.layer
    ] == [2, 3]


@pytest.mark.parametrize("target", [None, "hub"])
def test_numbers_of_neurons_are_those_of_the_shapes(tmp_path, target):
    arrays = checkpoints.weights("bert_questions")
    name = "bert.encoder.layer.1.output.dense.weight"
    arrays[name][:, [0, 5]] = 0
    whole = checkpoints.write(tmp_path / "whole", arrays, checkpoints.config("bert_questions"))
    kept = np.setdiff1d(np.arange(24), [0, 5])
    cut = with_neurons(arrays, 1, kept)
    folder = checkpoints.write(tmp_path / "cut", cut, checkpoints.config("bert_questions"))
    cls = checkpoints.hub_class("bert_questions") if target else None
    model, reference = (tf_movprune.load_pytorch(path, cls) for path in (folder, whole))
    np.testing.assert_allclose(checkpoints.logits(model), checkpoints.logits(reference), atol=1e-5)
    assert reference.count_params() - model.count_params() == 2 * (16 + 1 + 16)


def test_names_of_a_bare_encoder_and_of_old_normalisations_are_known(tmp_path):
    arrays = checkpoints.weights("bert_tokens")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in arrays.items()
    }
    bare = {
        name.removeprefix("bert."): value for name, value in old.items() if name.startswith("bert.")
    }
    bare["embeddings.position_ids"] = np.arange(16)[None]
    bare["pooler.dense.weight"] = np.zeros([16, 16], np.float32)
    bare["pooler.dense.bias"] = np.zeros([16], np.float32)
    values = {**checkpoints.config("bert_tokens"), "architectures": ["BertModel"]}
    folder = checkpoints.write(tmp_path / "a", bare, values)
    whole = load("bert_tokens", None)
    inputs = {"input_ids": np.arange(10).reshape(2, 5)}
    found = tf_movprune.load_pytorch(folder)(inputs).last_hidden_state
    np.testing.assert_array_equal(found, whole.bert(inputs).last_hidden_state)


def test_converters_of_keras_hub_may_name_old_normalisations(monkeypatch):
    """That of BERT did so in KerasHub 0.19."""
    from tf_movprune.keras3 import pytorch_weights

    def converter_of(kind):
        def convert_weights(backbone, loader, config):
            def port_weight(keras_variable, hf_weight_key, hook_fn=None):
                start, norm, end = hf_weight_key.rpartition("LayerNorm.")
                end = {"weight": "gamma", "bias": "beta"}[end] if norm else end
                loader.port_weight(keras_variable, start + norm + end, hook_fn)

            old = types.SimpleNamespace(get_tensor=loader.get_tensor, port_weight=port_weight)
            original(kind).convert_weights(backbone, old, config)

        return types.SimpleNamespace(convert_weights=convert_weights)

    original = pytorch_weights.converter_of
    monkeypatch.setattr(pytorch_weights, "converter_of", converter_of)
    model = load("bert_texts", "keras_hub")
    expected = checkpoints.expected("bert_texts")
    np.testing.assert_allclose(checkpoints.logits(model), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_precisions_are_read(tmp_path, dtype):
    import ml_dtypes  # registers bfloat16

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    arrays = {k: v.astype(kind) for k, v in checkpoints.weights("bert_questions").items()}
    rounded = {k: v.astype("float32") for k, v in arrays.items()}
    values = checkpoints.config("bert_questions")
    models = [
        tf_movprune.load_pytorch(checkpoints.write(tmp_path / key, those, values))
        for key, those in (("a", arrays), ("b", rounded))
    ]
    np.testing.assert_array_equal(*map(checkpoints.logits, models))


@pytest.mark.parametrize("target", [None, "hub"])
def test_large_tables_are_assigned_piece_by_piece(monkeypatch, target):
    monkeypatch.setattr("tf_movprune.core.ported_weight.LARGE", 100)
    model = load("bert_questions", target)
    expected = checkpoints.expected("bert_questions")
    np.testing.assert_allclose(checkpoints.logits(model), expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("target", [None, "hub"])
def test_mixed_precision(monkeypatch, target, policy):
    keras = __import__("keras" if target else "tf_keras")
    monkeypatch.setattr("tf_movprune.core.ported_weight.LARGE", 100)
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = load("bert_questions", target)
        found = np.float32(checkpoints.logits(model))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = checkpoints.expected("bert_questions")
    np.testing.assert_allclose(found, expected, atol=0.1 if policy == "mixed_float16" else 0.5)
    assert all(weight.dtype in ("float32", np.float32) for weight in model.weights)


def test_keras_hub_has_the_dropout_and_segments_of_the_configuration(tmp_path):
    arrays = checkpoints.weights("bert_tokens")
    name = "bert.embeddings.token_type_embeddings.weight"
    arrays[name] = np.concatenate([arrays[name], arrays[name][:1]])
    config = checkpoints.config("bert_tokens")
    config |= {"type_vocab_size": 3, "hidden_dropout_prob": 0.2, "classifier_dropout": 0.4}
    folder = checkpoints.write(tmp_path / "a", arrays, config)
    model = tf_movprune.load_pytorch(folder, checkpoints.hub_class("bert_tokens"))
    (backbone,) = (layer for layer in model.layers if "backbone" in layer.name)
    assert backbone.dropout == 0.2
    assert backbone.get_layer("segment_embedding").embeddings.shape[0] == 3
    assert model.get_layer("classifier_dropout").rate == 0.4
    assert not backbone.pooled_dense.trainable  # nothing reads it


def test_a_head_is_known_without_an_architecture_in_keras_hub(tmp_path):
    texts = checkpoints.config("bert_texts")
    del texts["architectures"]
    folder = checkpoints.copied("bert_texts", tmp_path / "texts")
    (folder / "config.json").write_text(json.dumps(texts))
    model = tf_movprune.load_pytorch(folder, checkpoints.hub_class("bert_texts"))
    np.testing.assert_allclose(
        checkpoints.logits(model), checkpoints.expected("bert_texts"), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"Pass keras_hub\.models\.BertTextClassifier"):
        tf_movprune.load_pytorch(folder, checkpoints.hub_class("bert_tokens"))


def test_a_token_classifier_with_a_pooler_is_no_text_classifier(tmp_path):
    arrays = checkpoints.weights("bert_tokens")
    arrays["bert.pooler.dense.weight"] = np.eye(16, dtype="float32")
    arrays["bert.pooler.dense.bias"] = np.zeros(16, "float32")
    folder = checkpoints.write(tmp_path / "a", arrays, checkpoints.config("bert_tokens"))
    with pytest.raises(ValueError, match=r"something else \(ForTokenClassification\)"):
        tf_movprune.load_pytorch(folder, checkpoints.hub_class("bert_texts"))


@pytest.mark.parametrize("name", ["gelu_pytorch_tanh", "gelu_new", "gelu_python"])
def test_other_names_of_activations_are_known_to_both(tmp_path, name):
    values = {**checkpoints.config("bert_questions"), "hidden_act": name}
    folder = checkpoints.write(tmp_path / "a", checkpoints.weights("bert_questions"), values)
    models = [
        tf_movprune.load_pytorch(folder, cls)
        for cls in (None, checkpoints.hub_class("bert_questions"))
    ]
    found = [checkpoints.logits(model) for model in models]
    np.testing.assert_allclose(*found, atol=1e-5)
    is_exact = np.allclose(found[0], checkpoints.expected("bert_questions"), atol=1e-5)
    assert is_exact == (name == "gelu_python")


# ---- what is refused


@pytest.fixture
def changed(tmp_path):
    """A function that writes the checkpoint of questions with changes, and loads it."""

    def write(arrays=(), config=(), *, without=(), **arguments):
        tensors = {**checkpoints.weights("bert_questions"), **dict(arrays)}
        for name in without:
            del tensors[name]
        values = {**checkpoints.config("bert_questions"), **dict(config)}
        folder = checkpoints.write(tmp_path / "changed", tensors, values)
        return tf_movprune.load_pytorch(folder, **arguments)

    return write


QUERY = "bert.encoder.layer.0.attention.self.query"
POSITIONS = "bert.embeddings.position_embeddings.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["qa_outputs.bias"]}, r"missing qa_outputs\.bias"),
        ({"arrays": {"cls.more": np.zeros(2)}}, r"unexpected cls\.more"),
        ({"without": [f"{QUERY}.weight"]}, r"must have a matrix 'bert\.encoder\.layer\.0\."),
        (
            {"arrays": {f"{QUERY}.bias": np.zeros(8, np.float32)}},
            r"of another shape bert\.encoder\.layer\.0\.attention\.self\.query\.bias \(8,\) instea",
        ),
        (
            {"arrays": {"qa_outputs.weight": np.zeros([16, 2], np.float32)}},
            r"qa_outputs\.weight \(16, 2\) instead of \(2, 16\)",
        ),
        ({"config": {"layer_norm_type": "no_norm"}}, r"another normalisation .*'no_norm'"),
        ({"config": {"position_embedding_type": "relative_key"}}, r"absolute positions"),
        ({"config": {"is_decoder": True}}, r"is_decoder=True"),
        ({"config": {"model_type": "gpt2"}}, r"model_type .*got 'gpt2'"),
        ({"config": {"pruned_heads": {"0": [1]}}}, r"removes 1 of 4 heads .*has 4 heads"),
        ({"config": {"pruned_heads": {"7": [1]}}}, r"pruned_heads .*layers below 2"),
        ({"config": {"pruned_heads": {"0": [4]}}}, r"heads below 4"),
        ({"config": {"pruned_heads": [1]}}, r"must map layers"),
        ({"config": {"num_attention_heads": 3}}, r"hidden_size 16 in config.json is no multiple"),
        ({"config": {"hidden_size": "16"}}, r"hidden_size .*positive integer, got '16'"),
        (
            {"config": {"vocab_size": 10**12}},
            r"\(30, 16\), and vocab_size is 10{12}",
        ),
        ({"config": {"max_position_embeddings": 10**12}}, r"position_embeddings.*10{12}"),
        ({"config": {"type_vocab_size": 10**12}}, r"token_type_embeddings.*10{12}"),
        ({"config": {"hidden_size": 4 * 10**9}}, r"must read hidden_size 4000000000 numbers"),
        ({"config": {"num_hidden_layers": 10**9}}, r"layer 2 of 1000000000"),
        ({"arrays": {f"{QUERY}.ampere_module.x": np.zeros(2)}}, r"ampere masks"),
        ({"arrays": {f"{QUERY}.rewind_mask": np.zeros(2)}}, r"rewind masks"),
        ({"config": {"num_labels": 10**8}}, r"qa_outputs\.weight .*num_labels is 100000000"),
        ({"config": {"id2label": {"0": "a"}}}, r"qa_outputs\.weight .*id2label is 1"),
        ({"config": {"embedding_size": 10**8}}, r"word_embeddings.*embedding_size is 100000000"),
        ({"without": [POSITIONS]}, r"must have 'bert\.embeddings\.position_embeddings\.weight'"),
        ({"config": {"hidden_act": "x"}}, r"hidden_act .*must be one of .*got 'x'"),
        ({"config": {"torch_dtype": []}}, r"makes no model of its weights"),
        ({"config": {"layer_norm_eps": "1e-12"}}, r"makes no model of its weights"),
        (
            {"arrays": {"bert.embeddings.LayerNorm.gamma": np.ones(16, np.float32)}},
            r"'bert\.embeddings\.LayerNorm\.weight' twice",
        ),
        ({"arrays": {f"{QUERY}.bias": np.zeros(16, np.int8)}}, r"another type .*query\.bias int8"),
        ({"threshold": 0.5}, r"no scores"),
        ({"masks": True}, r"KeepZeros"),
        ({"pruning_schedule": 1}, r"masks=True"),
        ({"config": {"model_type": "masked_bert", "pruning_method": "topK"}}, r"nor zeros"),
    ],
)
def test_refusals(changed, changes, message):
    with pytest.raises(ValueError, match=message):
        changed(**changes)


@pytest.mark.parametrize("target", [None, "hub"])
def test_positions_that_begin_elsewhere_are_refused(tmp_path, target):
    folder = checkpoints.copied("roberta_texts", tmp_path / "a")
    values = {**checkpoints.config("roberta_texts"), "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(values))
    cls = checkpoints.hub_class("roberta_texts") if target else None
    with pytest.raises(ValueError, match=r"must pad with token 1, .*got pad_token_id 0"):
        tf_movprune.load_pytorch(folder, cls)
    model = load("roberta_texts", None)
    model.config.pad_token_id = 0
    with pytest.raises(ValueError, match=r"padded with token 1 .*pad_token_id=0"):
        tf_movprune.save_pytorch(model, tmp_path / "b")


@pytest.mark.parametrize("target", [None, "hub"])
def test_other_names_of_sizes_are_taken_unless_they_disagree(tmp_path, target):
    cls = checkpoints.hub_class("distilbert_texts") if target else None
    folder = checkpoints.copied("distilbert_texts", tmp_path / "a")
    values = checkpoints.config("distilbert_texts")
    values["num_attention_heads"] = values.pop("n_heads")
    (folder / "config.json").write_text(json.dumps(values))
    found = checkpoints.logits(tf_movprune.load_pytorch(folder, cls))
    np.testing.assert_allclose(found, checkpoints.expected("distilbert_texts"), atol=1e-5)
    for alias, key, value in (("num_attention_heads", "n_heads", 2), ("hidden_size", "dim", 10**9)):
        values = {**checkpoints.config("distilbert_texts"), alias: value}
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(ValueError, match=rf"says {key} .* and {alias} {value}, which are the"):
            tf_movprune.load_pytorch(folder, cls)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", "\xff"])
@pytest.mark.parametrize("name", ["config.json", "sparse_args.json"])
def test_files_that_are_no_objects_are_refused(tmp_path, name, text):
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name} (is no JSON file|must hold a JSON object)"):
        tf_movprune.load_pytorch(folder)


@pytest.mark.parametrize(
    "places",
    [
        {"a": "../a.bin"},
        {"a": "none.bin"},
        {"a": "pytorch_model.bin.index.json"},
        {"a": "x" * 300},
        {"a": 3},
        [],
        {"a": "pytorch_model-00001-of-00002.bin"},
    ],
)
def test_indices_that_do_not_fit_their_files_are_refused(tmp_path, places):
    folder = checkpoints.copied("bert_texts", tmp_path / "a")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ValueError, match=r"not beside it|no weight_map|do not agree"):
        tf_movprune.load_pytorch(folder)


def test_names_that_older_keras_wrote_as_bytes_are_read(tmp_path):
    import h5py

    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    tf_movprune.load_pytorch(folder).save_weights(folder / "tf_model.h5")
    with h5py.File(folder / "tf_model.h5", "a") as file:
        for group, key in [(file, "layer_names"), *((file[x], "weight_names") for x in file)]:
            if key in group.attrs:
                group.attrs[key] = np.array([str(x).encode() for x in group.attrs[key]])
    found = checkpoints.logits(tf_movprune.load_pytorch(folder, weights="tf"))
    np.testing.assert_allclose(found, checkpoints.expected("bert_questions"), atol=1e-5)


@pytest.mark.parametrize("damage", ["names", "group", "outside"])
def test_odd_files_of_tf_classes_are_refused(tmp_path, damage):
    import h5py

    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    tf_movprune.load_pytorch(folder).save_weights(folder / "tf_model.h5")
    with h5py.File(folder / "tf_model.h5", "a") as file:
        group = file["bert"]
        name = group.attrs["weight_names"][0]
        if damage == "names":
            file.attrs["layer_names"] = 3
        else:
            shape = group[name].shape
            del group[name]
            if damage == "group":
                group.create_group(name)
            else:
                place = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
                group.create_dataset(name, shape, "float32", external=place)
    with pytest.raises(ValueError, match=r"no file of weights of a TF class"):
        tf_movprune.load_pytorch(folder, weights="tf")
    with pytest.warns(UserWarning, match=r"could not be compared with tf_model\.h5"):
        tf_movprune.load_pytorch(folder)


@pytest.mark.parametrize(
    ("cls", "message"),
    [("BertTextClassifier", r"classifies texts"), ("RobertaBackbone", r"is a bert, which Rob")],
)
def test_classes_of_keras_hub_that_do_not_fit_are_refused(cls, message):
    import keras_hub

    with pytest.raises(ValueError, match=message):
        tf_movprune.load_pytorch(
            checkpoints.CHECKPOINTS / "bert_questions", getattr(keras_hub.models, cls)
        )


def test_what_keras_hub_computes_otherwise_is_refused(tmp_path):
    cls = checkpoints.hub_class("bert_questions")
    arrays = checkpoints.weights("bert_questions")
    for key, value, message in [
        ("hidden_act", "mish", r"activation .*got 'mish'"),
        ("layer_norm_eps", 1e-5, r"layer_norm_eps .*1e-05"),
    ]:
        values = {**checkpoints.config("bert_questions"), key: value}
        folder = checkpoints.write(tmp_path / key, arrays, values)
        with pytest.raises(ValueError, match=message):
            tf_movprune.load_pytorch(folder, cls)


def test_classes_of_no_known_models_are_refused():
    import keras
    import tf_keras

    folder = checkpoints.CHECKPOINTS / "bert_questions"
    import keras_hub

    abstract = keras_hub.models.TextClassifier
    for cls in (dict, keras.Sequential, tf_keras.Sequential, "TFBertModel", abstract):
        with pytest.raises(TypeError, match=r"model_class must be"):
            tf_movprune.load_pytorch(folder, cls)


def test_folders_without_a_checkpoint_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"There is no folder"):
        tf_movprune.load_pytorch(tmp_path / "none")
    with pytest.raises(ValueError, match=r"must be a folder with config\.json .* nothing"):
        tf_movprune.load_pytorch(tmp_path)
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    with pytest.raises(ValueError, match=r"and tf_model\.h5; there is .*model\.safetensors"):
        tf_movprune.load_pytorch(folder, weights="tf")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        tf_movprune.load_pytorch(folder)


# ---- two files


@pytest.mark.parametrize("target", [None, "hub"])
def test_files_of_different_functions_are_told_of(tmp_path, target):
    cls = checkpoints.hub_class("bert_without_heads") if target else None
    folder = checkpoints.copied("bert_without_heads", tmp_path / "a")
    whole = tf_movprune.load_pytorch(checkpoints.CHECKPOINTS / "bert_questions")
    whole.save_weights(folder / "tf_model.h5")
    with pytest.warns(UserWarning, match=r"tf_model\.h5 .* are different functions.*head 0 of la"):
        model = tf_movprune.load_pytorch(folder, cls)
    bin_logits = checkpoints.expected("bert_without_heads")
    np.testing.assert_allclose(checkpoints.logits(model), bin_logits, atol=1e-5)
    for weights, wanted in (("pytorch", "bert_without_heads"), ("tf", "bert_questions")):
        model = tf_movprune.load_pytorch(folder, cls, weights=weights)
        np.testing.assert_allclose(
            checkpoints.logits(model), checkpoints.expected(wanted), atol=1e-5
        )


@pytest.mark.parametrize("which", ["weight", "bias"])
def test_heads_that_only_one_file_has_may_do_nothing(tmp_path, recwarn, which):
    """Without values, or with a bias of values alone, in the file that has them."""
    folder = checkpoints.copied("bert_without_heads", tmp_path / "a")
    model = load("bert_without_heads", None)
    tf_movprune.save_pytorch(model, tmp_path / "whole")
    arrays = checkpoints.arrays(tmp_path / "whole")
    for name in ("query", "key"):
        arrays[f"bert.encoder.layer.0.attention.self.{name}.weight"][:4] = 1
    arrays["bert.encoder.layer.0.attention.output.dense.weight"][:, :4] = 1
    if which == "bias":
        arrays["bert.encoder.layer.0.attention.self.value.bias"][:4] = 1
    config = checkpoints.config_of(tmp_path / "whole")
    whole = tf_movprune.load_pytorch(checkpoints.write(tmp_path / "b", arrays, config))
    whole.save_weights(folder / "tf_model.h5")
    recwarn.clear()
    tf_movprune.load_pytorch(folder)
    warned = [str(w.message) for w in recwarn if "different functions" in str(w.message)]
    assert len(warned) == (which == "bias")


def test_files_of_one_function_are_not(tmp_path, recwarn):
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    tf_movprune.load_pytorch(folder).save_weights(folder / "tf_model.h5")
    tf_movprune.load_pytorch(folder)
    arrays = checkpoints.weights("bert_questions")
    arrays["qa_outputs.bias"] += 1e-3
    checkpoints.write(folder, arrays, checkpoints.config("bert_questions"))
    assert not [warning for warning in recwarn if "different" in str(warning.message)]
    with pytest.warns(UserWarning, match=r"differ in 'qa_outputs\.bias'"):
        tf_movprune.load_pytorch(folder)


def test_without_transformers_keras_hub_loads_and_says_what_it_did_not_compare(
    tmp_path, monkeypatch
):
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    tf_movprune.load_pytorch(folder).save_weights(folder / "tf_model.h5")
    monkeypatch.setitem(sys.modules, "transformers", None)
    cls = checkpoints.hub_class("bert_questions")
    with pytest.warns(UserWarning, match=r"not be compared with tf_model\.h5: .*Install it"):
        model = tf_movprune.load_pytorch(folder, cls)
    expected = checkpoints.expected("bert_questions")
    np.testing.assert_allclose(checkpoints.logits(model), expected, atol=1e-5)
    with pytest.raises(ImportError, match=r"transformers from 4\.46 to 4\.54"):
        tf_movprune.load_pytorch(folder, cls, weights="tf")
    with pytest.raises(ImportError, match=r"Install it, or pass a class of KerasHub"):
        tf_movprune.load_pytorch(folder, weights="pytorch")


def test_a_file_that_cannot_be_compared_is_told_of(tmp_path):
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    (folder / "tf_model.h5").write_bytes(b"none")
    with pytest.warns(UserWarning, match=r"could not be compared with tf_model\.h5"):
        model = tf_movprune.load_pytorch(folder)
    expected = checkpoints.expected("bert_questions")
    np.testing.assert_allclose(checkpoints.logits(model), expected, atol=1e-5)


# ---- names of the hub


def test_a_name_is_downloaded(monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns):
        asked.append((name, "tf_model.h5" in allow_patterns))
        return str(checkpoints.CHECKPOINTS / "bert_questions")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = tf_movprune.load_pytorch("somebody/pruned-bert")
    tf_movprune.load_pytorch("somebody/pruned-bert", weights="pytorch")
    assert asked == [("somebody/pruned-bert", True), ("somebody/pruned-bert", False)]
    assert model.config.name_or_path == str(checkpoints.CHECKPOINTS / "bert_questions")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pointers_in_place_of_files_are_told_of(tmp_path, name):
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match=rf"{name} is a pointer of Git LFS"):
        tf_movprune.load_pytorch(folder)


def test_a_name_that_cannot_be_downloaded_is_refused(monkeypatch):
    import huggingface_hub

    def fail(name, **arguments):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"no repository of that name .*offline"):
        tf_movprune.load_pytorch("somebody/pruned-bert")
