"""A matrix in an exported file, as reports describe it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class StoredMatrix:
    """A constant matrix of a fully connected layer in a TFLite file, or of a product in ONNX.

    Attributes:
      name: name of the tensor.
      shape: [out, in] in TFLite files, [in, out] in ONNX files.
      dtype: type of its values.
      storage: `"dense"`, `"csr"` or `"blocks"`.
      remaining: number of entries that are not zero.
      bytes: size of its values and indices.
      block_sparsity: fraction of zero blocks, of the size that LiteRT multiplies natively in this
        type; None if it has none, or they do not divide the inputs.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    storage: str
    remaining: int
    bytes: int
    block_sparsity: float | None = None

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1 - self.remaining / (self.shape[0] * self.shape[1])
