"""Dilated depthwise convolutions in parts: the same values and gradients as the convolution as it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segmodel.model.dilated import DilatedDepthwise, separate_dilated


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 11), st.integers(1, 11)),
    st.sampled_from([(1, 3), (3, 3), (5, 3), (5, 5), (7, 7)]),
    st.integers(2, 4),
    st.booleans(),
    st.booleans(),
)
def test_same_values_and_gradients(shape, kernel, dilation, bias, last):
    channels = shape[1]
    padding = tuple(dilation * (side // 2) for side in kernel)
    whole = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias)
    whole.double()
    parts = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias)
    parts.double().load_state_dict(whole.state_dict())
    separate_dilated(parts)
    if channels > 1:  # with one channel it is no depthwise convolution to any library
        assert type(parts) is DilatedDepthwise
    x = torch.randn(shape, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, got = whole(one), parts(other)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    expected.backward(weights)
    got.backward(weights)
    torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-12)
    for mine, its in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=0, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(parts(x), whole(x))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4),  # not dilated
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),  # not depthwise
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4),  # changes the size
        nn.Conv2d(4, 4, 3, padding=(2, 3), dilation=(2, 3), groups=4),
        nn.Conv2d(4, 4, 2, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, padding_mode="circular"),
    ],
)
def test_others_stay_as_they_are(conv):
    before = type(conv)
    separate_dilated(nn.Sequential(conv))
    assert type(conv) is before
