"""The operators beside implementations by others, on a whole picture with edges and grain."""

import numpy as np
import pytest
import torch

from segmodel.experiments.timing import inputs
from segmodel.kernels import guidance_crf, guided_filter
from segmodel.reference import guided_filter as reference

pytestmark = pytest.mark.usefixtures("engine")
SIZE = (5, 90, 131)  # labels, height, width


# With small windows and eps OpenCV's float32 covariances are what differs: 2e-4 at radius 1 and eps 10, where ours are
# within 3e-6 of float64.
@pytest.mark.parametrize(("radius", "eps"), [(1, 400.0), (3, 100.0), (9, 10.0)])
def test_equals_opencv_on_a_mirrored_picture(radius: int, eps: float) -> None:
    """OpenCV mirrors what lies beyond the border; a picture mirrored by two windows leaves us none that is cut."""
    cv2 = pytest.importorskip("cv2", reason="compares with opencv-contrib-python-headless")
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("this OpenCV has no ximgproc: opencv-contrib-python-headless has it")
    scores, guide = inputs(*SIZE)
    margin = 2 * radius
    wide = [np.pad(x[0].numpy(), ((0, 0), *((margin, margin),) * 2), mode="symmetric") for x in (scores, guide)]
    filtered = guided_filter(*(torch.from_numpy(x)[None] for x in wide), radius=radius, eps=eps)
    picture, maps = (np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()) for x in (guide, scores))
    expected = cv2.ximgproc.guidedFilter(picture, maps, radius, eps)
    ours = filtered[0, :, margin:-margin, margin:-margin].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_the_authors_border_is_kornias() -> None:
    """With zeros around the picture and the whole window as divisor of the moments too."""
    filters = pytest.importorskip("kornia.filters", reason="compares with kornia")
    scores, guide = (x.double() for x in inputs(*SIZE))
    expected = filters.guided_blur(guide, scores, 7, 100.0, border_type="constant")[0].permute(1, 2, 0).numpy()
    picture, maps = (x[0].permute(1, 2, 0).numpy() for x in (guide, scores))
    ours = reference.guided_filter(maps, picture, radius=3, epsilon=100.0, border="authors")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("border", ["clipped", "constant"])
def test_equals_mean_field_with_the_dense_weights(border: str) -> None:
    """Every w_ij of Eq. 12, and Algorithm 1 as matrix products."""
    scores, guide = (x.double() for x in inputs(4, 18, 25))
    weights = reference.dense_weights(guide[0].permute(1, 2, 0).numpy(), radius=2, epsilon=30.0, border=border)
    weights = torch.from_numpy(weights).reshape(18 * 25, 18 * 25)
    unary = scores[0].flatten(1).mT  # [pixels, labels]
    phi, potts = unary, 1 - torch.eye(4, dtype=torch.float64)
    for _ in range(5):
        phi = unary - 1.4 * weights @ phi.softmax(dim=1) @ potts
    ours = guidance_crf(scores, guide, weight=1.4, radius=2, eps=30.0, iterations=5, border=border)
    torch.testing.assert_close(ours[0].flatten(1).mT, phi, rtol=0, atol=1e-10)
