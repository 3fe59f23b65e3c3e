"""Feature maps of an image and of its rotation, ready to be drawn side by side."""

from torch import Tensor, nn

from ...testing import compare_fields, fade_to_disc, feature_fields, rotate
from .equivariance import PanelRow

RADIUS = 0.8  # of the disc that is compared at angles other than quarter turns


def equivariance_panels(model: nn.Module, plain: nn.Module | None, x: Tensor, group: str | None) -> list[PanelRow]:
    """Compare the strongest channel of the first map, for a quarter turn and for an eighth.

    Args:
        model: A detector.
        plain: A network to show below it.
        x: (1, C, H, W) input.
        group: Fiber group of the detector's backbone, for its label.
    """
    name = type(getattr(model, 'backbone', model)).__name__
    networks = [(f'{name}{f" {group}" if group else ""}', model)]
    networks += [('plain ResNet', plain)] if plain is not None else []
    low, high = x.min(), x.max()
    rows = []
    for angle in (90.0, 45.0):
        whole = angle % 90 == 0
        source = x if whole else fade_to_disc(x)
        turned = rotate(source, angle)
        picture = ((turned[0] - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).cpu().numpy()
        picture = picture[..., :3] if picture.shape[2] >= 3 else picture[..., :1].repeat(3, axis=2)
        for label, network in networks:
            before, after = feature_fields(network, source)[0], feature_fields(network, turned)[0]
            channel = int(before.values[0].flatten(1).var(dim=1).argmax())
            result = compare_fields([before], [after], angle, radius=None if whole else RADIUS)
            rows.append(
                PanelRow(
                    f'{label}\n{angle:g} degrees',
                    picture,
                    before.values[0, channel].cpu().numpy(),
                    after.act(-angle)[0, channel].cpu().numpy(),
                    result.error[0],
                    result.change[0],
                )
            )
    return rows
