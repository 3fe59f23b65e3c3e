# fine-tunes the detector of rotated-fcos_adfr18_fpn_synthetic.py (--cfg-options load_from=CHECKPOINT) on noisy images,
# with the likelihood of boxes under the propagated variance for their loss
_base_ = './uncertain-rotated-fcos_adfr18_fpn_synthetic.py'

noise_std = 8.0  # grey levels
model = dict(
    noise_std=noise_std,
    detector=dict(
        bbox_head=dict(
            loss_bbox=dict(
                _delete_=True,
                type='mmrotate_plugin.HeteroscedasticLoss',
                columns=4,  # left, top, right and bottom in the box's frame, pixels
                kind='laplace',
                gain=1e4,  # the propagated variance is not calibrated
                std=1.0,
                loss_weight=0.1,  # a pixel then counts about as much as in the IoU loss
            )
        )
    ),
)

_pipeline = _base_.synthetic_train.pipeline
_noise = dict(type='mmrotate_plugin.AddNoise', std=noise_std)
train_dataloader = dict(dataset=dict(pipeline=[*_pipeline[:-1], _noise, _pipeline[-1]]))

max_epochs = 1
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(custom_keys={'loss_bbox': dict(lr_mult=100, decay_mult=0)}),  # logarithms, of few parameters
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=20),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=2e-6, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
