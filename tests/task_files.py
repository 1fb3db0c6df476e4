"""Small files of every task, in the official formats, which a model can learn from."""

import json
import random

GOOD = ["lovely", "brilliant", "charming", "superb", "delightful"]
BAD = ["dull", "awful", "boring", "clumsy", "tedious"]
NOUNS = ["film", "plot", "cast", "story", "ending", "music"]
SPLITS = {"train": 24, "dev": 8}

TITLES = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "stsb": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}


def sentence(label, number):
    """A sentence whose adjective tells its label; no two of a split are the same."""
    words = random.Random(f"{label} {number}")
    adjective = words.choice(GOOD if label else BAD)
    return f'the {words.choice(NOUNS)} no. {number} is "{adjective}'


def write_glue(folder, name, train=24, dev=8):
    """Writes a task of GLUE into a folder of its official name in `folder`, and returns that."""
    folder = folder / TITLES[name]
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("dev", dev), ("test", 4)):
        endings = ("_matched", "_mismatched") if name == "mnli" and split != "train" else ("",)
        for ending in endings:
            rows = _rows(name, split, count)
            text = "".join("\t".join(row) + "\n" for row in rows)
            (folder / f"{split}{ending}.tsv").write_text(text, encoding="utf-8", newline="")
    return folder


def _rows(name, split, count):
    """The rows of a file, with its header if it has one."""
    is_test = split == "test"
    labels = [i % (3 if name == "mnli" else 2) for i in range(count)]
    first = [sentence(label == 0, f"{split}{i}") for i, label in enumerate(labels)]
    second = [sentence(label, f"{split}{i} again") for i, label in enumerate(labels)]
    names = {
        "mnli": ["entailment", "neutral", "contradiction"],
        "qnli": ["entailment", "not_entailment"],
        "rte": ["entailment", "not_entailment"],
    }.get(name, ["0", "1"])
    index = [str(i) for i in range(count)]
    gold = [names[label] for label in labels]
    if name == "cola":
        if is_test:
            return [["index", "sentence"], *zip(index, second)]
        return [["gj04", label, "" if label == "1" else "*", t] for label, t in zip(gold, second)]
    if name == "sst2":
        columns = {"index": index} if is_test else {}
        columns["sentence"] = [text + " " for text in second]
    elif name == "mrpc":
        columns = {"index": index} if is_test else {"Quality": gold}
        columns |= {"#1 ID": index, "#2 ID": index, "#1 String": first, "#2 String": second}
    elif name == "qqp":
        columns = {"id": index} | ({} if is_test else {"qid1": index, "qid2": index})
        columns |= {"question1": first, "question2": second}
    elif name == "stsb":
        columns = {"index": index}
        columns |= {key: ["x"] * count for key in ["genre", "filename", "year", "old_index"]}
        columns |= {key: ["x"] * count for key in ("source1", "source2")}
        columns |= {"sentence1": first, "sentence2": second}
        gold = [
            f"{5 * label - 0.25 * (i % 4) * (2 * label - 1):.3f}" for i, label in enumerate(labels)
        ]
    elif name == "mnli":
        columns = {key: ["x"] * count for key in ["index", "promptID", "pairID", "genre"]}
        columns |= {
            f"sentence{i}_{kind}": ["( x )"] * count
            for kind in ("binary_parse", "parse")
            for i in (1, 2)
        }
        columns |= {"sentence1": first, "sentence2": second}
        if not is_test:
            columns |= {f"label{i}": gold for i in range(1, 6 if split == "dev" else 2)}
    elif name == "qnli":
        columns = {"index": index, "question": first, "sentence": second}
    else:
        columns = {"index": index, "sentence1": first, "sentence2": second}
    target = {"mrpc": None, "qqp": "is_duplicate", "stsb": "score", "mnli": "gold_label"}
    column = target.get(name, "label")
    if column and not is_test:
        columns[column] = gold
    return [list(columns), *zip(*columns.values())]


def write_squad(folder, version="v1.1", train=12, dev=6):
    """Writes SQuAD's files of a version into a folder of its name in `folder`, and returns that."""
    folder = folder / f"squad_{version}"
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("dev", dev)):
        content = squad_content(split, version, count)
        (folder / f"{split}-{version}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def squad_content(split="train", version="v1.1", count=12):
    """A SQuAD file with two questions about each of `count` / 2 contexts.

    In v2.0, each second question has no answer. Questions of "dev" have two right answers.
    """
    paragraphs = []
    for i in range(count // 2):
        words = random.Random(f"{split} {i}")
        noun, good, bad = (words.choice(list_) for list_ in (NOUNS, GOOD, BAD))
        context = f"The {noun} no. {i} was – at first — {good}. Then the end of it was {bad}."
        questions = []
        for k, text in enumerate((good, bad)):
            answers = [{"text": text, "answer_start": context.index(text)}]
            if split == "dev":
                longer = f"was {text}" if k else text
                answers.append({"text": longer, "answer_start": context.index(longer)})
            question = {
                "id": f"{split}{i}{k}",
                "question": f"How was {noun} no. {i} {'then' if k else 'first'}?",
            }
            if version == "v2.0":
                question["is_impossible"] = bool(k)
                if k:
                    question["plausible_answers"], answers = answers, []
            questions.append(question | {"answers": answers})
        paragraphs.append({"context": context, "qas": questions})
    return {"version": version, "data": [{"title": f"About {split}", "paragraphs": paragraphs}]}
