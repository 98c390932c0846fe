"""Distance-aware pooling (Sec. 4.1, Fig. 3): the further a ring of context, the larger the area of its means."""

from collections.abc import Sequence

from torch import Tensor

from .box_filter import box_filter


def distance_aware_pool(features: Tensor, *, radii: Sequence[int]) -> tuple[Tensor, ...]:
    """Clipped box means of the features, one map for every ring radius.

    A dilated 3x3 convolution then samples each map at the distance of its ring. The means are full maps because
    every cell reads nine of them; nothing else is stored, also not for the backward.

    Args:
        features: ``N C H W``, any floating dtype.
        radii: one integer >= 0 for every ring; the authors' code has (2, 4).

    Raises:
        ValueError: on a wrong rank, dtype or radius, and when there are no radii.
    """
    if len(radii) == 0:
        raise ValueError("radii: expected at least one, got none")
    return tuple(box_filter(features, radius=radius, border="clipped") for radius in radii)
