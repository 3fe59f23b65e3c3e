"""Express the data sets, transforms and hooks of a config in classes of mmdet and mmrotate."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from ..datasets.synthetic.scenes import CLASSES, PALETTE
from ..models.layers import Cfg
from .config_rewrite import DROP, PACKAGE, Path, Unsupported, our_class, rewrite
from .standalone_modules import LOADER, RESIZE

Notes = dict[str, list[str]]  # places in the config by the text about them

KINDS = ('TRANSFORMS', 'DATASETS', 'HOOKS', 'METRICS', 'OPTIM_WRAPPERS')
# read by mmengine's Runner and the tools of mmdet; other names of a config have done their work
KEPT = (
    'default_scope', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'val_evaluator', 'test_evaluator', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'default_hooks',
    'custom_hooks', 'env_cfg', 'log_processor', 'log_level', 'vis_backends', 'visualizer', 'randomness',
    'find_unused_parameters', 'model_wrapper_cfg', 'tta_model', 'tta_pipeline',
)  # fmt: skip
HOSTED = ('DOTADataset', 'DOTAv15Dataset', 'DOTAv2Dataset', 'HRSCDataset', 'DIORDataset')  # mmrotate has them too
THEIR_ARGUMENTS = {'img_subdir', 'ann_subdir', 'classwise', 'file_client_args', 'backend_args', 'ann_type', 'kwargs'}
SCENES = ('length', 'seed', 'size', 'num_objects', 'scale', 'angles', 'cache', 'metainfo')


def plain_runtime(cfg: Config) -> tuple[Cfg, list[str], set[str]]:
    """Rewrite a config except for its model, without classes of this package.

    `SymmetricResize` and `LoadImageFromFile` stay, in files next to the config. `DOTADataset`, `HRSCDataset`,
    `DIORDataset` and `DOTAMetric` become mmrotate's. `SyntheticAerialDataset` becomes mmrotate's `DOTADataset` on the
    files that ``tools/make_synthetic.py`` writes. Hooks and other metrics of this package are left out, and so is
    `AddNoise`.

    Args:
        cfg: The config. The default scope must be set.

    Returns:
        The config, notes for the user, and the names of `standalone_modules.PARTS` in it.

    Raises:
        Unsupported: For a class of this package without a counterpart there; the message names its place.
    """
    notes: Notes = {}
    parts: set[str] = set()

    def rule(value: Cfg, path: Path) -> Any:
        place = '.'.join(path)
        resize = our_class(value, ['TRANSFORMS'], 'resize_type')
        if resize is not None:  # of mmcv's random resizes
            value = {**value, 'resize_type': _transform(resize, place, parts)}
        found = our_class(value, KINDS)
        if found is None:
            return value
        bases = {base.__name__ for base in found.__mro__}
        rest = {key: item for key, item in value.items() if key not in ('type', '_scope_')}
        if found.__name__ == 'DOTAMetric' and 'scale_ranges' not in rest and rest.get('predict_box_type') != 'hbox':
            text = "mmrotate's DOTAMetric counts; its overlaps are those of mmcv, and it forgets some ignored objects"
            notes.setdefault(text, []).append(place)
            return {'type': 'mmrotate.DOTAMetric', **rest}
        if 'Hook' in bases or 'BaseMetric' in bases or found.__name__ == 'AddNoise':
            notes.setdefault(f'{found.__name__} is left out', []).append(place)
            return DROP
        if 'BaseTransform' in bases:
            return {'type': _transform(found, place, parts), **rest}
        if found.__name__ == 'SyntheticAerialDataset':
            return _scenes(rest, path, notes)
        if found.__name__ in HOSTED:
            text = f"mmrotate's {found.__name__} reads the labels; it neither names nor leaves out broken ones"
            notes.setdefault(text, []).append(place)
            return {'type': f'mmrotate.{found.__name__}', **_for_the_host(found, rest, place, notes)}
        if found.__name__ == 'BFloat16OptimWrapper':
            notes.setdefault("BFloat16OptimWrapper becomes mmengine's OptimWrapper, in float32", []).append(place)
            return {'type': 'OptimWrapper', **rest}
        cure = 'put one there by --cfg-options'
        if 'LabelledDataset' in bases:
            cure += ", such as mmrotate's DOTADataset on what `mmrotate-plugin convert-dataset --to dota` writes"
        raise Unsupported(f'{place}: {found.__name__} has no counterpart in mmdet or mmrotate; {cure}')

    plain = {key: cfg[key] for key in KEPT if key in cfg}
    plain = rewrite(plain, rule)
    for part in ('val', 'test'):
        if plain.get(f'{part}_dataloader') and f'{part}_evaluator' not in plain and f'{part}_evaluator' in cfg:
            plain[f'{part}_evaluator'] = []  # all of it was left out
    return plain, [f'{", ".join(places)}: {text}' for text, places in notes.items()], parts


def own_arguments(dataset: type) -> set[str]:
    """List the arguments of a data set of ours that mmrotate's does not have."""
    theirs = THEIR_ARGUMENTS | ({'diff_thr', 'img_suffix'} if dataset.__name__.startswith('DOTA') else set())
    return set(inspect.signature(dataset).parameters) - theirs


def _for_the_host(dataset: type, cfg: Cfg, place: str, notes: Notes) -> Cfg:
    """Translate arguments for mmrotate's data set of the same name, so that it does the same."""
    own = own_arguments(dataset)
    rest = {key: item for key, item in cfg.items() if key not in own}
    if 'img_suffix' in rest and not isinstance(rest['img_suffix'], str):
        rest['img_suffix'] = str(list(rest['img_suffix'])[0])
        text = f"mmrotate's {dataset.__name__} reads one ending of images, {rest['img_suffix']!r}"
        notes.setdefault(text, []).append(place)
    if rest.get('diff_thr', ...) is None:
        del rest['diff_thr']
    if 'diff_thr' not in own and cfg.get('test_mode') and 'diff_thr' not in rest:
        rest['diff_thr'] = 0  # its default ignores no object
    return rest


def plain_imports(cfg: Mapping[str, Any], extra: list[str]) -> Cfg:
    """Make `custom_imports` without this package and with `extra` modules; empty if nothing is left."""
    imports = (cfg.get('custom_imports') or {}).get('imports', [])
    imports = [imports] if isinstance(imports, str) else list(imports)
    imports = [name for name in imports if name.partition('.')[0] != PACKAGE] + extra
    return {'custom_imports': {'imports': imports, 'allow_failed_imports': False}} if imports else {}


def _transform(found: type, place: str, parts: set[str]) -> str:
    part = {'SymmetricResize': RESIZE, 'LoadImageFromFile': LOADER}.get(found.__name__)
    if part is None:
        raise Unsupported(f'{place}: the transform {found.__name__} has no counterpart; put one there by --cfg-options')
    parts.add(part)
    return part


def _scenes(cfg: Cfg, path: Path, notes: Notes) -> Cfg:
    """Rewrite synthetic scenes as mmrotate's data set on their files."""
    split = 'train' if path[0].startswith('train') else 'val'
    text = (
        'the scenes are drawn by this package; the exported config names files of such scenes, which '
        '`python tools/make_synthetic.py --out data/synthetic` writes. Put your own data there'
    )
    notes.setdefault(text, []).append('.'.join(path))
    classes = (cfg.get('metainfo') or {}).get('classes', CLASSES)
    pipeline = list(cfg.get('pipeline', []))
    first = str(pipeline[0]['type']) if pipeline else ''
    if not first.rpartition('.')[2].startswith('LoadImage'):  # a scene holds its image already
        pipeline.insert(0, {'type': 'LoadImageFromFile'})
    return {
        'type': 'mmrotate.DOTADataset',
        'data_root': f'data/synthetic/{split}/',
        'ann_file': 'labelTxt/',
        'data_prefix': {'img_path': 'images/'},
        'metainfo': {'classes': tuple(classes), 'palette': [PALETTE[CLASSES.index(name)] for name in classes]},
        **{key: value for key, value in cfg.items() if key not in SCENES},
        'pipeline': pipeline,
    }
