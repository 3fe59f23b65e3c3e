"""Batches and augmentations depend on the seed and the iteration alone."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from mmrotate_plugin.engine.runner.seeded_loader import Draw, NumberedBatches, Stream, numbered_loader


class Noisy(Dataset):
    """Index and a number of each generator."""

    metainfo = {'classes': ('a',)}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


class InTurn(DefaultSampler):
    def __init__(self, rank, world_size):
        super().__init__(Noisy(), seed=0)
        self.rank, self.world_size, self.num_samples = rank, world_size, 8 // world_size


def loader(batch_size=2, workers=0, rank=0, world_size=1, sampler=None, seed=5):
    inner = DataLoader(
        Noisy(), batch_sampler=BatchSampler(sampler or InTurn(rank, world_size), batch_size, drop_last=False),
        num_workers=workers, collate_fn=list, persistent_workers=workers > 0,
    )  # fmt: skip
    return numbered_loader(inner, seed, rank, world_size)


def epoch(data, number=0, skip=0):
    data.batch_sampler.number, data.batch_sampler.skip = number, skip
    return list(data)


def test_neither_workers_nor_what_was_drawn_before_matter():
    first = epoch(loader())
    torch.manual_seed(1)
    assert epoch(loader(workers=2)) == first
    again = loader(workers=1)
    assert [epoch(again), epoch(again, 4)] == [first, epoch(loader(), 4)]  # of living workers too
    assert epoch(loader(), 4) != first
    assert epoch(loader(seed=6)) != first
    flat = [x for batch in first for _, *numbers in batch for x in numbers]
    assert len(set(flat)) == len(flat)


def test_an_epoch_goes_on_amid():
    assert epoch(loader(), 1, skip=1) == epoch(loader())[1:]
    assert epoch(loader(), 4, skip=4) == []
    assert [len(batch) for batch in epoch(loader(3))] == [3, 3, 2]


def test_two_processes_have_the_samples_of_one():
    one = epoch(loader(4))
    two = [epoch(loader(2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [sorted(batch) for batch in one] == [sorted(a + b) for a, b in zip(*two, strict=True)]


@pytest.mark.parametrize('newer', [True, False])
def test_a_stream_goes_on(newer):
    def stream(skip=0):
        return Stream(loader(sampler=InfiniteSampler(Noisy(), seed=0)), skip)

    whole = stream()
    expected = [next(whole) for _ in range(12)]  # three rounds
    resumed = stream(7)
    if newer:
        resumed.skip_iter(7)
    else:
        assert [next(resumed) for _ in range(7)] == [None] * 7
    assert [next(resumed) for _ in range(5)] == expected[7:]


def test_a_stream_begins_again_with_another_order():
    whole = Stream(loader())
    rounds = [[index for _ in range(4) for index, *_ in next(whole)] for _ in range(2)]
    assert sorted(rounds[0]) == sorted(rounds[1]) and rounds[0] != rounds[1]


def test_dataset_and_sampler_show_through():
    data = loader()
    assert data.dataset.metainfo == Noisy.metainfo and len(data) == 4
    data.dataset.colour = 'red'
    assert data.dataset.dataset.colour == 'red'
    assert isinstance(data.batch_sampler.sampler, InTurn)
    assert isinstance(data.batch_sampler, NumberedBatches) and data.batch_sampler.batch_size == 2


def test_a_draw_survives_the_way_to_a_worker():
    import pickle

    draw = pickle.loads(pickle.dumps(Draw(3, (7, 1))))
    assert (draw, draw.key) == (3, (7, 1))


def test_data_without_indices_are_refused():
    class Endless(IterableDataset):
        def __iter__(self):
            yield 0

    with pytest.raises(TypeError, match='no batches of indices'):
        numbered_loader(DataLoader(Endless()), 0, 0, 1)
