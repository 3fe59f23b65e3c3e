# under names of their own, so that a config can have this beside a base that has a schedule
epochs_3x = 36
schedule_3x = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=epochs_3x, by_epoch=True, milestones=[24, 33], gamma=0.1),
]
