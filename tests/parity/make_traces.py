"""Makes the traces that `tests/test_parity.py` replays through the library.

Movement pruning of a tiny BERT in PyTorch, written from the paper. It shares no code with the
library and imports no TensorFlow. Four things that the paper leaves open follow the authors'
published code: the soft penalty is a mean over matrices, and its weight rises with the threshold;
AdamW adds epsilon to the root of the uncorrected second moment; the learning rate starts from 0.

    python -m venv traces
    traces/bin/pip install torch==2.13.0 transformers==4.54.1 safetensors numpy
    traces/bin/python tests/parity/make_traces.py

The committed traces were made with these versions on 28 November 2026. Each run also trains in
float64 and must select the same masks. Printed for each run: the distance from a cut to the nearest
score (for magnitude, to the nearest weight), and how far float32 is from float64.

Reference:
  Sanh, Wolf & Rush (2020), https://arxiv.org/abs/2005.07683.
"""

import copy
import gzip
import json
import math
import pathlib

import numpy as np
import safetensors.torch
import torch
import transformers
from torch.func import functional_call
from torch.nn.functional import cross_entropy, kl_div, log_softmax

FOLDER = pathlib.Path(__file__).parent
BATCH, LENGTH, VOCABULARY, LABELS = 4, 8, 50, 3
COMMON = {
    "steps": 20,
    "lr": 1e-3,
    "score_lr": 1e-2,
    "warmup": 3,
    "iw": 1,  # pruning starts after this many times the warm-up
    "fw": 2,  # and reaches its end this many times the warm-up before the last step
    "init": 1.0,  # fraction kept, or threshold of soft movement
    "final": 0.15,
    "lam": 0.0,
    "wd": 0.0,
    "clip": 1.0,
    "global_topk": False,
    "teacher": False,
    "T": 2.0,
    "alpha_distil": 0.5,
    "alpha_ce": 0.5,
}
SOFT = {"init": 0.0, "final": 0.1, "lam": 150.0, "score_lr": 0.5}
RUNS = {
    "hard": {"method": "hard", "seed": 1},
    "hard_global": {"method": "hard", "seed": 2, "global_topk": True},
    "hard_distilled": {"method": "hard", "seed": 10, "teacher": True},
    "soft": {"method": "soft", "seed": 9, **SOFT},
    "magnitude": {"method": "magnitude", "seed": 4, "lr": 4e-3, "wd": 0.01},
}


class StraightThrough(torch.autograd.Function):
    """Masks a weight; the gradient reaches the scores of all entries, masked ones too."""

    @staticmethod
    def forward(ctx, weight, scores, mask):
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx, gradient):
        weight, mask = ctx.saved_tensors
        return gradient * mask, gradient * weight, None


class AdamW:
    """Adam with decoupled weight decay, for a dict of tensors."""

    def __init__(self, parameters):
        self.moments = {
            n: [torch.zeros_like(p), torch.zeros_like(p)] for n, p in parameters.items()
        }
        self.updates = 0

    @torch.no_grad()
    def update(self, parameters, gradients, rates, decays):
        self.updates += 1
        correction = math.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
        for (name, p), gradient in zip(parameters.items(), gradients):
            first, second = self.moments[name]
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient**2, 0.001)
            p -= rates[name] * (decays[name] * p + correction * first / (second.sqrt() + 1e-8))


def pruning_value(settings, step):
    """Fraction kept, or threshold: equation 5 of the paper."""
    begin = settings["iw"] * settings["warmup"]
    end = settings["steps"] - settings["fw"] * settings["warmup"]
    left = 1 - min(max((step - begin) / (end - begin), 0.0), 1.0)
    return settings["final"] + (settings["init"] - settings["final"]) * left**3


def learning_rate(settings, step):
    """Rate over its peak: linear warm-up and decay."""
    steps, warmup = settings["steps"], settings["warmup"]
    return step / warmup if step < warmup else (steps - step) / (steps - warmup)


def largest(values, fraction):
    """Mask of the largest values, and the distance of the last kept from the first that is cut."""
    ordered, order = values.flatten().sort(descending=True)
    count = int(fraction * len(order))
    mask = torch.zeros(len(order), dtype=torch.bool)
    mask[order[:count]] = True
    margin = ordered[count - 1] - ordered[count] if count < len(order) else torch.tensor(math.inf)
    return mask.reshape(values.shape), margin.item()


@torch.no_grad()
def select(settings, importances, value):
    """The mask of each matrix, and the least distance of a value from its cut."""
    if settings["method"] == "soft":
        cut = math.log(value / (1 - value)) if value > 0 else -math.inf
        masks = {name: scores > cut for name, scores in importances.items()}
        return masks, min((s - cut).abs().min().item() for s in importances.values())
    if settings["global_topk"]:
        together = torch.cat([values.flatten() for values in importances.values()])
        mask, margin = largest(together, value)
        parts = mask.split([values.numel() for values in importances.values()])
        masks = [part.reshape(v.shape) for part, v in zip(parts, importances.values())]
        return dict(zip(importances, masks)), margin
    found = {name: largest(values, value) for name, values in importances.items()}
    return {name: mask for name, (mask, _) in found.items()}, min(m for _, m in found.values())


def train(settings, model, teacher, batches):
    """Trains a copy: losses, masks and importances of each step, and the least margin."""
    model = copy.deepcopy(model)
    weights = {name: p for name, p in model.named_parameters() if ".embeddings." not in name}
    matrices = [name for name, p in weights.items() if ".encoder." in name and p.ndim == 2]
    scores = {}
    if settings["method"] != "magnitude":
        scores = {n: torch.zeros_like(weights[n], requires_grad=True) for n in matrices}
    trained = {**weights, **{f"{name}.scores": s for name, s in scores.items()}}
    peaks = {n: settings["lr" if n in weights else "score_lr"] for n in trained}
    decayed = [n for n in weights if n.endswith("weight") and "LayerNorm" not in n]
    decays = {n: settings["wd"] if n in decayed else 0.0 for n in trained}
    optimizer = AdamW(trained)
    record = {"loss": [], "total_loss": [], "threshold": [], "lambda": []}
    all_masks, all_importances, margins = [], [], []

    for step in range(settings["steps"] + 1):
        value = pruning_value(settings, step)
        importances = scores or {name: weights[name].abs() for name in matrices}
        masks, margin = select(settings, importances, value)
        all_masks.append(masks)
        all_importances.append(torch.cat([v.detach().flatten() for v in importances.values()]))
        margins.append(margin)
        if step == settings["steps"]:
            return record, all_masks, all_importances, min(margins)

        inputs = {name: torch.tensor(values[step]) for name, values in batches.items()}
        labels = inputs.pop("labels").long()
        masked = {
            name: StraightThrough.apply(weights[name], scores[name], masks[name])
            if scores
            else weights[name] * masks[name]
            for name in matrices
        }
        logits = functional_call(model, masked, kwargs=inputs).logits
        loss = total = cross_entropy(logits, labels)
        if teacher:
            soft, hard = settings["alpha_distil"], settings["alpha_ce"]
            with torch.no_grad():
                taught = log_softmax(teacher(**inputs).logits / settings["T"], dim=-1)
            learnt = log_softmax(logits / settings["T"], dim=-1)
            kl = kl_div(learnt, taught, reduction="batchmean", log_target=True) * settings["T"] ** 2
            total = soft * kl + hard * loss
        penalty = settings["lam"] * value / settings["final"]
        if settings["method"] == "soft":
            means = torch.stack([s.sigmoid().mean() for s in scores.values()])
            total = total + penalty * means.mean()
        record["loss"].append(loss.item())
        record["total_loss"].append(total.item())
        record["threshold"].append(value)
        record["lambda"].append(penalty)

        gradients = torch.autograd.grad(total, list(trained.values()))
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        gradients = [g * min(1.0, settings["clip"] / norm) for g in gradients]
        rate = learning_rate(settings, step)
        rates = {name: rate * peak for name, peak in peaks.items()}
        optimizer.update(trained, gradients, rates, decays)


def make_bert(seed):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        num_labels=LABELS,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config).eval()


def make_batches(seed, steps):
    random = np.random.default_rng(seed)
    shape = (steps, BATCH, LENGTH)
    lengths = random.integers(LENGTH // 2, LENGTH + 1, size=(steps, BATCH, 1))
    mask = np.arange(LENGTH) < lengths
    batches = {
        "input_ids": random.integers(1, VOCABULARY, shape) * mask,
        "attention_mask": mask,
        "token_type_ids": mask & (np.arange(LENGTH) >= lengths // 2),
        "labels": random.integers(LABELS, size=(steps, BATCH)),
    }
    return {name: values.astype(np.int32) for name, values in batches.items()}


def save_masks(path, masks):
    path.write_bytes(gzip.compress(safetensors.torch.save(masks), mtime=0))


def make_trace(run, settings):
    folder, steps = FOLDER / run, settings["steps"]
    model = make_bert(settings["seed"])
    teacher = make_bert(settings["seed"] + 100) if settings["teacher"] else None
    batches = make_batches(settings["seed"], steps)
    record, masks, importances, margin = train(settings, model, teacher, batches)
    model.save_pretrained(folder)
    if teacher:
        teacher.save_pretrained(folder / "teacher")
    np.savez_compressed(folder / "batches.npz", **batches)
    masks = [{n.removesuffix(".weight"): m for n, m in each.items()} for each in masks]
    trace = {**settings, "masked_matrices": list(masks[0]), **record}
    (folder / "trace.json").write_text(json.dumps(trace, indent=1) + "\n")
    named = {f"{step}/{n}": mask for step in range(steps) for n, mask in masks[step].items()}
    save_masks(folder / "step_masks.safetensors.gz", named)
    save_masks(folder / "final_masks.safetensors.gz", masks[steps])

    exact = train(settings, model.double(), teacher and teacher.double(), batches)
    for step, (mine, other) in enumerate(zip(masks, exact[1])):
        if not all(map(torch.equal, mine.values(), other.values())):
            raise ValueError(f"{run}: float64 selects other masks at step {step}: change the seed.")
    apart = max((a - b).abs().max().item() for a, b in zip(importances, exact[2]))
    print(f"{run}: cuts at least {margin:.1e} away, float32 off by {apart:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for run, changes in RUNS.items():
        make_trace(run, COMMON | changes)
