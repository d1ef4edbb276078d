"""Graphs of dask: tasks that take fields of others' results, n-vectors in pieces that stay where they are, and the wait for a result."""

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import dask
import numpy as np

from ..system.cluster import merged

CHECKED_EVERY = 2.0  # seconds between looks at a cluster that is at work
NO_WORKERS, NO_PROGRESS = 30.0, 900.0  # seconds without a worker, and without a finished task, after which a wait ends
AGAIN = "intermediate_result of this error has the last x: start again from there"


class Field(NamedTuple):
    """An entry of the result of a task, by number or name: it is not taken out where it lies, for that would be another task for the scheduler."""

    task: Any
    place: int | str


class Pieces:
    """An n-vector: for each chunk of A, a task or a field of its result."""

    def __init__(self, n: int) -> None:
        self.shape, self.size = (n,), n
        self.parts: list[Any] = []
        self.beside: list[Any] = []  # tasks whose results are known of it beside them


NVector = Any  # `Pieces`, in the place of an array of Passes


class Nothing(Enum):
    """The result of a task that was not needed; those that take it are not needed either."""

    NOTHING = 0


NOTHING = Nothing.NOTHING


def _call(function: Callable[..., Any], indices: list[Any], *values: Any) -> Any:
    """Call a function with fields of values, its arrays writable: Numba compiles read-only ones apart."""
    if any(value is NOTHING or (isinstance(value, list) and any(each is NOTHING for each in value)) for value in values):
        return NOTHING

    def of(value: Any, index: Any) -> Any:
        if isinstance(index, list):
            return [of(*each) for each in zip(value, index, strict=True)]
        if isinstance(index, str):
            value = value[index] if isinstance(value, dict) else getattr(value, index)
        elif index is not None:
            value = value[index]
        return value.copy() if type(value) is np.ndarray and value.ndim == 1 and not value.flags.writeable else value

    return function(*(of(*each) for each in zip(values, indices, strict=True)))


def task(function: Callable[..., Any], *args: Any) -> Any:
    """A task for function(*args); an argument may be a task, a Field, or a list of them."""

    def split(arg: Any) -> tuple[Any, Any]:
        if isinstance(arg, list):
            pairs = [split(each) for each in arg]
            return [value for value, _ in pairs], [index for _, index in pairs]
        return (arg.task, arg.place) if isinstance(arg, Field) else (arg, None)

    values, indices = split(list(args))
    return dask.delayed(_call, pure=False)(function, indices, *values, dask_key_name=_key(function))


def task_in_any_case(function: Callable[..., Any], *args: Any) -> Any:
    """The same, but also where arguments, which are tasks or lists of them, are not needed; fields and copies are not made."""
    return dask.delayed(function, pure=False)(*args, dask_key_name=_key(function))


def _key(function: Callable[..., Any]) -> str:
    return f"fastrsx_{function.__name__}-{uuid.uuid4().hex}"


def tree(add: Callable[..., Any], jobs: list[Any]) -> Any:
    """The results of tasks added in their order, a few at a time."""
    return merged(lambda some: task(add, some), jobs)


class ClusterError(RuntimeError):
    """The cluster could not finish a solve; what was found is in `intermediate_result`."""


def value_of(wanted: Any, beside: Sequence[Any]) -> Any:
    """The result of a persisted task; a wait that comes to nothing ends with an error, and one that is broken off cancels all these tasks."""
    distributed = sys.modules.get("distributed")
    futures = [] if distributed is None else distributed.futures_of([wanted, *beside])
    if distributed is None or not futures:
        return wanted.compute()
    (future,) = (each for each in futures if each.key == wanted.key)
    client, seen, since = future.client, None, time.monotonic()
    try:
        while not future.done():
            try:
                distributed.wait([future], timeout=CHECKED_EVERY)
            except TimeoutError:
                changes, workers = state = _look_at(client)
                if state != seen:
                    seen, since = state, time.monotonic()
                waited = time.monotonic() - since
                if waited > (NO_PROGRESS if workers else NO_WORKERS):
                    what = "has finished no task" if workers else "has had no worker"
                    raise ClusterError(f"the cluster {what} for {waited:.0f} s, after {changes} changes; {AGAIN}") from None
        return future.result()
    except BaseException as error:
        if client.status == "running":
            client.cancel(futures, force=True)
        if isinstance(error, (distributed.scheduler.KilledWorker, distributed.client.FutureCancelledError, OSError)):
            raise ClusterError(f"the cluster lost what it was computing ({error}); {AGAIN}") from error
        raise


def _look_at(client: Any) -> tuple[int, int]:
    """How far the scheduler is: the changes of its tasks so far, and the number of its workers."""
    return client.run_on_scheduler(lambda dask_scheduler: (dask_scheduler.transition_counter, len(dask_scheduler.workers)))
