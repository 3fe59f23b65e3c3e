"""Run the model of a config as training and inference do, without loading: one step, one forward pass."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS

from ...utils.errors import UsageError
from ..config import load_config
from ..inference import build_model


class TrainingRun(NamedTuple):
    """A training step, ready to run.

    Attributes:
        step: Runs it.
        optimizer: What updates the weights.
        shape: Of the images, (B, C, H, W).
    """

    step: Callable[[], None]
    optimizer: torch.optim.Optimizer
    shape: tuple[int, ...]


def load_model(config: str, options: Sequence[str], device: torch.device) -> tuple[Config, BaseModel]:
    """Load a config and build its model with initial weights of a fixed seed."""
    cfg = load_config(config, options)
    torch.manual_seed(0)
    return cfg, build_model(cfg).to(device)


def training_run(cfg: Config, model: BaseModel, batch: int | None = None) -> TrainingRun:
    """Prepare training steps on the first images of the config's train_dataloader, by its losses and optimizer.

    Args:
        cfg: The config.
        model: Its model; it is set to training mode, and its weights change.
        batch: Images of a step; None for the config's.

    Raises:
        UsageError: If the config has no train_dataloader or optim_wrapper.
    """
    for name in ('train_dataloader', 'optim_wrapper'):
        if not cfg.get(name):
            raise UsageError(f"the config '{cfg.filename}' has no {name}, which a training step needs: --measures eval")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    count = batch or cfg.train_dataloader.get('batch_size', 1)
    data = pseudo_collate([dataset[i] for i in range(min(count, len(dataset)))])
    model.train()
    data = model.data_preprocessor(data, True)
    wrapper: Any = build_optim_wrapper(model, cfg.optim_wrapper)

    def step() -> None:
        with wrapper.optim_context(model):
            losses = model(**data, mode='loss')
        wrapper.update_params(model.parse_losses(losses)[0])

    return TrainingRun(step, wrapper.optimizer, tuple(data['inputs'].shape))


def inference_run(
    model: BaseModel, shape: tuple[int, int, int, int], device: torch.device, *, mode: str
) -> Callable[[], object]:
    """Prepare forward passes on random images.

    Args:
        model: It is set to eval mode.
        shape: Of the images, (B, C, H, W), as the backbone gets them.
        device: Where the model is.
        mode: 'predict' for all up to the detections, 'tensor' for the outputs of the heads.
    """
    model.eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    size = tuple(shape[-2:])
    meta: dict[str, Any] = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}

    def run() -> object:
        samples = [DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0), 'img_id': i}) for i in range(len(x))]
        with torch.no_grad():
            return model(x, samples, mode=mode)

    return run
