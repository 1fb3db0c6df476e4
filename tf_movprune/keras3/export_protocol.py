"""What exports and reports ask of a Keras 3 model."""

from tf_movprune.keras3.remaining_weights import remaining_weights as remaining_weights
