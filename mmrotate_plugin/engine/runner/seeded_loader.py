"""A data loader whose batches depend on the seed and their number alone, so that training can resume anywhere.

mmengine's worker processes draw augmentations from generators that live as long as the worker: after a restart they
start over, and with another number of workers they differ. Here each sample's generators are seeded by the number of
its iteration and its place in the batch of all processes.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

_OWN = ('dataset', 'seed')


class Draw(int):
    """Index of a sample that knows which iteration it is for, and its place there."""

    key: tuple[int, int]

    def __new__(cls, index: int, key: tuple[int, int] = (0, 0)) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.key = key
        return draw


def seed_generators(*numbers: int, devices: bool) -> None:
    """Seed Python's, numpy's and torch's generators by several non-negative numbers.

    Args:
        numbers: The seed of the training and what tells this use of it from others.
        devices: Whether to seed the generators of GPUs too.
    """
    state = np.random.SeedSequence(numbers).generate_state(3, np.uint64)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]) % 2**32)
    seed = int(state[2]) >> 1
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class NumberedBatches:
    """A batch sampler that counts iterations, marks its indices with them, and can begin further on.

    Args:
        inner: Batch sampler of this process.
        rank, world_size: Place of this process among all. mmengine's samplers deal out indices in turn, so that place
            j of process r is place ``j * world_size + r`` of the batch of all; a sample's key does not depend on the
            number of processes.

    Attributes:
        number: Number of the next iteration.
        skip: Number of upcoming batches to skip.
    """

    def __init__(self, inner: Any, rank: int = 0, world_size: int = 1) -> None:
        self.inner = inner
        self.rank = rank
        self.world_size = world_size
        self.number = 0
        self.skip = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.inner:
            if self.skip > 0:
                self.skip -= 1
                continue
            number, self.number = self.number, self.number + 1
            yield [Draw(i, (number, place * self.world_size + self.rank)) for place, i in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:  # `sampler`, `batch_size`, what hooks look for
        if name.startswith('__') or name == 'inner':
            raise AttributeError(name)
        return getattr(self.inner, name)


class SeededDataset(Dataset):
    """A dataset whose augmentations are seeded by the `Draw` that asks; everything else is that of the dataset."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Draw):
            seed_generators(self.seed, 0, *index.key, devices=False)
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name in _OWN:
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            super().__setattr__(name, value)
        else:  # such as another pipeline
            setattr(self.dataset, name, value)


class Stream:
    """Yield batches without end, for mmengine's iteration-based loop; skipped batches are never loaded.

    Args:
        loader: Its batch sampler is a `NumberedBatches`.
        skip: Iterations already done. The loop skips them by `skip_iter`, or fetches them one by one.
    """

    def __init__(self, loader: DataLoader, skip: int = 0) -> None:
        if not isinstance(loader.batch_sampler, NumberedBatches):
            raise TypeError(f'the batch sampler is a {type(loader.batch_sampler).__name__}, not NumberedBatches')
        self.loader = loader
        loader.batch_sampler.number = loader.batch_sampler.skip = skip
        self.owed = skip
        self.round = 0
        self.batches: Iterator[Any] | None = None

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: newer loops call this for iterations that have been skipped already."""
        self.owed -= num_iters

    def __iter__(self) -> 'Stream':
        return self

    def __next__(self) -> Any:
        if self.owed > 0:  # older loops fetch what they skip
            self.owed -= 1
            return None
        while True:
            if self.batches is None:
                set_epoch = getattr(getattr(self.loader.batch_sampler, 'sampler', None), 'set_epoch', None)
                if set_epoch is not None:
                    set_epoch(self.round)
                self.batches = iter(self.loader)
            try:
                return next(self.batches)
            except StopIteration:
                if not len(self.loader):
                    raise
                self.batches, self.round = None, self.round + 1


def numbered_loader(loader: DataLoader, seed: int, rank: int, world_size: int) -> DataLoader:
    """Make a loader of the same batches, numbered and seeded.

    Raises:
        TypeError: If the dataset has no indices, or the loader makes no batches.
    """
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        raise TypeError('the data loader makes no batches of indices')
    return DataLoader(
        SeededDataset(loader.dataset, seed),
        batch_sampler=NumberedBatches(loader.batch_sampler, rank, world_size),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
