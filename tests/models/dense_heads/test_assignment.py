"""Every object gets a point, however small, thin or crowded; the assignment turns with the image."""

import math

import pytest
import torch

from mmrotate_plugin.models.dense_heads.assignment import align, candidates, inside_any
from mmrotate_plugin.models.dense_heads.points import LatticePoints

SIZE = 193
RANGES = [(-1.0, 24.0), (24.0, 1e8)]


def lattice():
    levels = LatticePoints([8, 16]).grid_priors([(25, 25), (13, 13)])
    return torch.cat(levels), torch.cat([torch.full((len(p),), i) for i, p in enumerate(levels)])


def scene(n=40, seed=0):
    """Objects of every size and shape, some of them thinner than a cell."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(n, 2, generator=g) * SIZE
    long = (torch.rand(n, 1, generator=g) * 3 + 1).exp() + 2
    short = long * (0.1 + 0.9 * torch.rand(n, 1, generator=g))
    return torch.cat([centre, long, short, torch.rand(n, 1, generator=g) * math.pi], 1)


def quarter_turn(boxes):
    return torch.stack([boxes[:, 1], SIZE - boxes[:, 0], boxes[:, 2], boxes[:, 3], boxes[:, 4] - math.pi / 2], 1)


def turned_points(values):
    """Move what belongs to the points of both levels along with a quarter turn."""
    fine, coarse = values.split([625, 169])
    return torch.cat(
        [part.unflatten(0, (n, n)).rot90(1, (0, 1)).flatten(0, 1) for part, n in ((fine, 25), (coarse, 13))]
    )


def test_points_are_the_centres_of_the_pixels_that_strides_keep():
    fine, coarse = LatticePoints([8, 16]).grid_priors([(2, 3), (1, 1)])
    assert fine.tolist() == [[x, y, 8] for y in (0.5, 8.5) for x in (0.5, 8.5, 16.5)]
    assert coarse.tolist() == [[0.5, 0.5, 16]]
    points, _ = lattice()
    assert points[:625, :2].mean(0).tolist() == [SIZE / 2, SIZE / 2]


@pytest.mark.parametrize('radius', [1.5, 2.5])
def test_every_object_has_candidates_on_its_own_level_inside_of_it_or_next_to_it(radius):
    points, levels = lattice()
    boxes = scene(300)
    inside, distance = candidates(points, boxes, RANGES, levels, radius)
    assert inside.any(0).all()
    level = (boxes[:, 2] / 2 >= 24).long()
    assert not (inside & (levels[:, None] != level)).any()
    assert distance.isfinite().equal(levels[:, None] == level)
    own = inside_any(points, boxes)
    assert (inside.any(1) & ~own).any(), 'thin objects learn from points beside them'
    stride = points[:, None, 2]
    assert ((distance.sqrt() * stride)[inside] <= (2**0.5 * radius * stride).expand_as(inside)[inside]).all()


def test_the_plain_rule_of_centre_sampling_would_lose_some():
    points, levels = lattice()
    boxes = scene(300)
    within = torch.stack([inside_any(points[levels == (box[2] / 2 >= 24)], box[None]).any() for box in boxes])
    assert (~within).sum() > 10


def predictions(count, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(794, count, generator=g), torch.rand(794, count, generator=g)


def test_the_assignment_turns_with_the_image():
    points, levels = lattice()
    boxes = scene()
    scores, quality = predictions(len(boxes))
    owner, aim = align(*candidates(points, boxes, RANGES, levels, 2.5), scores, quality, 10, 0.5, 4.0)
    turned = candidates(points, quarter_turn(boxes), RANGES, levels, 2.5)
    again, new_aim = align(*turned, turned_points(scores), turned_points(quality), 10, 0.5, 4.0)
    assert again.equal(turned_points(owner)) and torch.allclose(new_aim, turned_points(aim))
    other, _ = align(*turned, scores, quality, 10, 0.5, 4.0)
    assert not other.equal(turned_points(owner))


@pytest.mark.parametrize('seed', range(5))
def test_each_object_keeps_a_point_in_a_crowd(seed):
    points, levels = lattice()
    g = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([0, 0, 10, 4, 0.6]).repeat(12, 1)  # cars, side by side
    boxes[:, 0], boxes[:, 1] = torch.linspace(40, 120, 12), 60 + 2 * torch.rand(12, generator=g)
    inside, distance = candidates(points, boxes, RANGES, levels, 2.5)
    for scores, quality in (predictions(12, seed), [torch.zeros(794, 12)] * 2):  # also before anything is learned
        owner, aim = align(inside, distance, scores, quality, 10, 0.5, 4.0)
        assert set(range(12)) <= set(owner.tolist())
        assert (aim[owner >= 0] > 0).all() and (aim[owner < 0] == 0).all() and aim.max() <= 1


def test_more_objects_than_points_do_not_stop_it():
    points, levels = lattice()
    boxes = torch.tensor([[0.5, 0.5, 4.0, 2, 0]]).repeat(5, 1)
    inside, distance = candidates(points[:1], boxes, RANGES, levels[:1], 2.5)
    owner, _ = align(inside, distance, torch.rand(1, 5), torch.rand(1, 5), 10, 0.5, 4.0)
    assert 0 <= owner.item() < 5
    far = candidates(points[:1], boxes + 500, RANGES, levels[:1], 2.5)  # objects that no point of their level can reach
    assert align(*far, torch.rand(1, 5), torch.rand(1, 5), 10, 0.5, 4.0)[0].item() >= -1


def test_the_best_point_learns_its_overlap_and_the_others_less():
    inside, distance = torch.ones(3, 1, dtype=torch.bool), torch.tensor([[0.0], [1.0], [2.0]])
    owner, aim = align(inside, distance, torch.full((3, 1), 0.5), torch.tensor([[0.8], [0.4], [0.6]]), 2, 1.0, 2.0)
    assert owner.tolist() == [0, -1, 0]
    assert torch.allclose(aim, torch.tensor([0.8, 0, 0.8 * (0.6 / 0.8) ** 2]))
