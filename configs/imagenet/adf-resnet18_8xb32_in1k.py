# Without a variance ADFResNet is the plain ResNet, in its weights too, and this trains it. To train on the expected
# features of noisy images: --cfg-options model.backbone.mean=adf model.backbone.noise_variance=0.01
_base_ = './re-resnet18_8xb32_in1k.py'

model = dict(
    backbone=dict(_delete_=True, type='mmrotate_plugin.ADFResNet', depth=18, out_indices=(3,), norm_eval=False)
)
