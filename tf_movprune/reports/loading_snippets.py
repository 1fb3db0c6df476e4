"""Python code that loads a saved model and computes with it, for model cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("classification", "regression", "questions")
COMPACTED = ("heads", "neurons", "heads+neurons")
"""Structures after which matrices are smaller than the configuration of the model says."""

_FOLDER = "path/to/this/folder"
_TEXTS = {
    "one": '["A fine film.", "Two hours that felt like six."]',
    "pair": '(["A man plays the guitar."], ["Someone makes music."])',
    "questions": '(["Who wrote Faust?"], ["Faust is a tragic play by Goethe."])',
}
_KERAS_HUB = """import tf_movprune

predict = tf_movprune.load_predictor("{folder}")
print(predict({texts})){meaning}
model = predict.model  # a Keras model, whose inputs are token ids
"""
_TRANSFORMERS = """import {imports}

folder = "{folder}"
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = {model}
inputs = tokenizer({texts}, padding=True, return_tensors="tf")
outputs = model(inputs){meaning}
"""


def loading_snippet(info: Mapping[str, Any], kind: str, *, is_pair: bool = False) -> str:
    """A code block in Markdown, after a sentence on what has to be installed.

    Args:
      info: contents of `run.json`.
      kind: one of `KINDS`.
      is_pair: whether the model reads two texts at a time.
    """
    is_compacted = info.get("structure") in COMPACTED and info.get("method") != "dense"
    texts = _TEXTS["questions" if kind == "questions" else "pair" if is_pair else "one"]
    if info.get("library") == "transformers":
        code = _transformers(kind, texts, is_compacted)
        packages = '"transformers<4.55" tf_keras'
        packages += " tf_movprune" if is_compacted else ""
    else:
        code = _keras_hub(kind, texts)
        packages = '"tf_movprune[tasks]"'
    names = info.get("label_names") or ()
    labels = f"\n\nThe labels are {', '.join(map(str, names))}, in this order." if names else ""
    return f"After `pip install {packages}`:\n\n```python\n{code}```{labels}"


def _keras_hub(kind: str, texts: str) -> str:
    meaning = {
        "classification": "  # the name of a label for each text",
        "regression": "  # a score for each text",
        "questions": "  # an answer to each question, in the words of its text",
    }[kind]
    return _KERAS_HUB.format(folder=_FOLDER, texts=texts.strip("()"), meaning=meaning)


def _transformers(kind: str, texts: str, is_compacted: bool) -> str:
    head = "QuestionAnswering" if kind == "questions" else "SequenceClassification"
    load = f"transformers.TFAutoModelFor{head}.from_pretrained"
    meaning = ".logits  # of each label" if kind == "classification" else ".logits  # the scores"
    if kind == "questions":
        meaning = "\nstart, end = outputs.start_logits, outputs.end_logits  # of each token"
    if is_compacted:
        load = "tf_movprune.load_compacted"
    return _TRANSFORMERS.format(
        imports="tf_movprune\nimport transformers" if is_compacted else "transformers",
        folder=_FOLDER,
        model=f"{load}(folder)",
        texts=texts.strip("()") if texts.startswith("(") else texts,
        meaning=meaning,
    )
