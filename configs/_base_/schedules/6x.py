# under names of their own, so that a config can have this beside a base that has a schedule
epochs_6x = 72
schedule_6x = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=epochs_6x, by_epoch=True, milestones=[48, 66], gamma=0.1),
]
