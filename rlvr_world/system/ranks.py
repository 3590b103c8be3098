"""Processes that train as one, started by ``torchrun``: each runs the same program and knows every rollout. They share
sampling, scoring and gradients, and the first alone writes. In a process that stands alone all of this is nothing.

What processes tell each other is JSON, and tensors: no pickle.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rlvr_world.errors import RankLost

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""What the others wait for the first to collect rows or write a model. One that dies is noticed at once, otherwise."""
HEARD_OUT = 3.0  # seconds after which torchrun has ended all processes, where one has failed
_ahead = False  # inside ``first_ahead``: this process goes its way without the others


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() and not _ahead else 1


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() and not _ahead else 0


def first() -> bool:
    """Whether this is the process that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Inside, the processes that torchrun started with this one work as one; those after the first say nothing.

    Where all fail alike the first alone is heard, and where one fails it alone: the others wait to be ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    gpus = device != "cpu" and torch.cuda.is_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    try:
        with open(os.devnull, "w") as nowhere, ExitStack() as silent:
            for redirected in () if first() else (redirect_stdout, redirect_stderr):
                silent.enter_context(redirected(nowhere))
            yield
            everyone(None)
    except BaseException as error:
        time.sleep(HEARD_OUT if isinstance(error, RankLost) or not first() else 0)
        raise
    dist.destroy_process_group()
    gc.collect()  # of cycles in which a shared model holds the group: its threads must not outlive the interpreter


def let_first() -> None:
    """Time for the first process to fail alike and have this one ended."""
    if not first():
        time.sleep(HEARD_OUT)


@contextmanager
def _together() -> Iterator[None]:
    """A message among all processes fails where one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost("another process of this run has ended") from error


def check_others(error: Exception) -> None:
    """Raises RankLost where it is the end of another process that made this one fail."""
    if isinstance(error, dist.DistError) or "Connection closed by peer" in str(error):
        raise RankLost("another process of this run has ended") from error


def mine(items: Sequence[T]) -> Sequence[T]:
    """This process's share."""
    return items[rank() :: size()]


def everyone(value: T) -> list[T]:
    """What each process says, as JSON reads it back."""
    if size() == 1:
        return [value]
    said = torch.frombuffer(bytearray(json.dumps(value, default=float).encode()), dtype=torch.uint8)
    with _together():
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
        dist.all_gather(lengths, torch.tensor([len(said)]))
        longest = max(int(n) for n in lengths)
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in lengths]
        dist.all_gather(parts, torch.nn.functional.pad(said, (0, longest - len(said))))
    return [json.loads(part[: int(n)].numpy().tobytes()) for part, n in zip(parts, lengths, strict=True)]


def gathered(own: Sequence[T], total: int) -> list[T]:
    """Everybody's results for their shares of ``total`` items, in the order of the items."""
    parts = everyone(list(own))
    return [parts[i % size()][i // size()] for i in range(total)]


def added(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers by name, each the sum of what all processes have."""
    said = everyone(dict(numbers))
    return {name: sum(other.get(name, 0) for other in said) for name in dict.fromkeys(n for one in said for n in one)}


def by_first(call: Callable[[], T]) -> T:
    """What ``call`` gives the first process, which alone makes it; the others wait for it."""
    return everyone(call() if rank() == 0 else None)[0]  # type: ignore[return-value]


@contextmanager
def first_ahead() -> Iterator[None]:
    """The first process goes through the block, then the others, which find what it has written."""
    global _ahead
    if not first():
        everyone(None)
    _ahead = True
    try:
        yield
    finally:
        _ahead = False
    if first():
        everyone(None)


def total(values: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow to each."""
    return _Total.apply(values) if size() > 1 else values


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        with _together():
            dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return _Total.forward(_, grad.contiguous())


def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Every gradient becomes its sum over all processes; one that no process has stays away."""
    if size() == 1 or not parameters:
        return
    there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    with _together():
        dist.all_reduce(there, dist.ReduceOp.MAX)
        given = [p for p, known in zip(parameters, there.tolist(), strict=True) if known]
        for some in (given[i : i + 32] for i in range(0, len(given), 32)):  # one by one takes five times as long
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in some])
            dist.all_reduce(flat)
            for p, summed in zip(some, flat.split([p.numel() for p in some]), strict=True):
                p.grad = summed.view_as(p).to(p.dtype)
