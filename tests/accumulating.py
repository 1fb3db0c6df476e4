"""Optimizers that take a step with the gradients of several batches."""

import tensorflow as tf
import tf_keras


class Accumulating(tf_keras.optimizers.SGD):
    """Does in tf_keras what optimizers of Keras 3 can do."""

    def __init__(self, steps, declares=True, rate=0.01):
        super().__init__(rate)
        self.steps, self.batches = steps, tf.Variable(0, trainable=False)
        self.sums = []
        if declares:
            self.gradient_accumulation_steps = steps

    def build(self, var_list):
        super().build(var_list)
        self.sums = self.sums or [self.add_variable_from_reference(v, "sum") for v in var_list]

    def apply_gradients(self, grads_and_vars, **kwargs):
        gradients, variables = zip(*grads_and_vars)
        for total, gradient in zip(self.sums, gradients):
            total.assign_add(gradient)
        self.batches.assign_add(1)

        def take_step():
            super(Accumulating, self).apply_gradients(list(zip(self.sums, variables)))
            for total in self.sums:
                total.assign(tf.zeros_like(total))
            return True

        tf.cond(self.batches % self.steps == 0, take_step, lambda: False)


def accumulating_sgd(keras, steps, rate=0.1):
    if keras is tf_keras:
        return Accumulating(steps, rate=rate)
    return keras.optimizers.SGD(rate, gradient_accumulation_steps=steps)
