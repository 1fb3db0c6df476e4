"""The paper's algorithm in NumPy, float64 and exact fractions: what the library is held to.

Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683. Imports nothing of the library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-8

Arrays = list[np.ndarray]


def decimal(number) -> Fraction:
    """The shortest decimal that rounds to a float: what its author wrote. 0.9 gives 9/10."""
    return number if isinstance(number, Fraction) else Fraction(str(number))


def kept_count(size: int, sparsity) -> int:
    """`floor((1 - sparsity) * size)`, in exact arithmetic on the decimals of `sparsity`."""
    return int((1 - decimal(sparsity)) * size // 1)


def topk_mask(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` highest scores; ties go to the lower flat index, and NaN is lowest."""
    flat = np.ravel(scores)
    is_nan = np.isnan(flat)
    order = np.lexsort((np.arange(flat.size), -np.where(is_nan, 0, flat), is_nan))
    mask = np.zeros(flat.size, bool)
    mask[order[:count]] = True
    return mask.reshape(np.shape(scores))


def global_topk_masks(scores: Sequence[np.ndarray], count: int, minimums=None) -> Arrays:
    """The `count` highest scores of all arrays in one row; the `minimums` of each come first."""
    row = np.concatenate([np.ravel(s) for s in scores])
    reserved = [topk_mask(s, m) for s, m in zip(scores, minimums or [0] * len(scores))]
    first = np.concatenate([np.ravel(mask) for mask in reserved])
    rest = topk_mask(np.where(first, np.nan, row), max(0, count - int(first.sum())))
    masks, start = [], 0
    for s in scores:
        masks.append((first | rest)[start : start + s.size].reshape(s.shape))
        start += s.size
    return masks


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def soft_mask(scores: np.ndarray, cut: float, minimum_remaining: float = 0.005) -> np.ndarray:
    """`sigmoid(scores) > cut`, but never fewer than `int(minimum_remaining * n) + 1`."""
    mask = sigmoid(scores) > cut
    minimum = int(minimum_remaining * scores.size) + 1
    return mask if mask.sum() >= minimum else topk_mask(scores, minimum)


def hard_concrete_gate(scores: np.ndarray, uniform: np.ndarray | None = None) -> np.ndarray:
    """Louizos, Welling & Kingma (2018), with l, r, b = -0.1, 1.1, 2/3."""
    if uniform is not None:
        u = np.clip(uniform, 1e-4, 0.9999)
        scores = (np.log(u) - np.log(1 - u) + scores) / (2 / 3)
    return np.clip(sigmoid(scores) * 1.2 - 0.1, 0, 1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def distillation(teacher: np.ndarray, student: np.ndarray, temperature: float) -> np.ndarray:
    """`T² * KL(softmax(teacher / T) || softmax(student / T))`, summed over the last axis only."""
    log_p, log_q = (
        log_softmax(np.asarray(z, np.float64) / temperature) for z in (teacher, student)
    )
    p = np.exp(log_p)
    terms = p * np.where(p > 0, log_p - log_q, 0)
    return temperature**2 * terms.sum(-1)


def cross_entropy(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of class ids with logits, by example."""
    return -np.take_along_axis(log_softmax(logits), np.asarray(labels)[..., None], -1)[..., 0]


def threshold(scores: np.ndarray, mask: np.ndarray) -> float:
    """The lowest score that is kept: -inf where all are, +inf where none is."""
    if np.all(mask):
        return -np.inf
    kept = scores[mask]
    return float(np.min(np.where(np.isnan(kept), -np.inf, kept), initial=np.inf))


def cubic(step: int, initial, final, begin: int, end: int) -> Fraction:
    """Eq. 5, from `initial` at `begin` to `final` at `end`; exact."""
    initial, final = decimal(initial), decimal(final)
    if step <= begin:
        return initial
    if step >= end:
        return final
    return final + (initial - final) * (1 - Fraction(step - begin, end - begin)) ** 3


def warmup_decay(step: int, num_train_steps: int, num_warmup_steps: int) -> float:
    """Factor of the learning rate: linearly from 0 to 1, and linearly to 0 again."""
    if step < num_warmup_steps:
        return step / num_warmup_steps
    return max(0.0, (num_train_steps - step) / (num_train_steps - num_warmup_steps))


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean loss over a batch, and its gradient with respect to the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_probabilities)
    gradient[rows, labels] -= 1
    return -float(log_probabilities[rows, labels].mean()), gradient / len(labels)


def loss_and_gradients(
    masked: Arrays, biases: Arrays, inputs: np.ndarray, labels: np.ndarray
) -> tuple[float, Arrays, Arrays]:
    """A ReLU network with a linear output: the loss, dL/d(M * W), and dL/db of each layer."""
    activations = [inputs]
    for i, (kernel, bias) in enumerate(zip(masked, biases)):
        output = activations[-1] @ kernel + bias
        activations.append(output if i == len(masked) - 1 else np.maximum(output, 0))
    loss, upstream = softmax_cross_entropy(activations[-1], labels)
    of_kernels, of_biases = [], []
    for i in reversed(range(len(masked))):
        of_kernels.insert(0, activations[i].T @ upstream)
        of_biases.insert(0, upstream.sum(axis=0))
        upstream = (upstream @ masked[i].T) * (activations[i] > 0)
    return loss, of_kernels, of_biases


class AdamW:
    """AdamW of one array, in the Keras form: epsilon is added outside of the corrected root.

    The bias correction is in float32, as in Keras, where it is off by 1e-5 in the first steps.
    """

    def __init__(self, shape: tuple[int, ...], weight_decay: float = 0.0):
        self.weight_decay = weight_decay
        self.momentum = np.zeros(shape)
        self.velocity = np.zeros(shape)
        self.steps = 0

    def __call__(self, value: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        self.steps += 1
        self.momentum += (gradient - self.momentum) * (1 - BETA_1)
        self.velocity += (gradient**2 - self.velocity) * (1 - BETA_2)
        one, t = np.float32(1), np.float32(self.steps)
        correction = np.sqrt(one - np.float32(BETA_2) ** t) / (one - np.float32(BETA_1) ** t)
        update = float(correction) * self.momentum / (np.sqrt(self.velocity) + EPSILON)
        return value - rate * (self.weight_decay * value + update)


@dataclasses.dataclass
class Step:
    """One training step: the masks that it used, and everything else after it."""

    masks: Arrays
    kernels: Arrays
    scores: Arrays
    biases: Arrays
    loss: float
    gradient_norm: float


@dataclasses.dataclass
class Trajectory:
    steps: list[Step]
    final_masks: Arrays


def train(
    kernels: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    scores: Sequence[np.ndarray] | None,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    sparsity: Callable[[int], Fraction] | None = None,
    learning_rate: float,
    num_warmup_steps: int,
    weight_decay: float,
    clipnorm: float,
    score_rate: float = 1.0,
    sgd_rate: float | None = None,
    select: Callable[[Arrays, int], Arrays] | None = None,
    penalty_weight: Callable[[int], float] | None = None,
) -> Trajectory:
    """Trains a network whose kernels are all masked.

    Args:
      kernels: [in, out] of each layer.
      biases: [out] of each layer; neither masked nor decayed.
      scores: of hard movement, shaped like `kernels`; None for magnitude pruning.
      batches: inputs and labels of each step.
      sparsity: fraction of zeros at a step.
      learning_rate: peak of the warm-up and decay.
      num_warmup_steps: steps of the warm-up.
      weight_decay: of the kernels alone.
      clipnorm: global norm of the gradients of kernels, biases and scores together.
      score_rate: rate of the scores over the rate that their optimizer has.
      sgd_rate: peak rate of plain gradient descent on the scores; None for AdamW on them too.
      select: masks of all importances at a step; unless given, top-k of each at `sparsity`.
      penalty_weight: of the mean over matrices of the mean of `sigmoid(scores)`, at a step.
    """
    kernels = [np.array(kernel, np.float64) for kernel in kernels]
    biases = [np.array(bias, np.float64) for bias in biases]
    has_scores = scores is not None
    scores = [np.array(score, np.float64) for score in scores] if has_scores else []
    of_kernels = [AdamW(kernel.shape, weight_decay) for kernel in kernels]
    of_biases = [AdamW(bias.shape) for bias in biases]
    of_scores = [AdamW(score.shape) for score in scores]

    def masks(step: int) -> Arrays:
        importances = scores if has_scores else [np.abs(kernel) for kernel in kernels]
        if select is not None:
            return select(importances, step)
        return [topk_mask(i, kept_count(i.size, sparsity(step))) for i in importances]

    steps = []
    for t, (inputs, labels) in enumerate(batches):
        mask = masks(t)
        loss, upstream, to_biases = loss_and_gradients(
            [m * kernel for m, kernel in zip(mask, kernels)], biases, inputs, labels
        )
        to_scores = [g * kernel for g, kernel in zip(upstream, kernels)] if has_scores else []
        to_kernels = [g * m for g, m in zip(upstream, mask)]
        if penalty_weight is not None:
            weight = penalty_weight(t) / len(scores)
            loss += weight * sum(sigmoid(s).mean() for s in scores)
            for s, gradient in zip(scores, to_scores):
                gradient += weight * sigmoid(s) * sigmoid(-s) / s.size

        norm = np.sqrt(sum(np.sum(g**2) for g in (*to_kernels, *to_biases, *to_scores)))
        clip = min(1.0, clipnorm / norm)
        factor = warmup_decay(t, len(batches), num_warmup_steps)
        rate = factor * learning_rate
        for i, kernel in enumerate(kernels):
            kernels[i] = of_kernels[i](kernel, clip * to_kernels[i], rate)
            biases[i] = of_biases[i](biases[i], clip * to_biases[i], rate)
        for i, gradient in enumerate(to_scores):
            if sgd_rate is None:
                scores[i] = of_scores[i](scores[i], clip * gradient, score_rate * rate)
            else:
                scores[i] = scores[i] - score_rate * factor * sgd_rate * clip * gradient
        steps.append(Step(mask, list(kernels), list(scores), list(biases), loss, norm))
    return Trajectory(steps, masks(len(batches)))
