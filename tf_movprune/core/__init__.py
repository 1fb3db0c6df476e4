"""The paper on tensors: selection, masks, methods and schedules, without any Keras."""
