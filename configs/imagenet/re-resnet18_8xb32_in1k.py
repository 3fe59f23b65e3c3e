# ReResNet-18 as a classifier of ImageNet in mmpretrain: how backbones are pre-trained for detection. 100 epochs, 8
# processes of 32 images; --auto-scale-lr adapts the learning rate to another batch.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)

num_classes = 1000
size = 225  # 32m + 1: the strided lattices keep the image's centre
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmrotate_plugin.ReResNet', depth=18, group='C8', out_indices=(3,)),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=num_classes,
        in_channels=512,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
data_preprocessor = dict(type='mmpretrain.ClsDataPreprocessor', num_classes=num_classes)

_flip = dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal')
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmpretrain.LoadImageFromFile'),
            dict(type='mmpretrain.RandomResizedCrop', scale=size),
            _flip,
            dict(type='mmpretrain.PackInputs'),
        ]
    )
)
_evaluated = [
    dict(type='mmpretrain.LoadImageFromFile'),
    dict(type='mmpretrain.ResizeEdge', scale=257, edge='short'),
    dict(type='mmpretrain.CenterCrop', crop_size=size),
    dict(type='mmpretrain.PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=_evaluated))
test_dataloader = dict(dataset=dict(pipeline=_evaluated))
