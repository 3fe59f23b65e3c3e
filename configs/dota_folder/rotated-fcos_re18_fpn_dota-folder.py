# The small Rotated FCOS on one folder of images (*.png) with DOTA label files (*.txt) beside them.
# Put another folder in place with --cfg-options train_dataloader.dataset.dataset.data_root=... and
# val_dataloader.dataset.data_root=... test_dataloader.dataset.data_root=...
_base_ = '../synthetic/rotated-fcos_re18_fpn_synthetic.py'

data_root = 'data/dota_folder/'
resize = dict(type='mmrotate_plugin.SymmetricResize', scale=1057)
annotations = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
folder = dict(
    type='mmrotate_plugin.DOTADataset',
    data_root=data_root,
    ann_file='./',
    data_prefix=dict(img_path=''),
)

model = dict(bbox_head=dict(num_classes=15), test_cfg=dict(nms_pre=2000, max_per_img=500))
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=40,  # an epoch of a few images would be over at once
        dataset=dict(
            **folder,
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[
                dict(type='LoadImageFromFile'),
                *annotations,
                resize,
                dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
                dict(type='mmdet.PackDetInputs'),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        **folder,
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            resize,
            *annotations,
            dict(
                type='mmdet.PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
test_dataloader = val_dataloader

max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=max_epochs)]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
