# under names of their own, so that a config can have these beside a base with another data set; sides of 64m + 1 pixels
# keep an equivariant backbone exact, and a pyramid up to the stride of 64
_load = dict(type='LoadImageFromFile')
_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
_resize = dict(type='mmrotate_plugin.SymmetricResize', scale=833, multiple=64)
_flip = dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])
_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

dior_train = dict(
    type='ConcatDataset',
    ignore_keys=['DATASET_TYPE'],
    datasets=[
        dict(
            type='mmrotate_plugin.DIORDataset',
            data_root='data/DIOR/',
            ann_file=f'ImageSets/Main/{part}.txt',
            data_prefix=dict(img_path='JPEGImages-trainval'),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[_load, *_boxes, _resize, _flip, dict(type='mmdet.PackDetInputs')],
        )
        for part in ('train', 'val')
    ],
)
dior_test = dict(
    type='mmrotate_plugin.DIORDataset',
    data_root='data/DIOR/',
    ann_file='ImageSets/Main/test.txt',
    data_prefix=dict(img_path='JPEGImages-test'),
    test_mode=True,
    pipeline=[_load, _resize, *_boxes, dict(type='mmdet.PackDetInputs', meta_keys=_meta)],
)
