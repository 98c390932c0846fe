"""From predictions to figures: mIoU, Boundary IoU, trimaps, intervals."""
