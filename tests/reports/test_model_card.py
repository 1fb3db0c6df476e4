"""Model cards: metadata that the hub can read, and code that loads the model."""

import json
import re
import shlex

import numpy as np
import pytest
from recorded_runs import INFO

import tf_movprune
from tf_movprune.reports.model_card import model_card

yaml = pytest.importorskip("yaml")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "faust", "who", "?"]
SPARSITY = {
    "weights": {
        f"bert.encoder.layer.{layer}.{name}.kernel": {"remaining": 10 + layer, "total": 100}
        for layer in range(2)
        for name in ("intermediate.dense", "attention.self_attention.query")
    }
}


def parts(card):
    """Metadata, text, and the Python code in it."""
    _, front, text = card.split("---\n", 2)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return yaml.safe_load(front), text, code


def test_metadata():
    front, *_ = parts(model_card({**INFO, "model": "google/bert_uncased"}, "classification"))
    (index,) = front.pop("model-index")
    assert front == {
        "language": "en",
        "library_name": "keras-hub",
        "pipeline_tag": "text-classification",
        "tags": ["movement-pruning", "pruned", "sparse", "tf_movprune"],
        "base_model": "google/bert_uncased",
        "datasets": ["nyu-mll/glue"],
        "metrics": ["accuracy"],
    }
    assert index["name"] == "bert_uncased for SST-2, its encoder pruned to 10\u202f%"
    assert index["results"] == [
        {
            "task": {"type": "text-classification", "name": "text classification"},
            "dataset": {
                "name": "SST-2",
                "type": "nyu-mll/glue",
                "config": "sst2",
                "split": "validation",
            },
            "metrics": [{"type": "accuracy", "name": "accuracy", "value": 0.873}],
        }
    ]


def test_metadata_as_the_hub_reads_it():
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card({**INFO, "license": "mit"}, "classification"))
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.873)
    assert (card.data.license, card.data.library_name) == ("mit", "keras-hub")


def test_what_is_not_known_is_left_out():
    front, text, _ = parts(model_card({}, "questions"))
    assert front == {
        "pipeline_tag": "question-answering",
        "tags": ["fine-tuned", "tf_movprune"],
    }
    assert "## Results" not in text and "## Limits" in text and "None" not in text
    front, *_ = parts(model_card({**INFO, "model": "/home/me/models/bert"}, "classification"))
    assert "base_model" not in front and "license" not in front
    assert "How it was made" not in model_card({**INFO, "commands": [""]}, "classification")


def test_text():
    info = {**INFO, "sparsity": SPARSITY, "distilled": True}
    _, text, _ = parts(model_card(info, "classification"))
    text = text.replace("\u202f", " ")
    for line in (
        "# bert-base-uncased for SST-2, its encoder pruned to 10 %",
        "| accuracy on validation data | 87.3 % |",
        "| prunable weights that remain | 10 % |",
        "| size, compressed int8 | 31.0 MB |",
        "| latency, TFLite int8 | 12.5 ms |",
        "| query | 10.5 % | 200 |\n| intermediate | 10.5 % | 200 |",
        "tf-movprune train sst2 --output_dir runs/hard",
        "with seed 3",
    ):
        assert line in text, line
    assert "hard movement pruning" in text and "dense teacher" in text and "bound" not in text


@pytest.mark.parametrize(
    "model, is_local, name",
    [
        ("/home/me/models/bert", None, "bert"),
        ("runs/bert", True, "bert"),
        ("./bert/", None, "bert"),
        ("C:\\models\\bert", None, "bert"),
        ("google/bert", False, "google/bert"),
    ],
)
def test_places_on_a_machine_are_not_published(model, is_local, name):
    known = {} if is_local is None else {"model_is_local": is_local}
    command = f"tf-movprune train sst2 --data_dir='/home/me/my data/SST-2' --model '{model}'"
    card = model_card({**INFO, **known, "model": model, "commands": [command]}, "classification")
    front, text, _ = parts(card)
    assert front.get("base_model") == (name if is_local is False else None)
    assert f"`{name}`" in text and "# bert for SST-2" in text and "home" not in card
    assert "--data_dir=SST-2" in text and "models" not in card


@pytest.mark.parametrize(
    "place, shown",
    [
        ("../../home/me/x.csv", "x.csv"),
        ("data/../../me/x.csv", "x.csv"),
        ("/", "."),
        ("..", "."),
        ("~", "."),
        ("~me", "."),
        ("C:/me/x.csv", "x.csv"),
        ("\\\\server\\me\\x.csv", "x.csv"),
        ("/home/me/x.csv", "x.csv"),
        ("data/x.csv", "data/x.csv"),
        ("a..b/x.csv", "a..b/x.csv"),
        ("hf://google/bert", "hf://google/bert"),
    ],
)
def test_places_in_commands(place, shown):
    quoted = shlex.quote(place)
    command = f"tf-movprune train own --train_file {quoted} --validation_file={quoted}"
    card = model_card({**INFO, "commands": [command]}, "classification")
    assert f"train own --train_file {shown} --validation_file={shown}\n" in card


def test_a_limit_that_is_not_reached():
    data = {split: {"examples": 8, "available": 8} for split in ("train", "validation")}
    limits = {"max_validation_examples": 8, "max_train_examples": 8}
    front, text, _ = parts(model_card({**INFO, "data": data, "settings": limits}, "classification"))
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "SST-2"
    assert "on 8 validation examples" in text and "first" not in text and "random" not in text


def test_which_examples_results_are_of():
    data = {
        "train": {"examples": 500},
        "validation_matched": {"examples": 100},
        "validation_mismatched": {"examples": 9832},
        "held_out": {"examples": 80},
    }
    info = {
        **INFO,
        "task": "mnli",
        "title": "MNLI",
        "data": data,
        "settings": {"max_validation_examples": 100, "max_train_examples": 500},
        "metrics": {
            "accuracy_matched": 0.5,
            "accuracy_mismatched": 0.6,
            "held_out_accuracy": 0.7,
        },
    }
    front, text, _ = parts(model_card(info, "classification"))
    found = [result["dataset"] for result in front["model-index"][0]["results"]]
    assert [(x["split"], x["name"]) for x in found] == [
        ("validation_matched", "MNLI, the first 100 validation examples"),
        ("validation_mismatched", "MNLI"),
        ("train", "MNLI, 80 training examples held out"),
    ]
    assert front["metrics"] == ["accuracy_matched", "accuracy_mismatched", "accuracy"]
    assert "| accuracy on 80 training examples held out | 70\u202f% |" in text
    assert "fine-tuned on 500 examples, chosen at random, of MNLI" in text


def test_names_with_odd_characters():
    name = "a|b: 'c' \"d\" \x07#\n---\n\U0001f600"
    card = model_card({**INFO, "title": name, "model": "org/model"}, "classification")
    front, text, _ = parts(card)
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name
    assert "# model for a|b: 'c' \"d\" #---\U0001f600" in text


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="kind must be"):
        model_card(INFO, "translation")


def run(info, kind, folder, **kwargs):
    """Runs the code in a card, and returns its variables."""
    card = model_card({**info, "settings": {"max_length": 16}}, kind, **kwargs)
    found = {"print": Printed()}
    exec(parts(card)[2].replace("path/to/this/folder", str(folder)), found)
    return found


def keras_hub_model(kind, folder, change=lambda model: model):
    import keras_hub

    from tf_movprune.keras3 import task_models

    keras_hub.models.BertBackbone(len(WORDS), 2, 2, 16, 32, max_sequence_length=16).save_to_preset(
        folder / "base"
    )
    model, _ = task_models.load(folder / "base", kind, 2, tf_movprune.load_pytorch)
    tokenizer = keras_hub.models.BertTokenizer(WORDS, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer)
    model = change(model)
    task_models.save(model, task_models.Tokenizer(preprocessor, 16), str(folder / "model"))
    names = [] if kind == "questions" else ["bad", "good"]
    description = {"kind": kind, "label_names": names, "max_length": 16, "stride": 8}
    (folder / "model" / "tf_movprune.json").write_text(json.dumps(description))
    return model


class Printed(list):
    """Takes the place of `print`."""

    def __call__(self, value):
        self.append(value)


def test_a_classifier_of_keras_hub(tmp_path):
    model = keras_hub_model("classification", tmp_path)
    found = run(INFO, "classification", tmp_path / "model")
    assert len(found["print"][0]) == 2 and set(found["print"][0]) <= {"bad", "good"}
    for ours, theirs in zip(model.weights, found["model"].weights):
        np.testing.assert_array_equal(ours, theirs)
    assert len(run(INFO, "classification", tmp_path / "model", is_pair=True)["print"][0]) == 1


def test_a_model_of_keras_hub_for_questions(tmp_path):
    keras_hub_model("questions", tmp_path)
    (answer,) = run(INFO, "questions", tmp_path / "model")["print"][0]
    assert answer in "Faust is a tragic play by Goethe."


@pytest.mark.parametrize("kind", ("classification", "questions"))
def test_a_compacted_model_of_keras_hub(tmp_path, kind):
    def without_neurons(model):
        schedule = tf_movprune.CubicSparsity(0.5, 0, 2)
        method = tf_movprune.Magnitude()
        pruned = tf_movprune.prune_low_movement(
            model, {"*feedforward*": schedule}, method, block_size=tf_movprune.NEURONS
        )
        tf_movprune.update_masks(pruned, 2)
        return tf_movprune.compact(tf_movprune.strip_pruning(pruned))

    model = keras_hub_model(kind, tmp_path, without_neurons)
    found = run({**INFO, "structure": "neurons"}, kind, tmp_path / "model")
    assert found["model"].count_params() == model.count_params()


def test_models_of_hugging_face(tmp_path):
    import transformers

    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    for kind, cls, key, count in (
        ("questions", transformers.TFBertForQuestionAnswering, "start", 1),
        ("classification", transformers.TFBertForSequenceClassification, "outputs", 2),
    ):
        model = cls(config)
        model(model.dummy_inputs)
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        outputs = run({**INFO, "library": "transformers"}, kind, tmp_path / kind)[key]
        assert outputs.shape[0] == count and np.isfinite(outputs).all()
