"""The fine-tuning loop, with accelerate for devices and processes.

MOSS's recipe: AdamW without weight decay on biases and norms, cosine schedule with warm-up,
gradient clipping, eval loss. It saves the model to serve and the state to resume from.
"""

from contextlib import ExitStack
from functools import partial

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup, set_seed

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.finetune.checkpoint import export_model, load_state, save_state, together
from moss_tp.finetune.dataset import LengthGroupedBatches, SFTDataset, collate
from moss_tp.finetune.example import MaskOptions
from moss_tp.finetune.manifest import Progress
from moss_tp.finetune.output import OutputDir, check_apart
from moss_tp.finetune.recipe import Recipe
from moss_tp.finetune.report import Metric, Report
from moss_tp.finetune.settings import FinetuneSettings
from moss_tp.finetune.sft_model import SFTModel, load_causal_lm
from moss_tp.tokenizer import Tokenizer

Batches = DataLoader[tuple[Tensor, Tensor]]


def finetune(settings: FinetuneSettings) -> Progress:
    """Runs the training; the model is in `output_dir / "model"` afterwards.

    Raises ConfigError, CheckpointError or ConversationError for what cannot work, before the first
    step where possible, and CheckpointError when a state or the model cannot be saved.
    """
    check_apart(settings.output_dir, settings.model)
    set_seed(settings.seed)
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation,
    )
    output = OutputDir(settings.output_dir)
    with ExitStack() as stack:
        owned = output.owned(resume=settings.resume)
        together(accelerator, "starting", lambda: stack.enter_context(owned), main_only=True)
        progress = Trainer(settings, accelerator, output).run()
        # Threads of a process group that still run when Python exits would abort the process.
        accelerator.end_training()
        return progress


class Trainer:
    """One run: loads data and model when constructed, trains in `run`."""

    def __init__(
        self, settings: FinetuneSettings, accelerator: Accelerator, output: OutputDir
    ) -> None:
        self.settings, self.accelerator, self.output = settings, accelerator, output
        config = ModelConfig.from_dir(settings.model)
        self.max_seq_len = min(settings.max_seq_len, config.max_position_embeddings)
        self.tokenizer = Tokenizer.from_dir(settings.model)
        if self.tokenizer.vocab_size > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {settings.model} has {self.tokenizer.vocab_size} tokens, the "
                f"model only {config.vocab_size}"
            )
        self.train = self._dataset("train")
        self.batches = LengthGroupedBatches(self.train.lengths, settings.batch_size, settings.seed)
        self.eval_loader = self._eval_loader()
        self.num_steps = self._count_steps()
        count = accelerator.num_processes
        self.recipe = Recipe.of(settings, config, self.train.digest, count)
        self._prepare(DataLoader(self.train, batch_sampler=self.batches, collate_fn=collate))
        self.metric = Metric(self.accelerator.device)
        self.progress = Progress()
        self._saved_step = self._exported_step = 0

    def _prepare(self, loader: Batches) -> None:
        """Loads the model, and has accelerate wrap it, its optimizer and `loader`."""
        settings = self.settings
        model = SFTModel(load_causal_lm(settings.model, settings.gradient_checkpointing))
        optimizer = AdamW(
            _parameter_groups(model, settings.weight_decay),
            lr=settings.learning_rate,
            betas=(0.9, settings.adam_beta2),
        )
        self.schedule = get_cosine_schedule_with_warmup(
            optimizer, round(settings.warmup_rate * self.num_steps), self.num_steps
        )
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.accelerator.register_for_checkpointing(self.schedule)

    def run(self) -> Progress:
        """Takes all remaining steps and saves after the last one."""
        together(self.accelerator, "starting", self._start_report, main_only=False)
        try:
            if self.settings.resume:
                self._resume()
            while self.progress.step < self.num_steps:
                self._run_epoch()
            if self._exported_step != self.progress.step:
                self._save()
        finally:
            self.report.close()
        return self.progress

    def _start_report(self) -> None:
        log_dir = self.settings.log_dir or self.settings.output_dir
        self.report = Report(log_dir, self.num_steps, self.accelerator.is_main_process)
        if self.train.losses is not None:
            self.report.say(self.train.losses)

    def _resume(self) -> None:
        self.progress, changes = load_state(self.accelerator, self.output, self.recipe)
        self._saved_step = self.progress.step
        self.report.resume(self.progress.step)
        if changes:
            self.report.say(f"the run had {', '.join(changes)}: changed from here on")

    def _run_epoch(self) -> None:
        self.model.train()
        self.batches.epoch = self.progress.epoch
        first = self.progress.batch
        self.batches.num_skipped = first * self.accelerator.num_processes
        for batch, (ids, labels) in enumerate(self.loader, first + 1):
            self._train_batch(ids, labels)
            if not self.accelerator.sync_gradients:
                continue
            self.progress = Progress(self.progress.step + 1, self.progress.epoch, batch)
            self._after_step()
            if self.progress.step == self.num_steps:
                return
        self.progress = Progress(self.progress.step, self.progress.epoch + 1, 0)

    def _train_batch(self, ids: Tensor, labels: Tensor) -> None:
        with self.accelerator.accumulate(self.model):
            loss, num_correct, num_labels = self.model(ids, labels)
            self.metric.update(loss, num_correct, num_labels)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(
                    self.model.parameters(), self.settings.max_grad_norm
                )
            self.optimizer.step()
            if self.accelerator.sync_gradients and not self.accelerator.optimizer_step_was_skipped:
                self.schedule.step()
            self.optimizer.zero_grad()

    def _after_step(self) -> None:
        step, settings = self.progress.step, self.settings
        self.report.advance()
        if step % settings.log_step == 0:
            loss, accuracy = self.metric.read(self.accelerator)
            rate = self.schedule.get_last_lr()[0]
            self.report.log(step, loss=loss, acc=accuracy, lr=rate)
        if self.eval_loader is not None and step % settings.eval_step == 0:
            loss, accuracy = self._evaluate(self.eval_loader)
            self.report.log(step, eval_loss=loss, eval_acc=accuracy)
        if step % settings.save_step == 0:
            self._save()

    @torch.no_grad()
    def _evaluate(self, loader: Batches) -> tuple[float, float]:
        self.model.eval()
        metric = Metric(self.accelerator.device)
        for ids, labels in loader:
            metric.update(*self.model(ids, labels))
        self.model.train()
        return metric.read(self.accelerator)

    def _save(self) -> None:
        settings, accelerator = self.settings, self.accelerator
        if self._saved_step != self.progress.step:
            save_state(accelerator, self.output, self.progress, self.recipe)
            self._saved_step = self.progress.step
        state = accelerator.get_state_dict(self.model)
        weights = {name.removeprefix("causal_lm."): tensor for name, tensor in state.items()}
        dtype = getattr(torch, settings.export_dtype)
        export = partial(export_model, weights, settings.model, self.output, dtype)
        together(accelerator, "saving the model", export, main_only=True)
        self._exported_step = self.progress.step

    def _dataset(self, name: str) -> SFTDataset:
        path = self.settings.data_dir / f"{name}.jsonl"
        options = MaskOptions(self.settings.mask_human, self.settings.served_history)
        return SFTDataset(path, self.tokenizer, self.max_seq_len, options)

    def _eval_loader(self) -> Batches | None:
        if not (self.settings.data_dir / "val.jsonl").is_file():
            return None
        dataset = self._dataset("val")
        size = self.settings.eval_batch_size
        loader: Batches = DataLoader(dataset, batch_size=size, collate_fn=collate)
        prepared: Batches = self.accelerator.prepare(loader)
        return prepared

    def _count_steps(self) -> int:
        settings = self.settings
        batches: int = len(self.batches) // self.accelerator.num_processes
        steps = -(-batches // settings.gradient_accumulation) * settings.epochs
        if steps == 0:
            raise ConfigError(
                f"{len(self.train)} training conversations do not fill a batch of "
                f"{settings.batch_size} on each of {self.accelerator.num_processes} processes"
            )
        return steps if settings.max_steps is None else min(steps, settings.max_steps)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices only: biases and norms, with one dimension, have none."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
