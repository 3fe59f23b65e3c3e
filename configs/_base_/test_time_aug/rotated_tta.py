# test-time augmentation (`mmrotate-plugin test --tta`): the image and its reflection, at the four quarter turns and at
# two scales. An equivariant detector gives the same at all turns of its group; keep the scales alone for it.
tta_model = dict(
    type='mmrotate_plugin.RotatedTTAModel',
    tta_cfg=dict(nms=dict(type='weighted_boxes', iou_threshold=0.55), max_per_img=2000),
)
_tta_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'homography_matrix')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='mmrotate_plugin.TurnImage', degrees=degrees, flip=flip)
                for flip in (False, True)
                for degrees in (0, 90, 180, 270)
            ],
            [dict(type='mmrotate_plugin.SymmetricResize', scale=scale) for scale in (1025, 1281)],
            [dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox')],
            [dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox'))],
            [dict(type='mmdet.PackDetInputs', meta_keys=_tta_meta)],
        ],
    ),
]
