"""Models of either Keras as checkpoints of PyTorch, and back."""

import pathlib

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints
import safetensors
import tensorflow as tf
import transformers
from pytorch_checkpoints import TARGETS, load, with_neurons

import tf_movprune


@pytest.mark.parametrize(("name", "target"), TARGETS)
@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_loaded_and_saved_weights_are_the_same_to_the_bit(tmp_path, name, target):
    model = load(name, target)
    tf_movprune.save_pytorch(model, tmp_path / "a", heads="removed")
    again = tf_movprune.load_pytorch(
        tmp_path / "a", checkpoints.hub_class(name) if target else None
    )
    for weight, other in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
    np.testing.assert_array_equal(checkpoints.logits(again), checkpoints.logits(model))
    np.testing.assert_allclose(checkpoints.logits(again), checkpoints.expected(name), atol=1e-5)


@pytest.mark.parametrize("target", [None, "hub"])
@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_saved_tensors_are_those_that_were_loaded(tmp_path, target):
    tf_movprune.save_pytorch(load("bert_tokens", target), tmp_path / "a")
    found = checkpoints.arrays(tmp_path / "a")
    pooler = [found.pop(f"bert.pooler.dense.{part}") for part in ("weight", "bias")]
    assert pooler[0].std() > 0.01 and not pooler[1].any()  # a new one, which nothing reads
    wanted = checkpoints.weights("bert_tokens")
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def narrow(tmp_path):
    """A folder with a BERT of two heads of four in one layer, three in the other, and 24 and 17
    neurons."""
    source = load("bert_without_heads", None)
    tf_movprune.save_pytorch(source, tmp_path / "whole", heads="removed")
    arrays = with_neurons(checkpoints.arrays(tmp_path / "whole"), 1, np.arange(17))
    return checkpoints.write(tmp_path / "narrow", arrays, checkpoints.config_of(tmp_path / "whole"))


SHAPES = {  # of query and intermediate.dense, in both layers
    ("zero", "widest"): (16, 24, 16, 24),
    ("removed", "removed"): (8, 24, 12, 17),
    ("removed", "widest"): (8, 24, 12, 24),
    ("zero", "removed"): (16, 24, 16, 17),
    ("zero", "full"): (16, 24, 16, 24),
}


@pytest.mark.parametrize(("heads", "neurons"), SHAPES)
@pytest.mark.parametrize("target", [None, "hub"])
@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_sizes_are_filled_up_and_found_again(tmp_path, heads, neurons, target):
    cls = checkpoints.hub_class("bert_without_heads") if target else None
    model = tf_movprune.load_pytorch(narrow(tmp_path), cls)
    folder = tmp_path / "saved"
    tf_movprune.save_pytorch(model, folder, heads=heads, neurons=neurons)
    arrays = checkpoints.arrays(folder)
    names = ("attention.self.query", "intermediate.dense")
    found = [arrays[f"bert.encoder.layer.{i}.{name}.bias"].size for i in (0, 1) for name in names]
    assert tuple(found) == SHAPES[heads, neurons]
    assert checkpoints.config_of(folder)["intermediate_size"] == 24
    listed = {"0": [0, 2], "1": [1]} if heads == "removed" else {}
    assert checkpoints.config_of(folder)["pruned_heads"] == listed
    if heads == "zero":
        rows = arrays["bert.encoder.layer.0.attention.self.value.weight"].reshape(4, 4, 16)
        assert list(rows.any(axis=(1, 2))) == [False, True, False, True]
    for load_again in (tf_movprune.load_pytorch, tf_movprune.load_compacted):
        again = load_again(folder, cls)
        for weight, other in zip(again.weights, model.weights, strict=True):
            np.testing.assert_array_equal(weight, other)


@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_the_default_form_is_an_ordinary_checkpoint(tmp_path):
    """Without what the file says of its padding, it is a model of full size, with equal outputs."""
    model = tf_movprune.load_pytorch(narrow(tmp_path))
    tf_movprune.save_pytorch(model, tmp_path / "a")
    with safetensors.safe_open(tmp_path / "a" / "model.safetensors", "np") as file:
        assert file.metadata()["format"] == "pt"
    folder = checkpoints.write(
        tmp_path / "b", checkpoints.arrays(tmp_path / "a"), checkpoints.config_of(tmp_path / "a")
    )
    whole = tf_movprune.load_pytorch(folder)
    assert whole.count_params() > model.count_params()
    np.testing.assert_allclose(checkpoints.logits(whole), checkpoints.logits(model), atol=1e-6)
    import keras_hub

    keys = {"type_vocab_size", "hidden_act", "layer_norm_eps", "max_position_embeddings"}
    assert keys <= checkpoints.config_of(folder).keys()  # though they have their defaults
    backbone = keras_hub.models.BertBackbone.from_preset(str(tmp_path / "a"))
    np.testing.assert_array_equal(
        backbone.get_layer("token_embedding").embeddings,
        checkpoints.arrays(folder)["bert.embeddings.word_embeddings.weight"],
    )
    assert backbone.intermediate_dim == 24


@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_numbers_where_padding_should_be_are_refused(tmp_path):
    model = tf_movprune.load_pytorch(narrow(tmp_path))
    tf_movprune.save_pytorch(model, tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors"
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = checkpoints.arrays(tmp_path / "a")
    arrays["bert.encoder.layer.1.intermediate.dense.bias"][-1] = 1
    checkpoints.write(tmp_path / "a", arrays, checkpoints.config_of(tmp_path / "a"), metadata)
    with pytest.raises(ValueError, match=r"intermediate\.dense\.bias' has numbers where"):
        tf_movprune.load_pytorch(tmp_path / "a")
    for wrong in (
        *("no JSON", "[[[0], 3]]", "[[[9], 3], [[1], 3]]", "[[[], 3], [[1], 3]]", "[]", "{}"),
        *("[[[1, 0], 3], [[1], 3]]", "[[[0.0], 3], [[1], 3]]", "[[[0], 3.0], [[1], 3]]"),
    ):
        metadata["tf_movprune_sizes"] = wrong
        checkpoints.write(tmp_path / "a", arrays, checkpoints.config_of(tmp_path / "a"), metadata)
        with pytest.raises(ValueError, match=r"no valid entry tf_movprune_sizes"):
            tf_movprune.load_pytorch(tmp_path / "a")


# ---- the tokenizer


def test_the_tokenizer_of_the_source_is_copied(tmp_path):
    source = checkpoints.copied("bert_questions", tmp_path / "source")
    (source / "vocab.txt").write_text("[PAD]\n")
    model = tf_movprune.load_pytorch(source)
    tf_movprune.save_pytorch(model, tmp_path / "a")
    assert (tmp_path / "a" / "vocab.txt").read_text() == "[PAD]\n"
    hub = tf_movprune.load_pytorch(source, checkpoints.hub_class("bert_questions"))
    tf_movprune.save_pytorch(hub, tmp_path / "b")
    assert (tmp_path / "b" / "vocab.txt").read_text() == "[PAD]\n"


def test_a_given_tokenizer_is_saved_and_none_is_told_of(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    model = load("bert_questions", None)
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    tf_movprune.save_pytorch(model, tmp_path / "a", tokenizer=tokenizer)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "a").vocab_size == len(words)
    tf_movprune.save_pytorch(model, tmp_path / "b", tokenizer=str(tmp_path))
    assert (tmp_path / "b" / "vocab.txt").is_file()
    with pytest.warns(UserWarning, match=r"No tokenizer is in"):
        tf_movprune.save_pytorch(model, tmp_path / "c")
    with pytest.raises(ValueError, match=r"folder with a tokenizer, got 'none'"):
        tf_movprune.save_pytorch(model, tmp_path / "d", tokenizer="none")


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_the_tokenizer_of_a_preprocessor_is_saved(tmp_path, kind):
    import keras_hub

    models = keras_hub.models
    if kind == "Bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]
        tokenizer = models.BertTokenizer(words, lowercase=True)
    else:
        words = {x: i for i, x in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "g", "o"])}
        words |= {"d": 7, "oo": 8}
        tokenizer = models.RobertaTokenizer(words, ["o o"])
    preprocessor = getattr(models, f"{kind}TextClassifierPreprocessor")(tokenizer, 8)
    cls = getattr(models, f"{kind}TextClassifier")
    backbone = cls.backbone_cls(30, 1, 2, 8, 16, max_sequence_length=12)
    model = cls(backbone, 2, preprocessor=preprocessor)
    tf_movprune.save_pytorch(model, tmp_path / "a")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    text = "Good film" if kind == "Bert" else "good"
    ours = preprocessor([text])["token_ids"][0].numpy()
    assert theirs(text)["input_ids"] == ours[ours != tokenizer.pad_token_id].tolist()


def test_what_an_earlier_model_left_is_replaced(tmp_path):
    source = checkpoints.copied("bert_questions", tmp_path / "source")
    (source / "vocab.txt").write_text("[PAD]\n")
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    for name in ("tokenizer.json", "added_tokens.json", "sparse_args.json", "training_args.bin"):
        (folder / name).write_text("{}")
    tf_movprune.save_pytorch(tf_movprune.load_pytorch(source), folder)
    found = {path.name for path in folder.iterdir()}
    assert found == {"config.json", "expected.npy", "model.safetensors", "vocab.txt"}


def test_tokenizers_of_keras_hub_and_those_that_are_none(tmp_path):
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"]
    model = load("bert_questions", None)
    tokenizer = keras_hub.models.BertTokenizer(words, lowercase=True)
    tf_movprune.save_pytorch(model, tmp_path / "a", tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    assert theirs("Film")["input_ids"] == [2, 5, 3]
    with pytest.raises(TypeError, match=r"tokenizer must be a tokenizer .*got 3"):
        tf_movprune.save_pytorch(model, tmp_path / "b", tokenizer=3)
    with pytest.raises(ValueError, match=r"folder with a tokenizer"):
        tf_movprune.save_pytorch(model, tmp_path / "b", tokenizer=tmp_path)
    assert not (tmp_path / "b").exists()


def test_labels_keep_their_names_through_keras_hub(tmp_path):
    config = {**checkpoints.config("bert_tokens"), "problem_type": "single_label_classification"}
    config["id2label"] = {"0": "O", "1": "PER", "2": "LOC"}
    config["label2id"] = {"O": 0, "PER": 1, "LOC": 2}
    folder = checkpoints.write(tmp_path / "a", checkpoints.weights("bert_tokens"), config)
    model = tf_movprune.load_pytorch(folder, checkpoints.hub_class("bert_tokens"))
    with pytest.warns(UserWarning, match="No tokenizer"):
        tf_movprune.save_pytorch(model, tmp_path / "b")
    saved = checkpoints.config_of(tmp_path / "b")
    assert saved["id2label"] == config["id2label"]
    assert saved["problem_type"] == config["problem_type"]
    assert saved["torch_dtype"] == "float32"


def test_two_saved_models_in_one_folder_are_not_mixed_up(tmp_path):
    model = load("bert_without_heads", None)
    with pytest.warns(UserWarning, match="No tokenizer"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match=r"has tf_model\.h5 and PyTorch's weights"):
        tf_movprune.load_compacted(tmp_path / "a")


# ---- folders


@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_other_files_of_a_folder_stay(tmp_path):
    folder = checkpoints.copied("bert_questions", tmp_path / "a")
    model = tf_movprune.load_pytorch(folder)
    (folder / "README.md").write_text("mine")
    (folder / "more").mkdir()
    tf_movprune.save_pytorch(model, folder)
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "more").is_dir()
    np.testing.assert_array_equal(
        checkpoints.logits(tf_movprune.load_pytorch(folder)), checkpoints.logits(model)
    )


def test_a_folder_stays_as_it_was_if_saving_fails(tmp_path):
    folder = checkpoints.copied("bert_without_heads", tmp_path / "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = tf_movprune.load_pytorch(folder)
    with pytest.raises(ValueError, match=r"has pytorch_model\.bin, which would be"):
        tf_movprune.save_pytorch(model, folder)

    class Tokenizer:
        def save_pretrained(self, path):
            raise RuntimeError("full")

    other = checkpoints.copied("bert_questions", tmp_path / "b")
    with pytest.raises(RuntimeError, match="full"):
        tf_movprune.save_pytorch(model, other, tokenizer=Tokenizer())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_a_model_is_saved_into_the_folder_where_one_is(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir(mode=0o750)
    monkeypatch.chdir(tmp_path / "a")
    with open("events.log", "w") as log:
        tf_movprune.save_pytorch(load("bert_questions", None), ".")
        log.write("still here")
    assert pathlib.Path("events.log").read_text() == "still here"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        *("config.json", "events.log", "model.safetensors")
    ]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750
    config, weights = pathlib.Path("config.json"), pathlib.Path("model.safetensors")
    assert config.stat().st_mode == weights.stat().st_mode


def test_presets_are_not_overwritten(tmp_path):
    model = load("bert_texts", "hub")
    model.save_to_preset(str(tmp_path / "a"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match=r"has task\.json, model\.weights\.h5, which would"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


# ---- what is refused


def test_models_that_pytorch_has_no_class_for_are_refused(keras, tmp_path):
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"PyTorch has no class for|no class for others"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_names_of_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folder must be a folder .*model\.safetensors"):
        tf_movprune.save_pytorch(load("bert_questions", None), tmp_path / "model.safetensors")


def test_pruned_models_are_refused(tmp_path):
    for target in (None, "hub"):
        model = load("bert_questions", target)
        schedule = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=2)
        tf_movprune.prune_low_movement(model, schedule)
        with pytest.raises(ValueError, match=r"strip_pruning"):
            tf_movprune.save_pytorch(model, tmp_path / "a")


def functional(name, head, **changes):
    """A Functional model of KerasHub, around the backbone of a loaded one."""
    import keras

    layers = load(name, "hub").layers
    backbone = next(layer for layer in layers if "backbone" in layer.name)
    outputs = head(keras, backbone(backbone.input))
    return keras.Model(backbone.input, outputs)


@pytest.mark.parametrize(
    "head",
    [
        lambda keras, x: keras.layers.Dense(2, name="classifier")(x["pooled_output"]),
        lambda keras, x: keras.layers.Dense(2, "tanh", name="classifier")(x["sequence_output"]),
        lambda keras, x: keras.layers.Dense(2, name="classifier")(
            keras.ops.tanh(x["sequence_output"])
        ),
        lambda keras, x: keras.layers.Dense(2, name="qa_outputs")(x["sequence_output"]),
        lambda keras, x: {
            "start_logits": (y := keras.layers.Dense(2, name="qa_outputs")(x["sequence_output"]))[
                ..., 1
            ],
            "end_logits": y[..., 0],
        },
    ],
    ids=["pooled", "activation", "before", "no logits by name", "exchanged"],
)
def test_functional_models_that_compute_otherwise_are_refused(tmp_path, head):
    with pytest.raises(ValueError, match=r"must compute .* of each token|no activation"):
        tf_movprune.save_pytorch(functional("bert_tokens", head), tmp_path / "a")


def test_functional_models_of_ones_own_are_saved(tmp_path):
    model = functional(
        "bert_tokens",
        lambda keras, x: keras.layers.Dense(2, name="classifier")(x["sequence_output"]),
    )
    with pytest.warns(UserWarning, match="No tokenizer"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    again = tf_movprune.load_pytorch(tmp_path / "a")
    np.testing.assert_allclose(checkpoints.logits(again), checkpoints.logits(model), atol=1e-5)


def test_tasks_that_are_no_classifiers_are_refused(tmp_path):
    import keras_hub

    backbone = keras_hub.models.BertBackbone(30, 1, 2, 8, 16, max_sequence_length=12)
    model = keras_hub.models.BertMaskedLM(backbone)
    with pytest.raises(ValueError, match=r"must have one dense layer after its backbone"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    xlm = keras_hub.models.XLMRobertaBackbone(30, 1, 2, 8, 16, max_sequence_length=12)
    with pytest.raises(ValueError, match=r"got a XLMRobertaBackbone"):
        tf_movprune.save_pytorch(xlm, tmp_path / "a")


@pytest.mark.parametrize("change", ["width", "activation"])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert"])
def test_hidden_layers_of_classifiers_that_pytorch_has_not_are_refused(tmp_path, name, change):
    import keras
    import keras_hub

    if (name, change) == ("Bert", "width"):
        pytest.skip("has none in its classifier")
    cls = getattr(keras_hub.models, f"{name}TextClassifier")
    backbone = cls.backbone_cls(30, 1, 2, 8, 16, max_sequence_length=12)
    model = cls(backbone, 2, **({"hidden_dim": 4} if change == "width" else {}))
    if change == "activation":
        owner = backbone if name == "Bert" else model
        owner.pooled_dense.activation = keras.activations.gelu
    with pytest.raises(ValueError, match=r"'pooled_dense' of .* must have 8 units"):
        tf_movprune.save_pytorch(model, tmp_path / "a")


@pytest.mark.parametrize(
    "key, value", [("is_decoder", True), ("position_embedding_type", "relative_key")]
)
def test_configurations_that_do_not_load_again_are_refused(tmp_path, key, value):
    model = load("bert_questions", None)
    setattr(model.config, key, value)
    with pytest.raises(ValueError, match=rf"{key}='?{value}'?"):
        tf_movprune.save_pytorch(model, tmp_path / "a")


def test_a_model_inside_another_is_saved_by_its_own_names(tmp_path):
    import tf_keras

    class Outer(tf_keras.Model):
        def __init__(self):
            super().__init__(name="outer")
            config = transformers.BertConfig(30, 16, 1, 2, 24, max_position_embeddings=16)
            self.bert = transformers.TFBertModel(config, name="my/bert")

        def call(self, inputs):
            return self.bert(inputs).last_hidden_state

    outer, ids = Outer(), tf.constant([[1, 2, 3]])
    expected = outer(ids)
    with pytest.warns(UserWarning, match="No tokenizer"):
        tf_movprune.save_pytorch(outer.bert, tmp_path / "a")
    again = tf_movprune.load_pytorch(tmp_path / "a")
    np.testing.assert_allclose(again(ids).last_hidden_state, expected, atol=1e-6)


@pytest.mark.parametrize("change", ["head", "variable"])
def test_tf_models_with_other_weights_than_their_class_are_refused(tmp_path, change):
    import tf_keras

    model = load("bert_questions", None)
    if change == "head":
        model.qa_outputs = tf_keras.layers.Dense(2)
        model.qa_outputs.build([None, 16])
    else:
        model.more = tf.Variable([1.0], name="more")
    with pytest.raises(ValueError, match=r"does not have the weights of a TFBertForQuestionAns"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_heads_that_pytorch_computes_otherwise_are_refused(tmp_path):
    import keras
    import keras_hub

    layers = load("bert_tokens", "hub").layers
    backbone = next(layer for layer in layers if "backbone" in layer.name)
    softmax = keras_hub.models.BertTextClassifier(backbone, 2, activation="softmax")
    with pytest.raises(ValueError, match=r"no activation, as in PyTorch, got softmax"):
        tf_movprune.save_pytorch(softmax, tmp_path / "a")
    pooled = backbone(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, keras.layers.Dense(2, name="mine")(pooled))
    with pytest.raises(ValueError, match=r"'qa_outputs' or 'classifier'.*has \['mine'\]"):
        tf_movprune.save_pytorch(model, tmp_path / "a")


@pytest.mark.parametrize("choice", [{"heads": "all"}, {"neurons": None}])
def test_choices_that_are_none_are_refused(tmp_path, choice):
    with pytest.raises(ValueError, match=r"must be one of|must be"):
        tf_movprune.save_pytorch(load("bert_questions", None), tmp_path / "a", **choice)


def test_names_and_shapes_are_those_of_transformers(tmp_path):
    """A new model of each class, saved and loaded by transformers itself in the TF class."""
    config = transformers.BertConfig(30, 16, 2, 4, 24, max_position_embeddings=16)
    model = transformers.TFBertForSequenceClassification(config)
    model(tf.zeros([1, 3], tf.int32))
    with pytest.warns(UserWarning, match="No tokenizer"):
        tf_movprune.save_pytorch(model, tmp_path / "a")
    again = transformers.TFBertForSequenceClassification.from_pretrained(tmp_path / "a")
    np.testing.assert_array_equal(checkpoints.logits(again), checkpoints.logits(model))
    assert pathlib.Path(tmp_path / "a" / "config.json").is_file()
