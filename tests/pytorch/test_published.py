"""The page on published models, and the example that takes one to TFLite."""

import pathlib
import re

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "published_models.md"
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("where", "is", "it", "?", "in", "the", "house"),
]
LENGTH = 128


@pytest.fixture
def published(tmp_path):
    """A folder like one on the hub: a BERT with many positions and empty neurons, and words."""
    arrays = checkpoints.weights("bert_questions")
    random = np.random.RandomState(0)
    table = random.standard_normal([LENGTH, 16]).astype("float32")
    arrays["bert.embeddings.position_embeddings.weight"] = table
    arrays["bert.encoder.layer.0.output.dense.weight"][:, ::2] = 0
    config = {**checkpoints.config("bert_questions"), "max_position_embeddings": LENGTH}
    folder = checkpoints.write(tmp_path / "published", arrays, config)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder


def test_the_lines_of_the_page(published, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(published))
    arrays = checkpoints.weights("bert_questions")
    matrices = [name for name, x in arrays.items() if ".layer." in name and x.ndim == 2]
    scores = {name: np.arange(arrays[name].size, dtype="float32") for name in matrices}
    scores = {name: value.reshape(arrays[name].shape) for name, value in scores.items()}
    masked = {**checkpoints.config("bert_questions"), "model_type": "masked_bert"}
    masked["pruning_method"] = "topK"
    named = {name.replace(".weight", ".mask_scores"): value for name, value in scores.items()}
    checkpoints.write(tmp_path / "finepruned-bert", {**arrays, **named}, masked)
    for name in matrices:
        arrays[name][scores[name] < 150] = 0
    checkpoints.write(tmp_path / "bertarized-bert", arrays, masked)
    namespace = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, namespace)
        if "threshold=0.1" in code:
            (kernel,) = namespace["pruned"].bert.encoder.layer[0].intermediate.dense.kernels
            assert np.count_nonzero(kernel.mask) == int(0.1 * 24 * 16)
    assert namespace["small"].count_params() < namespace["model"].count_params() + 24 * 33
    (kernel,) = namespace["pruned"].bert.encoder.layer[0].intermediate.dense.kernels
    assert np.count_nonzero(~kernel.mask.numpy()) == 150
    assert (tmp_path / "pruned-bert-pytorch" / "model.safetensors").is_file()
    assert (tmp_path / "pruned-bert-pytorch" / "vocab.txt").is_file()


@pytest.mark.parametrize("keras", ["2", "3"])
def test_the_example_answers(published, tmp_path, keras, capsys):
    pytest.importorskip("ai_edge_litert")
    from examples import published_model

    answer = published_model.main(
        [
            *(str(published), "--keras", keras, "--sequence_length", "32", "--rounds", "1"),
            *("--question", "where is it?", "--context", "in the house"),
            *("--output_dir", str(tmp_path / "out")),
        ]
    )
    assert answer and set(answer.split()) <= {"in", "the", "house", "[SEP]"}
    printed = capsys.readouterr().out
    assert "of the first" in printed and "parameters" in printed
    sizes = [(tmp_path / "out" / f"{name}.tflite").stat().st_size for name in ("model", "loaded")]
    assert sizes[0] < sizes[1]


def test_the_example_asks_nothing_without_a_tokenizer(published, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    from examples import published_model

    for name in ("vocab.txt", "tokenizer_config.json"):
        (published / name).unlink()
    output = tmp_path / "out"
    answer = published_model.main([str(published), "--output_dir", str(output)])
    assert not answer and (output / "model.tflite").is_file()
    assert "has no tokenizer, and no question was asked" in capsys.readouterr().out


def test_the_best_answer_is_a_short_span_of_the_context():
    from examples import published_model

    class Tokenizer:
        @staticmethod
        def decode(ids):
            return list(ids)

    ids = np.arange(40)[None]
    context = np.int32((ids >= 10) & (ids < 38))
    encoded = {"input_ids": ids, "token_type_ids": context, "attention_mask": np.ones_like(ids)}
    start, end = np.zeros([1, 40]), np.zeros([1, 40])
    start[0, [2, 12, 20]] = 9, 5, 4  # the first is in the question
    end[0, [11, 14, 37, 39]] = 9, 2, 5, 9  # before it, near, too far, and no context
    logits = {"start_logits": start, "end_logits": end}
    assert published_model.best_answer(Tokenizer, encoded, logits) == [10, 11]
    end[0, 11] = 0
    assert published_model.best_answer(Tokenizer, encoded, logits) == [12, 13, 14]
