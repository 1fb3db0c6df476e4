"""Masking a kernel with a gradient that passes the mask."""

from __future__ import annotations

import tensorflow as tf


@tf.custom_gradient
def straight_through(kernel: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor):
    """Masks a kernel; the gradient passes the mask and reaches the scores of all entries.

    forward:   y = mask ? kernel : 0
    backward:  dL/dkernel = mask ? dL/dy : 0
               dL/dscores = dL/dy * kernel, for masked entries too

    Args:
      kernel: floating tensor, in the precision of the computation.
      scores: float32 tensor of the shape of `kernel`. The forward pass does not read it.
      mask: bool tensor of the shape of `kernel`.

    Returns:
      Tensor of the shape and dtype of `kernel`. The gradient of `scores` is computed in float32.

    Reference:
      Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683, eq. 3 and appendix A.1.
    """

    def gradient(upstream):
        to_scores = tf.cast(upstream, scores.dtype) * tf.cast(kernel, scores.dtype)
        return apply_mask(upstream, mask), to_scores, None

    return apply_mask(kernel, mask), gradient


def apply_mask(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The `values` where `mask` is true, and +0 elsewhere, whatever stood there."""
    return tf.where(mask, values, tf.zeros([], values.dtype))
