# the embedded data set: scenes drawn from a seed, no files; under names of their own, so that a config can have these
# beside a base with another data set
synthetic_size = 193  # 32m + 1: every stage of an equivariant backbone keeps the image's centre
_scenes = dict(type='mmrotate_plugin.SyntheticAerialDataset', size=synthetic_size)
_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
_flip = dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])
_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
# the scenes bring their image along; an image file on which somebody tries the detector has to be loaded
_evaluated = [
    dict(type='LoadImageFromFile'),
    dict(type='mmrotate_plugin.SymmetricResize', scale=synthetic_size),
    *_boxes,
    dict(type='mmdet.PackDetInputs', meta_keys=_meta),
]

synthetic_train = dict(
    **_scenes,
    length=480,
    seed=0,
    cache=True,
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=[*_boxes, _flip, dict(type='mmdet.PackDetInputs')],
)
synthetic_val = dict(**_scenes, length=60, seed=1, test_mode=True, pipeline=_evaluated)
synthetic_test = dict(**_scenes, length=120, seed=2, test_mode=True, pipeline=_evaluated)
