import pytest
import torch

from mmrotate_plugin.models.uncertainty import linearization
from mmrotate_plugin.models.uncertainty.linearization import differentiate, sharing_of


@pytest.fixture
def decoded():
    """Detections of a made-up head: seven, of which two are at one place, with a decode that mixes its raw outputs."""
    maps = torch.randn(1, 5, 6, 6, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    place = torch.tensor([0, 3, 3, 10, 17, 20, 35])
    label = torch.tensor([0, 1, 2, 0, 0, 1, 2])

    def decode(maps, logits):
        raw = maps.flatten(2)[0].T[place]
        size, angle = raw[:, :2].exp(), torch.atan2(raw[:, 4], raw[:, 3])
        centre = torch.stack([raw[:, 2] * angle.cos(), raw[:, 2] * size[:, 0]], 1)
        score = logits.flatten(2)[0].T[place, label].sigmoid() * raw[:, 2].sigmoid()
        return torch.cat([centre, size, angle[:, None], score[:, None]], 1)

    return decode, maps, logits, label


def test_variance_is_that_of_the_whole_jacobian(decoded):
    decode, maps, logits, label = decoded
    values = decode(maps, logits)
    line = differentiate(values, [maps, logits], sharing_of(values[:, :-1].detach(), label, regions=False))
    jacobian = torch.autograd.functional.jacobian(decode, (maps, logits))
    variances = [torch.rand_like(maps), torch.rand_like(logits)]
    expected = sum((j.square() * v).flatten(2).sum(2) for j, v in zip(jacobian, variances, strict=True))
    torch.testing.assert_close(line.variance(variances), expected, rtol=1e-9, atol=1e-12)
    differences = [torch.randn_like(maps), torch.randn_like(logits)]
    expected = sum((j * d).flatten(2).sum(2) for j, d in zip(jacobian, differences, strict=True))
    torch.testing.assert_close(line(differences), expected, rtol=1e-9, atol=1e-12)


def test_passes_in_small_batches_give_the_same(decoded, monkeypatch):
    decode, maps, logits, label = decoded
    values = decode(maps, logits)
    sharing = sharing_of(values[:, :-1].detach(), label, regions=False)
    variances = [torch.rand_like(maps), torch.rand_like(logits)]
    whole = differentiate(values, [maps, logits], sharing)
    batches, gradients = [], linearization.gradients
    monkeypatch.setattr(linearization, 'gradients', lambda *args: batches.append(len(args[2])) or gradients(*args))
    monkeypatch.setattr(linearization, 'MEMORY', 1)
    parts = differentiate(values, [maps, logits], sharing)
    assert set(batches) == {2} and len(batches) > 6
    torch.testing.assert_close(parts.variance(variances), whole.variance(variances), rtol=1e-12, atol=0)


def test_detections_that_share_outputs_need_groups(decoded):
    decode, maps, logits, label = decoded
    values = decode(maps, logits)
    sharing = sharing_of(values[:, :-1].detach(), label, regions=False)
    assert sharing.groups.tolist() == [0, 0, 1, 0, 0, 0, 0]
    right = differentiate(values, [maps, logits], sharing).variance([torch.ones_like(maps), torch.ones_like(logits)])
    sharing.groups.zero_()
    wrong = differentiate(values, [maps, logits], sharing).variance([torch.ones_like(maps), torch.ones_like(logits)])
    assert (wrong - right).abs().max() > 0.01


def test_regions_are_grouped_by_label():
    labels = torch.tensor([4, 7, 4])
    sharing = sharing_of(torch.rand(3, 5), labels, regions=True)
    assert sharing.first is None and sharing.groups.tolist() == [0, 1, 0]


def test_nothing_to_trace():
    sharing = sharing_of(torch.rand(2, 5), torch.zeros(2).long(), regions=False)
    leaves = [torch.rand(1, 5, 6, 6)]
    assert not differentiate(torch.rand(2, 6), leaves, sharing).variance(leaves).any()


def test_outputs_without_variance_add_nothing(decoded):
    decode, maps, logits, label = decoded
    values = decode(maps, logits)
    line = differentiate(values, [maps, logits], sharing_of(values[:, :-1].detach(), label, regions=False))
    some, none = torch.rand_like(maps), torch.zeros_like(logits)
    assert torch.equal(line.variance([some, None]), line.variance([some, none]))
    assert torch.equal(line.variance([None, some[:, :3]]), line.variance([torch.zeros_like(maps), some[:, :3]]))
    nothing = line.variance([None, None])
    assert nothing.shape == values.shape and not nothing.any()
