"""Data of a run, and their record, before it begins."""

import pytest
import tiny_pretrained

from tf_movprune.reports.evaluated_on import evaluated_on
from tf_movprune.runs.preparation import prepare


@pytest.mark.parametrize(
    "most, text, is_whole",
    [
        (5, "the first 5 validation examples", False),
        (8, "8 validation examples", True),
        pytest.param(9, "8 validation examples", True, marks=pytest.mark.slow),
    ],
)
def test_examples_that_were_there(most, text, is_whole, tmp_path):
    data = tiny_pretrained.write_data("sst2", tmp_path / "data")
    settings = tiny_pretrained.settings(
        "sst2",
        tmp_path / "run",
        data_dir=str(data),
        held_out=4,
        max_train_examples=10,
        max_validation_examples=most,
    )
    record = prepare(settings, say=lambda text: None)[0].as_record()
    assert (record["train"]["examples"], record["train"]["available"]) == (10, 20)
    assert (record["validation"]["available"], record["held_out"]["available"]) == (8, 4)
    found = evaluated_on({"data": record, "settings": settings.as_dict()}, "accuracy")
    assert (found.text, found.is_whole) == (text, is_whole)
