"""Errors while files of others are loaded, with the name of the file."""

import pytest
import tensorflow as tf

from tf_movprune.core.load_errors import named_errors


@pytest.mark.parametrize("error", [KeyError("layers"), OSError("truncated"), ValueError("odd")])
def test_whatever_a_file_causes_is_a_value_error_that_names_it(error):
    message = f"^x.h5 holds no model: .*{error.args[0]}"
    with pytest.raises(ValueError, match=message), named_errors("x.h5", "holds no model"):
        raise error


@pytest.mark.parametrize(
    "error", [MemoryError("8 GB"), tf.errors.ResourceExhaustedError(None, None, "8 GB")]
)
def test_what_memory_is_too_small_for_is_told(error):
    message = r"^x.h5 asks for more memory than there is: .*8 GB"
    with pytest.raises(ValueError, match=message), named_errors("x.h5", "holds no model"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ImportError("keras_hub"),
        PermissionError("x.h5"),
        ValueError("x.h5 is of another model"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, named_errors("x.h5", "holds no model"):
        raise error
    assert caught.value is error
