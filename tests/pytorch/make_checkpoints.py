"""Makes the checkpoints in `checkpoints/`: random models of PyTorch, and what they compute.

    pip install torch==2.13.0 transformers==4.54.1
    python tests/pytorch/make_checkpoints.py

Tests compare with the numbers that it wrote, and need no torch.
"""

import pathlib

import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / "checkpoints"
SIZES = {"vocab_size": 30, "max_position_embeddings": 16, "initializer_range": 0.4}
BERT = {
    **SIZES,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
}
DISTILBERT = {**SIZES, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
MODELS = {
    "bert_questions": ("BertForQuestionAnswering", BERT, {}),
    "bert_texts": ("BertForSequenceClassification", {**BERT, "hidden_act": "relu"}, {}),
    "bert_tokens": ("BertForTokenClassification", {**BERT, "num_labels": 3}, {}),
    "roberta_texts": (
        "RobertaForSequenceClassification",
        {**BERT, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
        {},
    ),
    "distilbert_texts": ("DistilBertForSequenceClassification", DISTILBERT, {"num_labels": 3}),
    "electra_questions": ("ElectraForQuestionAnswering", {**BERT, "embedding_size": 8}, {}),
    "bert_without_heads": ("BertForQuestionAnswering", BERT, {}),
}
PRUNED_HEADS = {"bert_without_heads": {0: [0, 2], 1: [1]}}


def main():
    generator = np.random.RandomState(0)
    ids = generator.randint(5, 30, [2, 9])
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    ids[1, 6:] = 1  # RoBERTa numbers positions by what is no padding
    np.savez(FOLDER / "inputs.npz", ids=ids, mask=mask)
    for seed, (name, (cls, sizes, more)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        made = getattr(transformers, cls)
        model = made(made.config_class(**sizes, **more)).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms begin at 0 and 1
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        if name in PRUNED_HEADS:
            model.prune_heads(PRUNED_HEADS[name])
        folder = FOLDER / name
        is_old = name == "bert_without_heads"
        model.save_pretrained(folder, safe_serialization=not is_old)
        if is_old:
            path = folder / "pytorch_model.bin"
            torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
        if name == "bert_texts":  # in shards, of the format since PyTorch 1.6
            (folder / "model.safetensors").unlink()
            model.save_pretrained(folder, safe_serialization=False, max_shard_size="12KB")
        with torch.no_grad():
            outputs = model(torch.tensor(ids), attention_mask=torch.tensor(mask))
        logits = [outputs[key].numpy() for key in outputs if key.endswith("logits")]
        np.save(folder / "expected.npy", np.stack(logits))


if __name__ == "__main__":
    main()
