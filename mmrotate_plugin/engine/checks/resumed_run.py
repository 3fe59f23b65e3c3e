"""Decide which schedule a resumed run follows, and say what differs from before."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop, Runner

from . import schedule_change as compare
from .noted_config import noted_config

CHOICES = ('checkpoint', 'config')
HOOK = 'mmrotate_plugin.ConfigScheduleHook'


def settle_schedule(cfg: Config, checkpoint: Mapping[str, Any], chosen: str | None) -> list[str]:
    """Make a config follow the chosen schedule, and say what that means.

    Args:
        cfg: It is changed: by the checkpoint's schedules, or by a hook that takes its own.
        checkpoint: What the run resumes from.
        chosen: 'checkpoint', 'config', or None where the user did not choose: the checkpoint's.

    Returns:
        Sentences for the log; empty if nothing differs.

    Raises:
        ValueError: If the state of the optimizer cannot be that of the config's.
    """
    said = []
    done, epochs = checkpoint['meta'].get('epoch', 0), (cfg.get('train_cfg') or {}).get('max_epochs')
    if epochs is not None and done >= epochs:
        said.append(
            f'epoch {done} of the checkpoint is the last or beyond (train_cfg.max_epochs={epochs}): nothing is left to '
            'train'
        )
    before = noted_config(checkpoint)
    if before is None:
        rules = 'config' if chosen == 'config' else 'checkpoint'
        said.append(f"the checkpoint does not hold its config to compare with; the {rules}'s learning rates rule")
    else:
        if other := compare.changed_optimizer(before, cfg):
            raise ValueError(
                f'the optimizer is another one: {other}, and cannot go on with its state. Train with the same, or '
                'begin anew from the weights: --cfg-options load_from=CHECKPOINT, without --resume'
            )
        if found := compare.schedule_differences(before, cfg):
            said.append(_which_rules(before, cfg, compare.listed(found), chosen))
            if chosen != 'config':
                _restore(cfg, before)
    if chosen == 'config':
        if plateau := [key for key in compare.types_of_schedules(cfg) if 'ReduceOnPlateau' in key]:
            raise ValueError(
                f'--resume-schedule config: {plateau[0]} depends on past validations, so that its steps cannot be '
                "taken again; the checkpoint's schedule can go on"
            )
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), {'type': HOOK}]
    return said


def _restore(cfg: Config, before: Config) -> None:
    """Also write what rules into the config, since later checkpoints hold it, and schedules have no type in them."""
    cfg.param_scheduler = compare.restored_schedules(before)
    for key in ('optimizer', 'paramwise_cfg'):
        cfg.optim_wrapper[key] = before.optim_wrapper.get(key)


def _which_rules(before: Config, cfg: Config, found: str, chosen: str | None) -> str:
    if chosen == 'config':
        return (
            "learning rates and options of the optimizer are the config's, as if they had been from the start "
            f'({found})'
        )
    end = compare.ends_early(before, cfg)
    constant = f', and from epoch {end} on its learning rate stays as it is' if end is not None else ''
    way_out = '' if chosen else ". --resume-schedule config takes the config's, as if it had ruled from the start"
    return (
        f'the config has another schedule or other options of the optimizer than the checkpoint ({found}); the '
        f"checkpoint's rule{constant}{way_out}"
    )


def tell_batch(runner: Runner, meta: Mapping[str, Any], chosen: str | None) -> str | None:
    """Say in one sentence if batch size, accumulation or number of processes differ from the checkpoint's.

    Args:
        runner: With its train loop built.
        meta: The checkpoint's `meta`.
        chosen: As in `settle_schedule`.
    """
    before = noted_config({'meta': meta})
    found = compare.batch_differences(meta, before, compare.run_facts(runner.cfg, get_world_size()))
    if not found:
        return None
    length, old = len(runner.train_loop.dataloader), meta.get('batches_per_epoch')
    if isinstance(runner.train_loop, EpochBasedTrainLoop) and old not in (None, length):
        found.append(f'iterations per epoch {old} -> {length}')
    rates = (
        "the config's schedule and learning rates rule too"
        if chosen == 'config'
        else "learning rates are still the checkpoint's, made for its batch; --resume-schedule config takes the "
        "config's (with --auto-scale-lr scaled)"
    )
    return f"{', '.join(found)}: the config's rule, so that the training is another one from here; {rates}"


def unfit_optimizer(groups: list[Mapping[str, Any]], saved: Any) -> str | None:
    """Say why a saved state does not fit an optimizer with these groups of parameters; return None if it may.

    Args:
        groups: Parameter groups of the optimizer that was built.
        saved: The checkpoint's 'optimizer'.
    """
    old = saved.get('param_groups') if isinstance(saved, Mapping) else None
    if not isinstance(old, list):
        return None  # of several optimizers
    if len(old) != len(groups):
        return f'{len(old)} groups of parameters in the checkpoint, {len(groups)} in the config (paramwise_cfg)'
    for i, (then, now) in enumerate(zip(old, groups, strict=True)):
        if len(then.get('params', ())) != len(now['params']):
            return (
                f'{len(then["params"])} parameters in group {i} of the checkpoint, {len(now["params"])} in the config '
                '(paramwise_cfg, frozen parts)'
            )
    missing = sorted(set(groups[0]) - set(old[0]) - {'params', 'initial_lr', 'lr'}) if groups else []
    ours = sorted(set(old[0]) - set(groups[0]) - {'params', 'initial_lr', 'lr'}) if groups else []
    if {'betas', 'momentum'} & {*missing, *ours}:
        return (
            f'it has {", ".join(ours) or "nothing more"} in the checkpoint, {", ".join(missing) or "nothing more"} here'
        )
    return None
