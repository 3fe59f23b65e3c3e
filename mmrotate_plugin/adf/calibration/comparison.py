"""Compare a network's variances with Monte Carlo, and fit gains that bring them together."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..gains import set_gain
from ..gaussian import Gaussian
from ..mc_dropout import Running
from ..progress import track
from .replay import Replay
from .report import Ratio
from .sites import Site, channel_dim, hooks

SMALLEST, LARGEST = 1e-2, 1e3  # gains
NEGLIGIBLE = 0.02  # a module gets no gains if their root mean square logarithm is less: 1 % of standard deviation
FAINT = 0.05  # values below this part of a layer's standard deviation (zeros of a ReLU) have no say
PRIOR = 1.0  # number of values that the layer's ratio counts for in that of a channel


class Comparison:
    """Compare variances by the rules with those by Monte Carlo, on the same images at the same positions."""

    def __init__(
        self, sites: Sequence[Site], model: nn.Module, images: Tensor, variance: Tensor, max_positions: int, seed: int
    ) -> None:
        self.sites, self.model, self.images, self.variance = sites, model, images, variance
        self.max_positions, self.seed = max_positions, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.positions: dict[int, Tensor] = {}  # by the number of values of a map
        self.truth: dict[tuple[str, int], Tensor] = {}  # by site and call: (B, C, positions)
        self.rule = 'diagonal'  # for the variance, which the model may choose itself

    def sample(self, plain: Callable[[Tensor], Any] | None, samples: int, text: str, progress: bool | None) -> None:
        """Estimate the variances by Monte Carlo."""
        plain = self._plain() if plain is None else plain
        generator = torch.Generator(self.images.device).manual_seed(self.seed)
        running: defaultdict[tuple[str, int], Running] = defaultdict(Running)
        std = self.variance.sqrt()

        def add(site: Site, call: int, out: Any) -> None:
            running[site.name, call].add(self._take(site, out, out.mu if isinstance(out, Gaussian) else out))

        with self._watch(add) as restart:
            for _ in track(samples, text, progress):
                restart()
                noise = torch.randn(std.shape, generator=generator, device=std.device, dtype=std.dtype)
                plain(self.images + std * noise)
        self.truth = {key: moments.result().model_variance for key, moments in running.items()}

    def ratios(self) -> dict[str, Ratio]:
        """Return the standard deviation by the rules over that by Monte Carlo, for each site."""
        found: dict[str, list[Tensor]] = {}

        def compare(site: Site, call: int, out: Gaussian) -> None:
            self.rule = out.rule
            ratio = self._ratio(site, call, out)
            found.setdefault(site.name, []).append(ratio[~ratio.isnan()])

        with self._watch(compare):
            self.model(Gaussian(self.images, self.variance))
        return {name: percentiles(torch.cat(parts)) for name, parts in found.items()}

    def gains(self, share: int) -> dict[str, Tensor]:
        """Fit the gains from front to back and leave them in the modules.

        Within a pass, a gain acts as soon as it is known. The gain of a module that is called several times (a head,
        on each level of a pyramid) is known only after its last call, so the modules behind it need another pass.
        """
        for site in self.sites:
            set_gain(site.module, None)
        several = {name for name, call in self.truth if call > 0}
        gains: dict[str, Tensor] = {}
        waiting = list(self.sites)
        replay = Replay(self.model, self.sites)
        while waiting:
            count = next((i + 1 for i, site in enumerate(waiting) if site.name in several), len(waiting))
            with replay.one_pass(waiting):
                now, waiting = waiting[:count], waiting[count:]
                gains.update(self._gains(now, several, share))
            for site in now:
                set_gain(site.module, gains.get(site.name))
        return gains

    def _gains(self, sites: Sequence[Site], several: set[str], share: int) -> dict[str, Tensor]:
        """Fit the gains of `sites`, of which only the last may be called several times."""
        names = {site.name for site in sites}
        ratios: dict[str, list[Tensor]] = {}
        shapes: dict[str, tuple[int, ...]] = {}

        def gain_of(name: str) -> Tensor | None:
            # a gain costs time: none for a module that needs none
            gain = fit_gain(torch.cat(ratios[name], 1), share)
            needed = bool(gain.log().square().mean().sqrt() > NEGLIGIBLE)
            return gain.reshape(shapes[name]) if needed else None

        def look(site: Site, call: int, out: Gaussian) -> Gaussian | None:
            if site.name not in names:
                return None
            ratio = self._ratio(site, call, out, (0, 2)).movedim(1, 0).flatten(1)  # (C, values)
            ratios.setdefault(site.name, []).append(ratio)
            shapes[site.name] = (-1, *[1] * (out.dim() - channel_dim(site.module, out) - 1))
            if site.name in several or (gain := gain_of(site.name)) is None:
                return None
            return out.replace(out.mu, out.v * gain.to(out.dtype))

        with self._watch(look):
            self.model(Gaussian(self.images, self.variance))
        found = {name: gain_of(name) for name in ratios}
        return {name: gain for name, gain in found.items() if gain is not None}

    def _ratio(self, site: Site, call: int, out: Gaussian, dims: tuple[int, ...] = (0, 1, 2)) -> Tensor:
        """Return ratios of standard deviations (B, C, positions), rules over Monte Carlo.

        NaN where the variance is far below the average over `dims`.
        """
        truth = self.truth[site.name, call]
        ratio = (self._take(site, out, out.v) / truth).sqrt()
        return ratio.where(truth > FAINT**2 * truth.mean(dims, keepdim=True), torch.nan)

    def _take(self, site: Site, out: Any, values: Tensor) -> Tensor:
        """Select positions of a map, the same for maps of one size: (B, C, positions)."""
        values = values.movedim(channel_dim(site.module, out), 1) if values.dim() > 1 else values[:, None]
        values = values.reshape(*values.shape[:2], -1)
        count = values.shape[2]
        if count > self.max_positions:
            if count not in self.positions:
                chosen = torch.randperm(count, generator=self.generator)[: self.max_positions]
                self.positions[count] = chosen.to(values.device)
            values = values[:, :, self.positions[count]]
        return values.float()

    def _plain(self) -> Callable[[Tensor], Any]:
        """Return the plain network: the model, or its plain means if it turns a tensor into a Gaussian itself."""
        made: list[Gaussian] = []

        def look(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:  # noqa: ARG001  signature of a hook
            if isinstance(out, Gaussian):
                made.append(out)

        with hooks([site.module for site in self.sites], look):
            self.model(self.images[:1])
        if not made:
            return self.model
        return lambda x: self.model(Gaussian(x, torch.zeros_like(x), plain_mean=True))

    @contextmanager
    def _watch(self, function: Callable[[Site, int, Any], Any]) -> Iterator[Callable[[], None]]:
        """Call `function(site, number of the call, output)`; its result replaces the output unless it is None.

        Yields a function that restarts the counts.
        """
        calls: dict[str, int] = {}
        sites = {site.module: site for site in self.sites}

        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:  # noqa: ARG001  signature of a hook
            site = sites[module]
            calls[site.name] = calls.get(site.name, -1) + 1
            return function(site, calls[site.name], out)

        with hooks(sites, hook):
            yield calls.clear


def fit_gain(ratio: Tensor, share: int) -> Tensor:
    """Fit gains (C,) to ratios of standard deviations (C, values); NaN marks values that are ignored.

    It takes the median, since a few outliers (a ReLU that is hardly ever on) would dominate a mean. A channel with few
    values leans towards the layer's median.
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
    """Return the 5th, 50th and 95th percentile of ratios, (N,); NaN if there are none."""
    if len(ratio) == 0:
        return Ratio(*[float('nan')] * 3)
    ordered = ratio.sort().values  # torch.quantile refuses more than 2^24 values
    return Ratio(*(float(ordered[round(q * (len(ordered) - 1))]) for q in (0.05, 0.5, 0.95)))
