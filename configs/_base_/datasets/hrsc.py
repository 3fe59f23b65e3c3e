# under names of their own, so that a config can have these beside a base with another data set; sides of 64m + 1 pixels
# keep an equivariant backbone exact, and a pyramid up to the stride of 64
_load = dict(type='LoadImageFromFile')
_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
_resize = dict(type='mmrotate_plugin.SymmetricResize', scale=(833, 513), multiple=64)
_flip = dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])
_turn = dict(type='mmrotate.RandomRotate', rotate_type='mmrotate.Rotate', prob=0.5, angle_range=180)
_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

hrsc_train = dict(
    type='mmrotate_plugin.HRSCDataset',
    data_root='data/hrsc/',
    ann_file='ImageSets/trainval.txt',
    data_prefix=dict(sub_data_root='FullDataSet/'),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=[_load, *_boxes, _resize, _flip, dict(type='mmdet.PackDetInputs')],
)
hrsc_rr_train = dict(hrsc_train, pipeline=[_load, *_boxes, _resize, _flip, _turn, dict(type='mmdet.PackDetInputs')])
hrsc_test = dict(
    type='mmrotate_plugin.HRSCDataset',
    data_root='data/hrsc/',
    ann_file='ImageSets/test.txt',
    data_prefix=dict(sub_data_root='FullDataSet/'),
    test_mode=True,
    pipeline=[_load, _resize, *_boxes, dict(type='mmdet.PackDetInputs', meta_keys=_meta)],
)
