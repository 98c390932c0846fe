"""Runs the tests of the operators once on every backend that a CPU has."""

from collections.abc import Iterator

import pytest

from segmodel.kernels import backend


@pytest.fixture(params=("torch", "numba"), scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend that "auto" takes on this machine: torch, as without numba, and numba where it is installed."""
    if request.param == "numba" and not backend.NUMBA:
        pytest.skip("numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(backend.VARIABLE, raising=False)
        patch.setattr(backend, "NUMBA", request.param == "numba")
        yield request.param
