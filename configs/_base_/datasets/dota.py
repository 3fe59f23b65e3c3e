# reader and pipelines for patches of DOTA, under names of their own, so that a config can have these beside a base with
# another data set; sides of 64m + 1 pixels keep an equivariant backbone exact, and a pyramid up to the stride of 64
dota_reader = 'mmrotate_plugin.DOTADataset'
_dota_load = dict(type='LoadImageFromFile')
_dota_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
_dota_resize = dict(type='mmrotate_plugin.SymmetricResize', scale=1025, multiple=64)
_dota_flip = dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])
# tanks and roundabouts have no direction, so their boxes stay upright
_dota_turn = dict(
    type='mmrotate.RandomRotate', rotate_type='mmrotate.Rotate', prob=0.5, angle_range=180, rect_obj_labels=[9, 11]
)
_dota_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

dota_train = [_dota_load, *_dota_boxes, _dota_resize, _dota_flip, dict(type='mmdet.PackDetInputs')]
dota_rr_train = [_dota_load, *_dota_boxes, _dota_resize, _dota_flip, _dota_turn, dict(type='mmdet.PackDetInputs')]
dota_test = [_dota_load, _dota_resize, *_dota_boxes, dict(type='mmdet.PackDetInputs', meta_keys=_dota_meta)]
