"""Runs of a task: fine-tuning, pruning, distillation and recovery, each of which can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
import shutil
import time
from typing import Any

import tensorflow as tf

from tf_movprune.callbacks import UpdatePruningStep
from tf_movprune.compaction import compact, compact_in_training
from tf_movprune.core.finite_check import FiniteCheck
from tf_movprune.core.optimizer_steps import step_of
from tf_movprune.distillation import Distiller
from tf_movprune.export.files import replacing
from tf_movprune.export.sizes import size_report
from tf_movprune.pruning import strip_pruning
from tf_movprune.reports.model_card import model_card
from tf_movprune.reports.page import report
from tf_movprune.reports.recorder import RunRecorder
from tf_movprune.runs.checkpoints import Checkpoints
from tf_movprune.runs.evaluation import Outputs, evaluate_splits, predictions_of
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.preparation import PREFIX, load_model, load_teacher, prepare
from tf_movprune.runs.pruning_setup import compaction_step, optimizer_of, prune
from tf_movprune.runs.record import (
    RunPaths,
    check_folder,
    check_packages,
    check_same_data,
    new_record,
    now,
    write_description,
)
from tf_movprune.runs.settings import FINE_TUNE, TrainSettings
from tf_movprune.runs.teacher_check import given_teacher
from tf_movprune.sparsity import summarize_sparsity
from tf_movprune.tasks.batches import training_dataset


def train(
    settings: TrainSettings, *, resume: bool = False, command: str = "", verbose: int = 1
) -> dict[str, Any]:
    """Fine-tunes and prunes a model on a task, and writes everything into the folder of the run.

    Args:
      settings: what to train on, what to prune, and how.
      resume: whether to go on with a run of the same settings that was interrupted. It ends with
        the same numbers as if it had not been.
      command: the command line, for the record.
      verbose: as in `fit`: 0, 1 for a progress bar, 2 for a line.

    Returns:
      The record of the run, as it is in `run.json`.

    Raises:
      FileNotFoundError: data or a model are missing.
      FileExistsError: there is a run in the folder, and it is not to be resumed.
      RuntimeError: another process is training in the folder.
      ValueError: data are malformed, or do not fit the model or the settings; or a weight or score
        has become NaN or infinite, and the last checkpoint is the one before.
    """
    return _Training(settings, resume, command, verbose).run()


class _Training:
    """A run on its way through its phases: its teacher, the pruning, and the recovery after it."""

    def __init__(self, settings: TrainSettings, resume: bool, command: str, verbose: int):
        check_packages()
        self.settings, self.resume, self.verbose = settings, resume, verbose
        self.shell = shell_of(settings.library)
        self.command = command
        self.run_folder = RunPaths(settings.folder)
        self.record = check_folder(self.run_folder, settings, resume=resume)
        if self.record and not self.record["finished"]:
            with self.run_folder.locked():  # raises now, and not after minutes of preparation
                pass
        self.seconds, self.began = self.record.get("seconds", 0.0), time.monotonic()

    def _say(self, text: str) -> None:
        if self.verbose and text:
            print(text, flush=True)

    def run(self) -> dict[str, Any]:
        if self.record.get("finished"):
            self._say(f"The run in {self.run_folder.path} is finished.")
            return self.record
        self._say(self.settings.note)
        self.prepared, model = prepare(self.settings, self._say)
        teacher = given_teacher(self.settings, self.prepared, model, self._say)
        model = self._student(model)
        with self.run_folder.locked():
            return self._train(model, teacher)

    def _train(self, model: Any, teacher: Any) -> dict[str, Any]:
        """The phases of the run, in its folder."""
        steps, is_pruned = self.prepared.num_train_steps, self.settings.method != "dense"
        self._begin()
        if self.settings.teacher == FINE_TUNE:
            teacher = self._fine_tuned_teacher()
        if teacher is not None:  # which has drawn random numbers
            model = self._student(load_model(self.settings, self.prepared))
        step = compaction_step(self.settings, steps)
        trained = self._phase("train", model, steps, teacher, is_pruned=is_pruned, end=step)
        if is_pruned:
            self._update(sparsity=summarize_sparsity(model).as_dict())
        if step < steps:
            model, optimizer = compact_in_training(trained)
            model = self._with_dropout(model)
            self._phase("compacted", model, steps, teacher, optimizer=optimizer, begin=step)
        elif is_pruned:
            model = strip_pruning(model)
            model = compact(model) if self.settings.is_structured else model
        if self.settings.recovery_steps:
            model = self._with_dropout(model)
            self._phase("recovery", model, self.settings.recovery_steps, teacher)
        return self._finish(model)

    def _begin(self) -> None:
        """Writes the record, now that nothing more can be found wrong before a step is taken."""
        data = self.prepared.as_record()
        if check_folder(self.run_folder, self.settings, resume=self.resume) != self.record:
            raise RuntimeError(
                f"Another process has trained in {self.run_folder.path} since this one began. "
                "Pass --resume again."
            )
        if self.record:
            check_same_data(self.record["data"], data, self.run_folder)
        self.record = self.run_folder.write(
            {**new_record(self.settings), **self.record},
            title=self.prepared.task.title,
            main_metric=self.prepared.main_metric,
            label_names=list(self.prepared.label_names),
            num_train_steps=self.prepared.num_train_steps,
            data=data,
            commands=[*self.record.get("commands", []), self.command],
        )

    # ---- phases

    def _student(self, model: Any) -> Any:
        """The model with the dropout of the run, and pruned unless its method is dense."""
        model = self._with_dropout(model)
        if self.settings.method == "dense":
            return model
        return prune(model, self.settings, self.prepared.num_train_steps)

    def _with_dropout(self, model: Any) -> Any:
        """The model with the dropout of the run. Smaller models are made with that of before."""
        if self.settings.dropout is not None:
            self.shell.set_dropout(model, self.settings.dropout)
        return model

    def _fine_tuned_teacher(self) -> Any:
        """A model to learn from that is fine-tuned first, as long as this run."""
        folder, steps = self.run_folder.teacher, self.prepared.num_train_steps
        if not folder.is_dir():
            teacher = load_model(self.settings, self.prepared)
            rate = self.settings.teacher_learning_rate or self.settings.learning_rate
            settings = dataclasses.replace(self.settings, learning_rate=rate)
            optimizer = optimizer_of(teacher, settings, steps, is_pruned=False)
            self._phase("teacher", teacher, steps, None, optimizer=optimizer)
            self._save(teacher, folder)
        return load_teacher(self.settings, self.prepared, folder)

    def _phase(
        self,
        name: str,
        model: Any,
        steps: int,
        teacher: Any,
        *,
        is_pruned: bool = False,
        optimizer: Any = None,
        begin: int = 0,
        end: int | None = None,
    ) -> Any:
        """Trains a model from the last checkpoint of a phase on.

        Args:
          name: name of the phase.
          model: the model.
          steps: steps of the training of which the phase may be a part.
          teacher: model to learn from, or None.
          is_pruned: whether the model has masks.
          optimizer: optimizer to go on with; a new one by default.
          begin: the step after which the phase begins.
          end: the last step of the phase; that of the training by default.

        Returns:
          What was trained, compiled: the model, or a Distiller of it.
        """
        settings, shell = self.settings, self.shell
        trained = model
        if teacher is not None:
            weight = settings.alpha_hidden
            hidden = {"hidden_states": True, "alpha_hidden": weight} if weight else {}
            with shell.precision(settings.precision):
                trained = Distiller(
                    model,
                    teacher,
                    temperature=settings.temperature,
                    alpha_distil=settings.alpha_distil,
                    alpha_ce=settings.alpha_ce,
                    **hidden,
                )
        if optimizer is None:
            optimizer = optimizer_of(model, settings, steps, is_pruned=is_pruned)
        shell.compile_for(trained, self.prepared.task.kind, optimizer, settings.xla)
        state = shell.state(model, trained.optimizer)
        checkpoints = Checkpoints(self.run_folder.checkpoints(name), state)
        first = checkpoints.restore() or begin
        if first > begin:
            self._say(f"{name}: goes on after step {first:,} of {steps:,}.")
        outputs = Outputs(shell, model, jit_compile=settings.xla)
        recorded = self.run_folder.history("train" if begin else name)
        watch = UpdatePruningStep(steps) if is_pruned else self._finite_check(trained)
        last = steps if end is None else end
        ahead = [step for step in sorted({*stops(steps, settings), last}) if first < step <= last]
        for begin, end in itertools.pairwise([first, *ahead]):
            self._say(f"{name}: steps {begin + 1:,} to {end:,} of {steps:,}")
            callbacks: list[Any] = [watch]
            if end in evaluation_steps(steps, settings):
                callbacks.append(self._evaluation(outputs))
            callbacks.append(RunRecorder(recorded, update_freq=max(1, steps // 100)))
            with checkpoints.kept():
                trained.fit(
                    self._batches(model, begin, name),
                    steps_per_epoch=(end - begin) * settings.gradient_accumulation_steps,
                    shuffle=False,
                    callbacks=callbacks,
                    verbose=self.verbose,
                )
            checkpoints.save(end)
            self._update(seconds=self._seconds())
        return trained

    def _finite_check(self, trained: Any) -> Any:
        """A callback that raises NotFiniteError after the step that makes a weight so."""
        check = FiniteCheck(self.shell.trainable_weights(trained))
        batches = self.settings.gradient_accumulation_steps
        return self.shell.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: check(step_of(trained), batch, batches)
        )

    def _batches(self, model: Any, step: int, phase: str) -> tf.data.Dataset:
        """The batches of a phase from a step on; recovery sees them in another order."""
        plan, kind = self.prepared.plan, self.prepared.task.kind
        if phase == "recovery":
            plan = self.prepared.plan_of(self.settings.seed + 1)
        first = step * self.settings.gradient_accumulation_steps
        data = training_dataset(self.prepared.features["train"], plan, first)
        return data.map(lambda x, y: (self.shell.inputs(model, x), self.shell.labels(kind, y)))

    def _evaluation(self, outputs: Outputs) -> Any:
        """A callback that adds metrics to the logs at the end of an epoch."""

        def on_epoch_end(epoch: int, logs: dict[str, float]) -> None:
            batch_size = self.settings.evaluation_batch_size
            for split in self.prepared.splits_while_training:
                predicted = predictions_of(self.prepared, split, outputs, batch_size)
                scores = self.prepared.scores(split, predicted)
                logs.update(
                    {f"val_{name.removeprefix(PREFIX)}": value for name, value in scores.items()}
                )

        return self.shell.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)

    # ---- the end of a run

    def _finish(self, model: Any) -> dict[str, Any]:
        """Evaluates and saves the plain model, and writes what is known of the run."""
        metrics = evaluate_splits(
            self.prepared,
            Outputs(self.shell, model, jit_compile=self.settings.xla),
            self.settings.evaluation_batch_size,
            self.run_folder.predictions,
        )
        # Of the model before heads and neurons were removed; nothing of a smaller one is zero.
        remaining = 1 - self.record.get("sparsity", {"sparsity": 0.0})["sparsity"]
        self._update(metrics=metrics, remaining=remaining)
        self._save(model, self.run_folder.model)
        record = self._update(sizes=_sizes_of(model), seconds=self._seconds())
        self._write_card(record)
        report(self.run_folder.path, self.run_folder.report)
        record = self._update(finished=now(), seconds=self._seconds())
        shutil.rmtree(self.run_folder.all_checkpoints, ignore_errors=True)
        return record

    def _seconds(self) -> float:
        """Seconds that the run took, in all the processes that it had."""
        return round(self.seconds + time.monotonic() - self.began, 1)

    def _write_card(self, record: dict[str, Any]) -> None:
        """Writes the card of the model beside it."""
        card = model_card(record, self.prepared.task.kind, is_pair=self.prepared.is_pair)
        (self.run_folder.model / "README.md").write_text(card, encoding="utf-8")

    def _save(self, model: Any, folder: pathlib.Path) -> None:
        """Writes a model, whole or not at all."""
        with replacing(folder) as new:
            self.shell.save(model, self.prepared.tokenizer, str(new), self.prepared.label_names)
            write_description(
                new,
                task=self.prepared.task.name,
                kind=self.prepared.task.kind,
                label_names=list(self.prepared.label_names),
                max_length=self.prepared.max_length,
                stride=self.settings.stride,
                has_unanswerable=self.prepared.has_unanswerable,
                is_pair=self.prepared.is_pair,
            )

    def _update(self, **values: Any) -> dict[str, Any]:
        self.record = self.run_folder.update(**values)
        return self.record


def evaluation_steps(steps: int, settings: TrainSettings) -> list[int]:
    """The steps after which a run is evaluated, the last one among them."""
    count = min(settings.evaluations, steps)
    return [math.ceil(steps * i / count) for i in range(1, count + 1)]


def stops(steps: int, settings: TrainSettings) -> list[int]:
    """0, the steps after which a run is evaluated or saved, and the last one, in their order."""
    saves = range(0, steps, settings.save_every) if settings.save_every else ()
    return sorted({0, *saves, *evaluation_steps(steps, settings)})


def _sizes_of(model: Any) -> list[dict[str, Any]]:
    """Bytes that a model takes in float32 and in int8, by part; see `tf_movprune.size_report`."""
    return [
        {"format": name, "bytes": parts.pop("all"), "parts": parts}
        for name, parts in size_report(model, quantizations=["int8"]).as_dict().items()
    ]
