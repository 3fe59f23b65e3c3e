"""Variance gains: what the moment rules miss by taking values for independent, fitted once by Monte Carlo.

A convolution or pooling sums values that noise moves together, and its rule neglects that. How much is missing is
rather constant for a channel of a trained network, so one factor per channel repairs most of it. `gains` keeps them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._eval_mode import eval_mode
from .gains import remove_gains, set_gain, set_origin
from .gaussian import Gaussian
from .input_noise import Noise, expand_noise
from .progress import track

SMALLEST, LARGEST = 1e-2, 1e3  # gains
NEGLIGIBLE = 0.02  # a module gets no gains if their root mean square logarithm is less: 1 % of standard deviation
FAINT = 0.05  # values with less than this part of a layer's standard deviation (zeros of a ReLU) have no say
PRIOR = 1.0  # values that the layer's ratio counts for in that of a channel


class Ratio(NamedTuple):
    """Standard deviation over that of Monte Carlo, of the values of a layer: 1 is right, less is overconfident."""

    low: float  # 5th percentile
    median: float
    high: float  # 95th percentile

    def __str__(self) -> str:
        return f'{self.median:.2f} ({self.low:.2f} to {self.high:.2f})'


@dataclass(frozen=True)
class LayerReport:
    """A module before and after calibration.

    Attributes:
        name: As in `named_modules`; '' is the model itself.
        channels: Of its output.
        gains: Least and largest; None if the module needs none.
        before, after: On the images of the fit.
        held_out_before, held_out_after: On other images, if there were some.
    """

    name: str
    channels: int
    gains: tuple[float, float] | None
    before: Ratio
    after: Ratio
    held_out_before: Ratio | None = None
    held_out_after: Ratio | None = None


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` did; `str` makes a table of it.

    Attributes:
        layers: The modules whose output has a variance, as the network calls them.
        noise_variance: Of the input, one per channel if they differ.
        num_images: Of the fit.
        num_samples: Of Monte Carlo. The ratios have a statistical error of 1 / sqrt(2 num_samples) each.
    """

    layers: tuple[LayerReport, ...]
    noise_variance: tuple[float, ...]
    num_images: int
    num_samples: int

    def as_dict(self) -> dict[str, Any]:
        """Numbers and texts, for JSON."""
        return {
            'noise_variance': list(self.noise_variance),
            'num_images': self.num_images,
            'num_samples': self.num_samples,
            'layers': [{field.name: _as_json(getattr(layer, field.name)) for field in fields(layer)}
                       for layer in self.layers],
        }  # fmt: skip

    def __str__(self) -> str:
        held_out = any(layer.held_out_after is not None for layer in self.layers)
        rows = [['layer', 'channels', 'gains', 'before', 'after', 'before, other images', 'after, other images']]
        for layer in self.layers:
            gains = '-' if layer.gains is None else f'{layer.gains[0]:.2f} to {layer.gains[1]:.2f}'
            ratios = (layer.before, layer.after, layer.held_out_before, layer.held_out_after)
            rows.append([layer.name or '(output)', str(layer.channels), gains, *map(str, ratios)])
        rows = [row if held_out else row[:5] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _as_json(value: Any) -> Any:
    return value._asdict() if isinstance(value, Ratio) else value


@torch.no_grad()
def calibrate(
    model: nn.Module,
    images: Tensor,
    noise_variance: Noise,
    *,
    held_out: Tensor | None = None,
    num_samples: int = 128,
    share: int = 1,
    plain: Callable[[Tensor], Any] | None = None,
    max_positions: int = 256,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    r"""Fit gains that bring the variances of a network to those of Monte Carlo, and leave them in the network.

    From the front to the back, each module whose output has a variance gets one factor per channel: the median over
    images and positions of

    .. math::
        g = v_{\mathrm{MC}} / v_{\mathrm{ADF}}

    where the gains in front of it already act. Modules that need none (norms, activations) get none. The gains are
    buffers, `variance_gain`, and go with the state dict; a network that is to load them has to be told so once, by
    `accept_gains`. Calibrating again replaces them.

    A floor (`min_variance`) that is above the variances of a layer hides them: calibrate with a lower one.

    The gains belong to the weights, the noise and the rule for the variance: far from the noise variance of the fit,
    or with another rule, calibrate anew. Both are kept with the gains (`gain_noise`, `gain_rule`).

    Args:
        model: Any module that maps a tensor to what it likes, and that a `Gaussian` can pass. It is run in eval mode
            and gets its modes back.
        images: As the model takes them, (B, C, H, W): 4 to 8 of those that it will see.
        noise_variance: Of their noise: a number, one per channel, or a tensor like `images`, in their squared units.
        held_out: Other images, of the same number of channels, to tell how well the gains carry over.
        num_samples: Monte Carlo's forward passes.
        share: Channels in a row that share a gain: the group's order for an equivariant network, which would not be
            equivariant else. Modules whose channels it does not divide get one gain per channel.
        plain: What maps noisy images through the plain network; the model itself unless told.
        max_positions: Positions of a map, drawn at random, that the fit looks at; they bound its memory.
        seed: Of noise and positions.
        progress: None shows a bar where stderr is a terminal, True always, False never.

    Returns:
        Ratios to Monte Carlo before and after, for each module.

    Raises:
        ValueError: If an argument is out of range, there is no noise, or no module puts out a variance.
    """
    for name, value, least in (
        ('num_samples', num_samples, 8),
        ('share', share, 1),
        ('max_positions', max_positions, 1),
    ):
        if value < least:
            raise ValueError(f'{name}={value} must be {least} or more')
    variance = expand_noise(noise_variance, images)
    if not bool((variance > 0).any()):
        raise ValueError('noise_variance is 0: without noise there is nothing to calibrate')
    remove_gains(model)
    with eval_mode(model):
        sites = _find_sites(model, images[:1], variance[:1])
        fit = _Comparison(sites, model, images, variance, max_positions, seed)
        fit.sample(plain, num_samples, 'Monte Carlo', progress)
        other = None
        if held_out is not None:
            other = _Comparison(sites, model, held_out, _same_noise(noise_variance, held_out), max_positions, seed + 1)
            other.sample(plain, num_samples, 'Monte Carlo, other images', progress)
        before = fit.ratios(), other and other.ratios()
        gains = fit.gains(share)
        after = fit.ratios(), other and other.ratios()
    noise = _per_channel(noise_variance, variance)
    set_origin(model, noise, fit.rule)
    layers = [
        LayerReport(
            site.name, site.channels, _range(gains.get(site.name)), before[0][site.name], after[0][site.name],
            before[1] and before[1][site.name], after[1] and after[1][site.name],
        )
        for site in sites
    ]  # fmt: skip
    return Calibration(tuple(layers), tuple(noise.reshape(-1).tolist()), len(images), num_samples)


class _Site(NamedTuple):
    """A module that puts out one Gaussian."""

    name: str
    module: nn.Module
    channels: int


def _find_sites(model: nn.Module, image: Tensor, variance: Tensor) -> list[_Site]:
    """Modules that put out one Gaussian, in the order of their calls.

    Without those that are called several times and have no parameters, since a ReLU at many places has no gain of its
    own, and those that hand on what their last child puts out.
    """
    names = {module: name for name, module in model.named_modules()}
    calls: dict[nn.Module, int] = {}
    channels: dict[nn.Module, int] = {}
    handed_on: dict[nn.Module, nn.Module] = {}  # a module: the child whose output it puts out
    last: tuple[nn.Module, Gaussian] | None = None

    def look(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:  # noqa: ARG001  signature of a hook
        nonlocal last
        if isinstance(out, Gaussian):
            calls[module] = calls.get(module, 0) + 1
            channels[module] = out.shape[_channel_dim(module, out)]
            if last is not None and out is last[1]:
                handed_on[module] = last[0]
            last = (module, out)

    with _hooks(names, look):
        model(Gaussian(image, variance))
    sites: list[_Site] = []
    covered: set[nn.Module | None] = set()  # those whose output has gains of its own
    for module, count in calls.items():
        if handed_on.get(module) in covered:
            covered.add(module)
        elif count == 1 or next(module.parameters(), None) is not None:
            covered.add(module)
            sites.append(_Site(names[module], module, channels[module]))
    if not sites:
        raise ValueError(
            f'no module of {type(model).__name__} puts out a Gaussian when the model is called with one; '
            "an ADFResNet needs output='gaussian' for it"
        )
    return sites


def _channel_dim(module: nn.Module, out: Tensor | Gaussian) -> int:
    """The dimension of the channels: the last one for layers of vectors, (B, ..., C), else (B, C, ...)."""
    return out.dim() - 1 if isinstance(module, (nn.Linear, nn.LayerNorm)) or out.dim() < 2 else 1


class _Comparison:
    """Variances of the rules and of Monte Carlo, on the same images and at the same positions."""

    def __init__(
        self, sites: Sequence[_Site], model: nn.Module, images: Tensor, variance: Tensor, max_positions: int, seed: int
    ) -> None:
        self.sites, self.model, self.images, self.variance = sites, model, images, variance
        self.max_positions, self.seed = max_positions, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.positions: dict[int, Tensor] = {}  # of maps with so many values
        self.truth: dict[tuple[str, int], Tensor] = {}  # of a site's call: (B, C, positions)
        self.rule = 'diagonal'  # for the variance, which the model may choose itself

    def sample(self, plain: Callable[[Tensor], Any] | None, samples: int, text: str, progress: bool | None) -> None:
        """The variances of Monte Carlo."""
        plain = self._plain() if plain is None else plain
        generator = torch.Generator(self.images.device).manual_seed(self.seed)
        count: dict[tuple[str, int], int] = {}
        mean: dict[tuple[str, int], Tensor] = {}
        squares: dict[tuple[str, int], Tensor] = {}
        std = self.variance.sqrt()

        def add(site: _Site, call: int, out: Any) -> None:
            values = self._take(site, out, out.mu if isinstance(out, Gaussian) else out)
            key = (site.name, call)
            if key not in mean:
                mean[key], squares[key], count[key] = values.clone(), torch.zeros_like(values), 1
                return
            count[key] += 1
            step = values - mean[key]  # Welford's update
            mean[key] += step / count[key]
            squares[key] += step * (values - mean[key])

        with self._watch(add) as restart:
            for _ in track(samples, text, progress):
                restart()
                noise = torch.randn(std.shape, generator=generator, device=std.device, dtype=std.dtype)
                plain(self.images + std * noise)
        self.truth = {key: value / (samples - 1) for key, value in squares.items()}

    def ratios(self) -> dict[str, Ratio]:
        """Standard deviation of the rules over that of Monte Carlo, for each site."""
        found: dict[str, list[Tensor]] = {}

        def compare(site: _Site, call: int, out: Gaussian) -> None:
            self.rule = out.rule
            ratio = self._ratio(site, call, out)
            found.setdefault(site.name, []).append(ratio[~ratio.isnan()])

        with self._watch(compare):
            self.model(Gaussian(self.images, self.variance))
        return {name: percentiles(torch.cat(parts)) for name, parts in found.items()}

    def gains(self, share: int) -> dict[str, Tensor]:
        """Fit them from the front to the back and leave them in the modules.

        Within a pass, a gain acts as soon as it is known. That of a module that is called several times (a head, on
        each level of a pyramid) is known only after its last call, so what follows it needs another pass.
        """
        for site in self.sites:
            set_gain(site.module, None)
        several = {name for name, call in self.truth if call > 0}
        gains: dict[str, Tensor] = {}
        waiting = list(self.sites)
        while waiting:
            count = next((i + 1 for i, site in enumerate(waiting) if site.name in several), len(waiting))
            now, waiting = waiting[:count], waiting[count:]
            gains.update(self._gains(now, several, share))
            for site in now:
                set_gain(site.module, gains.get(site.name))
        return gains

    def _gains(self, sites: Sequence[_Site], several: set[str], share: int) -> dict[str, Tensor]:
        """Those of `sites`, of which only the last is called several times."""
        names = {site.name for site in sites}
        ratios: dict[str, list[Tensor]] = {}
        shapes: dict[str, tuple[int, ...]] = {}

        def gain_of(name: str) -> Tensor | None:
            # one for a module that needs none would cost time
            gain = _fit_gain(torch.cat(ratios[name], 1), share)
            needed = bool(gain.log().square().mean().sqrt() > NEGLIGIBLE)
            return gain.reshape(shapes[name]) if needed else None

        def look(site: _Site, call: int, out: Gaussian) -> Gaussian | None:
            if site.name not in names:
                return None
            ratio = self._ratio(site, call, out, (0, 2)).movedim(1, 0).flatten(1)  # (C, values)
            ratios.setdefault(site.name, []).append(ratio)
            shapes[site.name] = (-1, *[1] * (out.dim() - _channel_dim(site.module, out) - 1))
            if site.name in several or (gain := gain_of(site.name)) is None:
                return None
            return out.replace(out.mu, out.v * gain.to(out.dtype))

        with self._watch(look):
            self.model(Gaussian(self.images, self.variance))
        found = {name: gain_of(name) for name in ratios}
        return {name: gain for name, gain in found.items() if gain is not None}

    def _ratio(self, site: _Site, call: int, out: Gaussian, dims: tuple[int, ...] = (0, 1, 2)) -> Tensor:
        """Ratios of standard deviations (B, C, positions), rules over Monte Carlo; NaN where there is too little.

        Too little of what is usual over `dims`.
        """
        truth = self.truth[site.name, call]
        ratio = (self._take(site, out, out.v) / truth).sqrt()
        return ratio.where(truth > FAINT**2 * truth.mean(dims, keepdim=True), torch.nan)

    def _take(self, site: _Site, out: Any, values: Tensor) -> Tensor:
        """Some positions of a map, the same for maps of one size: (B, C, positions)."""
        values = values.movedim(_channel_dim(site.module, out), 1) if values.dim() > 1 else values[:, None]
        values = values.reshape(*values.shape[:2], -1)
        count = values.shape[2]
        if count > self.max_positions:
            if count not in self.positions:
                chosen = torch.randperm(count, generator=self.generator)[: self.max_positions]
                self.positions[count] = chosen.to(values.device)
            values = values[:, :, self.positions[count]]
        return values.float()

    def _plain(self) -> Callable[[Tensor], Any]:
        """The plain network: the model, or, where that makes a Gaussian of a tensor by itself, its plain means."""
        made: list[Gaussian] = []

        def look(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:  # noqa: ARG001  signature of a hook
            if isinstance(out, Gaussian):
                made.append(out)

        with _hooks([site.module for site in self.sites], look):
            self.model(self.images[:1])
        if not made:
            return self.model
        return lambda x: self.model(Gaussian(x, torch.zeros_like(x), plain_mean=True))

    @contextmanager
    def _watch(self, function: Callable[[_Site, int, Any], Any]) -> Iterator[Callable[[], None]]:
        """Call `function(site, number of the call, output)`, whose result replaces the output unless it is None.

        Yields what starts the counts anew.
        """
        calls: dict[str, int] = {}
        sites = {site.module: site for site in self.sites}

        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:  # noqa: ARG001  signature of a hook
            site = sites[module]
            calls[site.name] = calls.get(site.name, -1) + 1
            return function(site, calls[site.name], out)

        with _hooks(sites, hook):
            yield calls.clear


@contextmanager
def _hooks(modules: Sequence[nn.Module] | Mapping[nn.Module, Any], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _fit_gain(ratio: Tensor, share: int) -> Tensor:
    """Gains (C,) from ratios of standard deviations (C, values), NaN for those without a say.

    The median, since a few values far off (a ReLU that is hardly ever on) would decide a mean. A channel with few
    values leans to the layer's median.
    """
    channels = len(ratio)
    logs = ratio.clamp(1e-6, 1e6).log()
    layer = logs.nanmedian().nan_to_num()
    if channels % share == 0:
        logs = logs.reshape(channels // share, -1)
    count = (~logs.isnan()).sum(1)
    mine = logs.nanmedian(1).values.nan_to_num()
    log = (count * mine + PRIOR * layer) / (count + PRIOR)
    gain = (-2 * log).exp().clamp(SMALLEST, LARGEST)
    return gain.repeat_interleave(channels // len(gain))


def percentiles(ratio: Tensor) -> Ratio:
    """5th, 50th and 95th percentile of ratios, (N,); not a number if there are none."""
    if len(ratio) == 0:
        return Ratio(*[float('nan')] * 3)
    ordered = ratio.sort().values  # torch.quantile refuses more than 2^24 values
    return Ratio(*(float(ordered[round(q * (len(ordered) - 1))]) for q in (0.05, 0.5, 0.95)))


def _range(gain: Tensor | None) -> tuple[float, float] | None:
    return None if gain is None else (float(gain.min()), float(gain.max()))


def _same_noise(noise_variance: Noise, images: Tensor) -> Tensor:
    if isinstance(noise_variance, Tensor) and noise_variance.dim() > 1:
        raise ValueError('noise_variance must be a number or one per channel where there are held_out images')
    return expand_noise(noise_variance, images)


def _per_channel(noise_variance: Noise, variance: Tensor) -> Tensor:
    """What a checkpoint keeps: a number, or one per channel."""
    if isinstance(noise_variance, (int, float)) or variance.dim() < 2:
        return variance.float().mean()
    return variance.float().transpose(0, 1).flatten(1).mean(1)
