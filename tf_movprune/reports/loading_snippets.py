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
_KERAS_HUB = """import {imports}

folder = "{folder}"
preprocess = keras_hub.models.TextClassifierPreprocessor.from_preset(folder{length})
model = {model}
outputs = model.predict(preprocess({texts})){meaning}
"""
_COMPACTED_KERAS_HUB = """import tf_movprune
from tf_movprune.keras3 import task_models

folder = "{folder}"
model = tf_movprune.load_compacted({file})
preprocess = task_models.tokenizer_of(folder, model).preprocessor
{length}outputs = model.predict(preprocess({texts})){meaning}
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
    else:
        code = _keras_hub(info, kind, texts, is_compacted)
        packages = "keras-hub"
    packages += " tf_movprune" if is_compacted else ""
    names = info.get("label_names") or ()
    labels = f"\n\nThe labels are {', '.join(map(str, names))}, in this order." if names else ""
    return f"After `pip install {packages}`:\n\n```python\n{code}```{labels}"


def _keras_hub(info: Mapping[str, Any], kind: str, texts: str, is_compacted: bool) -> str:
    length = (info.get("settings") or {}).get("max_length")
    meaning = "  # logits of each label" if kind == "classification" else "  # the scores"
    if kind == "questions":
        meaning = '\nstart, end = outputs["start_logits"], outputs["end_logits"]  # of each token'
    if texts.startswith("("):
        texts = f"x={texts}"  # two by position would be texts and labels
    common = {"folder": _FOLDER, "texts": texts, "meaning": meaning}
    if is_compacted:  # KerasHub finds no tokenizer for a backbone that it does not know
        return _COMPACTED_KERAS_HUB.format(
            file='f"{folder}/model.keras"' if kind == "questions" else "folder",
            length=f"preprocess.sequence_length = {length}\n" if isinstance(length, int) else "",
            **common,
        )
    imports = "keras_hub"
    model = "keras_hub.models.TextClassifier.from_preset(folder, preprocessor=None)"
    if kind == "questions":
        imports, model = (
            "keras\nimport keras_hub",
            'keras.saving.load_model(f"{folder}/model.keras")',
        )
    return _KERAS_HUB.format(
        imports=imports,
        model=model,
        length=f", sequence_length={length}" if isinstance(length, int) else "",
        **common,
    )


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
