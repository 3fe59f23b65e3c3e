"""Check that mmcv's compiled operators give right answers, not only import. Run in the environment."""

import torch
from mmcv.ops import box_iou_rotated, nms_rotated

boxes = torch.tensor([[10.0, 10.0, 8.0, 4.0, 0.0], [10.0, 10.0, 8.0, 4.0, 0.1], [40.0, 40.0, 8.0, 4.0, 0.0]])
iou = box_iou_rotated(boxes, boxes)
assert (iou.diagonal() - 1).abs().max() < 1e-3 and iou[0, 2] == 0, f'box_iou_rotated gave {iou.tolist()}'
keep = nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist()
assert keep == [0, 2], f'nms_rotated kept {keep}'
