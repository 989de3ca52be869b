"""A rank's side of a step on a GPU: one copy in, one graph, one copy out.

    host      fill pinned ints | queue: copy in, graph or kernels, copy out, event | ... | decode
    device                       copy in -> take ids -> model -> sample -> copy out -> event

The host is done with a step when it is queued, and may queue the next one, whose pending ids the
device fills in by itself; it looks at the event now and then, and never waits for the device. Two
steps on their way have pinned memory of their own; on the device all steps share one block.
"""

import gc
import time
from collections.abc import Sequence
from functools import partial

import torch

from moss_tp.accelerator.base import Accelerator, Event, Graph
from moss_tp.config import ModelConfig
from moss_tp.engine.graphs.buckets import bucket_of, bucket_rows
from moss_tp.engine.graphs.device_step import DeviceStep
from moss_tp.engine.graphs.layout import StepLayout
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine.graphs.memory import largest_steps, prompt_steps
from moss_tp.engine.graphs.sampler import StepSampler
from moss_tp.engine.graphs.scores import StepScores
from moss_tp.engine.graphs.step_input import StepInput
from moss_tp.engine.graphs.step_slot import GraphStep, StepSlot, first_line, is_out_of_memory
from moss_tp.engine.graphs.step_views import StepShape, StepViews, step_views
from moss_tp.engine.graphs.wait import wait_for
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError, StepMemoryError
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SamplingRow

NUM_SLOTS = 2


class GraphRunner:
    """See `Runner`. `model` is on the accelerator's device; `engine` is resolved."""

    max_in_flight = 2

    def __init__(
        self,
        model: MossForCausalLM,
        config: ModelConfig,
        group: TPGroup,
        engine: EngineConfig,
        accelerator: Accelerator,
        sampler: StepSampler,
    ) -> None:
        self.model = model
        self.config = config
        self.group = group
        self.cache_dtype: torch.dtype = getattr(torch, engine.cache_dtype)
        self.cache_format = model.kernels.cache
        self.forward_s = 0.0
        self.num_replays = 0
        self.engine = engine
        self._gpu = accelerator
        self._sampler = sampler
        limits = step_limits(engine)
        # Ranks that share a GPU exchange tensors through the host, which a graph cannot.
        self._all_buckets = bucket_rows(limits) if group.can_be_recorded else ()
        self._buckets: tuple[int, ...] = ()  # those that are recorded
        self._max_logit_rows = limits.max_logit_rows
        self._scores = StepScores(model, limits, config.vocab_size, accelerator)
        self._layout = StepLayout.of(limits, engine.block_size, sampler.num_ints)
        self._block = torch.zeros(self._layout.num_ints, dtype=torch.int32, device=group.device)
        self._device_step: DeviceStep | None = None
        self._graphs: dict[int, Graph] = {}
        group.before_close(lambda: self._graphs.clear())
        self._slots: list[StepSlot] = []
        self._num_launched = 0
        self._num_in_flight = 0
        self._last_end = 0.0
        self._given_up: str | None = None

    def prepare(self) -> None:
        """See `Runner`. Runs the largest steps and records the largest graph, over a cache of one
        block; the graph's memory is that of all others, too."""
        if self.engine.kv_cache_bytes is not None:
            return
        if self.group.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()  # of what loading has left
        self._allocate_cache(num_blocks=1)
        self._record_graphs(self._all_buckets[-1:])
        self._run(largest_steps(self.engine))

    def allocate(self, num_blocks: int) -> None:
        """See `Runner`. Records the graphs, too: all ranks must be in here at the same time.

        On a GPU it then runs steps that compile what kernels are left, and that take the memory
        which `prepare` has measured once more: torch gives it back before each recording."""
        self._allocate_cache(num_blocks)
        self._record_graphs(self._all_buckets)
        if self.group.device.type == "cuda":
            self.warm_up()

    def warm_up(self) -> None:
        """Runs a step of each kind that has no graph, so that no request waits for compilers."""
        rows = self.model.kernels.row_buckets
        self._run([*prompt_steps(self.engine, rows), *largest_steps(self.engine)])
        self.forward_s, self.num_replays = 0.0, 0

    def give_up(self, reason: str) -> None:
        """See `Runner`."""
        self._given_up = reason

    def _allocate_cache(self, num_blocks: int) -> None:
        self._graphs = {}
        self._device_step, self._slots = None, []  # and with them the cache before
        size, dtype = self.engine.block_size, self.cache_dtype
        kv = KVCache.allocate(self.config, self.group, num_blocks, size, dtype, self.cache_format)
        self._device_step = DeviceStep(self.model, kv, self._sampler, self._scores, self.group)
        self._slots = [self._make_slot(num_blocks * size) for _ in range(NUM_SLOTS)]

    def _record_graphs(self, buckets: tuple[int, ...]) -> None:
        self._buckets = buckets
        self._sampler.encode((), self._slots[0].sampling, self._max_logit_rows)
        self._gpu.compute.copy(self._block, self._slots[0].inputs)
        for rows in reversed(buckets):
            self._graphs[rows] = self._record(self._slots[0].step_input.shape_of(rows))
        self._wait()  # before a step changes what is copied

    def _run(self, batches: Sequence[Batch]) -> None:
        """One after the other, before the first request."""
        for batch in batches:
            try:
                step = self.launch(batch, ())
                self._wait_for(step)
                step.tokens()
            except StepMemoryError as error:
                raise ConfigError(
                    f"{self.group.device} has no memory for the largest step: lower "
                    "max_num_batched_tokens, max_num_seqs or kv_cache_bytes, or raise "
                    f"cpu_offload_gb ({error})"
                ) from error

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> GraphStep:
        """See `Runner`. Steps end in the order of their launch; the tokens of all but one must
        have been read."""
        if not self._slots:
            raise RuntimeError("the KV cache is not allocated")
        if self._num_in_flight >= self.max_in_flight:
            raise RuntimeError("too many steps are in flight")
        slot = self._slots[self._num_launched % len(self._slots)]
        is_scored = len(batch.scored_rows) > 0
        bucket = None if is_scored else bucket_of(batch, self._buckets)
        shape = slot.step_input.fill(batch, bucket)
        if is_scored:
            slot.scores.fill(batch)
        self._queue(slot, bucket, shape, rows, len(batch.scored_rows))
        step = GraphStep(
            event=self._gpu.compute.record(),
            slot=slot,
            rows=rows,
            decode=self._sampler.decode,
            scored=batch if is_scored and self.group.rank == 0 else None,
            note_end=self._note_end,
            note_read=self._note_read,
        )
        self._num_launched += 1
        self._num_in_flight += 1
        return step

    def _queue(
        self,
        slot: StepSlot,
        bucket: int | None,
        shape: StepShape,
        rows: Sequence[SamplingRow],
        num_scored: int,
    ) -> None:
        """Raises StepMemoryError, on a single rank. Other ranks would wait for one that fails."""
        try:
            self._sampler.encode(rows, slot.sampling, shape.logit_rows)
            self._queue_all(slot, bucket, shape, num_scored)
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = first_line(error)  # the error's frames hold the step's tensors
        if self.group.size > 1:
            raise RuntimeError(message)
        self._wait()  # what was queued before the failure still reads the slot
        if self.group.device.type == "cuda":
            torch.cuda.empty_cache()  # kernels and cuBLAS take memory beside torch's allocator
        raise StepMemoryError(message)

    def _queue_all(
        self, slot: StepSlot, bucket: int | None, shape: StepShape, num_scored: int
    ) -> None:
        queue = self._gpu.compute
        queue.copy(self._block, slot.inputs)
        if num_scored:
            self._scores.copy_in(queue, slot.scores)
            queue.launch(self._work(shape, num_scored))
            self._scores.copy_out(queue, slot.scores)
        elif bucket is None:
            queue.launch(self._work(shape))
        else:
            self._graphs[bucket].replay()
            self.num_replays += 1
        queue.copy(slot.outputs, self._sampler.outputs)

    def _wait(self) -> None:
        """For all that is queued. Only where no request runs."""
        self._wait_for(self._gpu.compute.record())

    def _wait_for(self, event: Event | GraphStep) -> None:
        wait_for(partial(self._is_done, event), self.engine.step_limit_s)

    def _is_done(self, event: Event | GraphStep) -> bool:
        if self._given_up is not None:
            raise RuntimeError(self._given_up)
        return event.is_done()

    def _record(self, shape: StepShape) -> Graph:
        work = self._work(shape)
        self._gpu.compute.launch(work)  # compiles kernels and connects ranks, unlike a recording
        self._wait()  # recording may wait for the device, and that for a rank that is gone
        self.group.barrier()
        return self._gpu.graph(work)

    def _work(self, shape: StepShape, num_scored: int = 0) -> "partial[None]":
        if self._device_step is None:
            raise RuntimeError("the KV cache is not allocated")
        views: StepViews = step_views(self._block, self._layout, shape, self.engine.block_size)
        return partial(self._device_step.compute, views, num_scored)

    def _make_slot(self, spare_slot: int) -> StepSlot:
        inputs = self._gpu.pinned((self._layout.num_ints,), torch.int32)
        outputs = self._sampler.outputs
        block = inputs.numpy()
        return StepSlot(
            inputs=inputs,
            outputs=self._gpu.pinned(tuple(outputs.shape), outputs.dtype),
            step_input=StepInput(block, self._layout, self.engine.block_size, spare_slot),
            sampling=block[self._layout.sampling.span],
            scores=self._scores.make_slot(),
        )

    def _note_end(self, step: GraphStep) -> None:
        """A step runs from its launch, or from the end of the one before it."""
        now = time.perf_counter()
        self.forward_s += now - max(step.launched_at, self._last_end)
        self._last_end = now

    def _note_read(self) -> None:
        self._num_in_flight -= 1
