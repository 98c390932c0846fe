"""What is said of the authors' guidance CRF, held against their steps in NumPy (``authors_tools``)."""

import numpy as np
import pytest
from authors_tools import AuthorsCRF
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import check_gradient, few

from segmodel.reference.arrays import softmax, softmax_adjoint
from segmodel.reference.guidance_crf import guidance_crf, potts
from segmodel.reference.guided_filter import guided_filter, guided_filter_adjoint


def draw(images: int, labels: int, height: int, width: int, seed: int, contrast: float = 255.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, labels, height, width)), rng.uniform(0, contrast, (images, 3, height, width))


def channel_last(x: np.ndarray) -> np.ndarray:
    return x[0].transpose(1, 2, 0)


@few
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5), st.integers(0, 99))
def test_one_iteration_is_algorithm_1_with_their_border(height, width, labels, radius, seed) -> None:
    scores, guide = draw(1, labels, height, width, seed)
    found = AuthorsCRF(guide, radius=radius, iterations=1).forward(scores)
    expected = guidance_crf(channel_last(scores), channel_last(guide), compatibility=potts(labels), radius=radius,
                            iterations=1, border="authors")  # fmt: skip
    # explicit inverses of covariances up to 1e4 with eps 1
    np.testing.assert_allclose(channel_last(found), expected, rtol=0, atol=1e-8)


def test_epsilon_is_1_2_3_forward_and_4_5_6_backward() -> None:
    scores, guide = draw(1, 3, 7, 8, 0, contrast=6.0)
    gradient = draw(1, 3, 7, 8, 1)[0]
    crf = AuthorsCRF(guide, radius=2)
    found, found_gradient = crf.forward(scores), crf.backward(gradient)
    unary, colours, mu = channel_last(scores), channel_last(guide), potts(3)
    phi, beliefs = unary, []
    for k in (1, 2, 3):
        beliefs.append(softmax(phi))
        phi = unary - 2 * guided_filter(beliefs[-1], colours, radius=2, epsilon=k, border="authors") @ mu.T
    np.testing.assert_allclose(channel_last(found), phi, rtol=0, atol=1e-10)
    step = total = channel_last(gradient)
    for k, q in zip((4, 5, 6), reversed(beliefs), strict=True):
        message = guided_filter_adjoint(-2 * step @ mu, colours, radius=2, epsilon=k, border="authors")
        step = softmax_adjoint(q, message)
        total = total + step
    np.testing.assert_allclose(channel_last(found_gradient), total, rtol=0, atol=1e-10)


@pytest.mark.parametrize("accumulate", [True, False])
def test_their_backward_is_the_derivative_only_with_one_epsilon(accumulate) -> None:
    scores, guide = draw(1, 3, 5, 6, 0, contrast=6.0)
    direction = draw(1, 3, 5, 6, 1)[0]
    crf = AuthorsCRF(guide, radius=2, accumulate=accumulate)
    crf.forward(scores)
    gradient = crf.backward(direction)
    loss = lambda s: float((direction * crf.forward(s)).sum())  # noqa: E731
    if accumulate:
        with pytest.raises(AssertionError):
            check_gradient(loss, scores, gradient)
    else:
        check_gradient(loss, scores, gradient)


def test_one_epsilon_and_one_image_at_a_time_is_the_reference() -> None:
    scores, guide = draw(2, 3, 6, 7, 0)
    found = AuthorsCRF(guide, accumulate=False, mix=False).forward(scores)
    for image in range(2):
        one = slice(image, image + 1)
        expected = guidance_crf(channel_last(scores[one]), channel_last(guide[one]), compatibility=potts(3),
                                border="authors")  # fmt: skip
        np.testing.assert_allclose(channel_last(found[one]), expected, rtol=0, atol=1e-8)


def test_a_batch_of_two_mixes_images_and_labels() -> None:
    """Of 2 x 3 planes in memory their softmax normalises the even ones (image 0's labels 0 and 2, image 1's label 1)
    together, and the odd ones."""
    scores, guide = draw(2, 3, 5, 6, 0)
    crf = AuthorsCRF(guide, iterations=1)
    mixed = crf.forward(scores)
    planes = crf.beliefs[0].reshape(6, 5, 6)
    np.testing.assert_allclose(planes[0::2].sum(axis=0), 1)
    np.testing.assert_allclose(planes[1::2].sum(axis=0), 1)
    assert np.abs(crf.beliefs[0].sum(axis=1) - 1).max() > 0.3
    alone = AuthorsCRF(guide[:1], iterations=1).forward(scores[:1])
    assert np.abs(mixed[:1] - alone).max() > 0.3
    scores[1, 1] += 3  # another image's scores change the result of this one
    assert np.abs(crf.forward(scores)[0] - mixed[0]).max() > 0.1
