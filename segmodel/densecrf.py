"""The calls of pydensecrf, run by the guidance CRF: no compiler; on the GPU and with gradients for tensors.

Scripts change their imports::

    import segmodel.densecrf as dcrf                            # was: import pydensecrf.densecrf as dcrf
    from segmodel.densecrf import unary_from_softmax            # was: from pydensecrf.utils import ...

    d = dcrf.DenseCRF2D(width, height, labels)
    d.setUnaryEnergy(unary_from_softmax(probabilities))         # (labels, height, width)
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=picture, compat=10)
    labels = np.argmax(d.inference(5), axis=0).reshape(height, width)

What differs from the dense CRF (Krähenbühl and Koltun, NIPS 2011), whose results these are not:

- **The kernels.** The bilateral kernel becomes the guided filter (Eq. 11, 12): radius ``RADIUS * sxy``, epsilon
  ``(EPS * srgb)^2``. In each window labels are a linear model of the picture's colours; no weight says how alike two
  colours are. So a label whose colour lies between those of two others (three regions of a grey picture above all) gets
  part of theirs, and far pixels of the same colour help less. The Gaussian kernel becomes two box filters of the same
  variance.
- **The weights.** Every message is a mean (its weights sum to 1), which is closest to ``NORMALIZE_SYMMETRIC``. That,
  ``NORMALIZE_AFTER`` and ``NORMALIZE_BEFORE`` give the same here; ``NO_NORMALIZATION`` is an error.
- **The blocks.** The iterations run on blocks of ``stride`` pixels, and what they change is added to the unaries at
  full size. Where not given, ``stride`` is 1, 2 or 4, as the smallest ``sxy`` allows.
- **The kernel types** (``CONST_KERNEL``, ``DIAG_KERNEL``, ``FULL_KERNEL``) concern learning alone and change nothing.
- **Not possible** (each a ValueError that says so): kernels without positions, or over volumes.
- **Result** of ``inference``: an array (a tensor, if the unaries were one), not an object to convert.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmodel.kernels import box_filter, guided_filter, prepare_guide
from segmodel.model.upsampling import area_average, enlarge

CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = range(3)
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = range(4)
RADIUS, EPS = 0.5, 0.1
"""The guided filter's radius, and the root of its epsilon, in standard deviations of the bilateral kernel.

Found on training pictures of VOC: of the radii that give nearly the dense CRF's labels (0.25 to 1: 94 to 98 % of the
pixels), the smaller are the better ones; epsilon matters little below 0.2.
"""
MOST_ENERGY = 30.0
"""Above a pixel's least energy; it takes the place of the infinities that probabilities of 0 give."""


@dataclass(frozen=True)
class _Kernel:
    """A pairwise term. sxy: in pixels. guide: ``(1, B, H, W)`` in standard deviations of its bands, or None.

    energy: of two pixels' labels, a number or ``(L,)`` for equal ones alone, or ``(L, L)``.
    """

    sxy: float
    guide: Tensor | None
    energy: Tensor

    def filter(self, stride: int, like: Tensor) -> Callable[[Tensor], Tensor]:
        """The kernel's mean of each label ``(1, L, h, w)`` on blocks."""
        if self.guide is None:
            # two boxes of radius r have variance 2 ((2 r + 1)^2 - 1) / 12
            radius = max(1, round((np.sqrt(6 * (self.sxy / stride) ** 2 + 1) - 1) / 2))
            return lambda q: box_filter(box_filter(q, radius=radius), radius=radius)
        radius = max(1, round(RADIUS * self.sxy / stride))
        # bands in tenths of a deviation: colours with srgb = 13 are then about 0..255, for which the kernels are made
        guide = area_average(self.guide.to(like.device, like.dtype), stride) * 10
        prepared = prepare_guide(guide, radius=radius, eps=(10 * EPS) ** 2)
        return lambda q: guided_filter(q, prepared)

    def messages(self, g: Tensor) -> Tensor:
        """Energies that filtered beliefs ``(1, L, h, w)`` cause."""
        energy = self.energy.to(g.device, g.dtype)
        return torch.einsum("kl,nlhw->nkhw", energy, g) if energy.ndim == 2 else energy.reshape(-1, 1, 1) * g


class DenseCRF:
    """Mean field inference with guided filters, by pydensecrf's names. See the module for what differs.

    Args:
        npoints, nlabels: numbers of pixels and labels. The size of the picture follows from the positions in the
            features of ``addPairwiseEnergy``.
        stride: side of the blocks on which the iterations run, in pixels (default: from the smallest ``sxy``).
    """

    def __init__(self, npoints: int, nlabels: int, *, stride: int | None = None) -> None:
        if npoints < 1 or nlabels < 2 or (stride is not None and stride < 1):
            raise ValueError("npoints, nlabels, stride: expected at least 1, 2 and 1, "
                             f"got {npoints}, {nlabels} and {stride}")  # fmt: skip
        self.npoints, self.nlabels, self.stride = int(npoints), int(nlabels), stride
        self.size: tuple[int, int] | None = None
        self._unary: Tensor | None = None
        self._array = True
        self._kernels: list[_Kernel] = []

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:
        """Energies (negative logarithms of probabilities) ``(nlabels, npoints)``, an array or a tensor.

        With ``f``, features ``(D, npoints)``, they are ``u @ f`` of weights ``(nlabels, D)``.
        """
        self._array = not isinstance(u, Tensor)
        unary = _tensor("u", u) if f is None else _tensor("u", u) @ _tensor("f", f)
        if unary.shape != (self.nlabels, self.npoints):
            raise ValueError(f"u: expected shape {(self.nlabels, self.npoints)}, got {tuple(unary.shape)}")
        if unary.isnan().any() or (unary.amin(0).abs() == torch.inf).any():
            raise ValueError("u: expected a finite energy in each pixel and no NaN")
        self._unary = unary

    def addPairwiseEnergy(
        self, features: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """A kernel over features ``(2 + B, npoints)``: positions and B bands, each in its standard deviations.

        Those of ``create_pairwise_gaussian`` and ``create_pairwise_bilateral`` are so.
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or values.shape[1] != self.npoints or len(values) < 2:
            raise ValueError(f"features: expected (2 or more, {self.npoints}), got {values.shape}")
        size, sxy = _grid(values[:2])
        self._sized("features", size)
        guide = torch.from_numpy(values[2:].astype(np.float32)).reshape(1, -1, *size) if len(values) > 2 else None
        self._add(sxy, guide, compat, kernel, normalization)

    def _add(self, sxy: float, guide: Tensor | None, compat: Any, kernel: int, normalization: int) -> None:
        if kernel not in (CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL):
            raise ValueError(f"kernel: expected CONST_KERNEL, DIAG_KERNEL or FULL_KERNEL, got {kernel!r}")
        if normalization not in (NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC):
            raise ValueError("normalization: expected NORMALIZE_SYMMETRIC, NORMALIZE_AFTER or NORMALIZE_BEFORE "
                             f"(guided filters are means), got {normalization!r}")  # fmt: skip
        energy = _tensor("compat", compat)
        shapes: tuple[tuple[int, ...], ...] = ((), (self.nlabels,), (self.nlabels, self.nlabels))
        if tuple(energy.shape) not in shapes:
            raise ValueError(
                f"compat: expected a number or shape {shapes[1]} or {shapes[2]}, got {tuple(energy.shape)}"
            )
        # a number is what equal labels gain; arrays are energies
        energy = -energy if energy.ndim == 0 else (energy + energy.mT) / 2 if energy.ndim == 2 else energy
        self._kernels.append(_Kernel(sxy, guide, energy))

    def _sized(self, name: str, size: tuple[int, int]) -> tuple[int, int]:
        if self.size not in (None, size):
            height, width = self.size or size
            raise ValueError(f"{name}: expected {height} rows and {width} columns (the width is given first), "
                             f"got {size[0]} and {size[1]}")  # fmt: skip
        self.size = size
        return size

    def inference(self, niter: int) -> Any:
        """Probabilities ``(nlabels, npoints)`` in float32 after ``niter`` iterations."""
        field = self._field()
        phi = field.coarse
        for _ in range(niter):
            phi = field.step(phi)
        return self._given(field.beliefs(phi))

    def startInference(self) -> tuple[Any, Any, Any]:
        """Probabilities without pairwise terms, and what ``stepInference`` needs beside them."""
        field = self._field()
        return self._given(field.beliefs(field.coarse)), [field.coarse], field

    def stepInference(self, Q: Any, tmp1: Any, tmp2: Any) -> None:
        """One iteration: overwrites Q. The state is in ``tmp1``; changes that others made to Q are not read."""
        tmp1[0] = tmp2.step(tmp1[0])
        Q[...] = self._given(tmp2.beliefs(tmp1[0]))

    def klDivergence(self, Q: Any) -> float:
        """Mean field free energy of Q: its divergence from the CRF's distribution but for a constant.

        It is computed on the blocks, of a kernel that is not quite symmetric: a measure of convergence, whose values
        are not pydensecrf's.
        """
        field = self._field()
        q = area_average(_tensor("Q", Q).reshape(field.scores.shape), field.stride)
        energies = q.clamp(min=1e-20).log() - field.coarse
        for kernel, mean in field.kernels:
            energies = energies + kernel.messages(mean(q)) / 2
        return float((q * energies).sum()) * self.npoints / q[0, 0].numel()

    def _field(self) -> "_Field":
        if self._unary is None:
            raise ValueError("inference: expected setUnaryEnergy to be called before")
        height, width = self.size or (1, self.npoints)
        energies = (self._unary - self._unary.amin(0)).clamp(max=MOST_ENERGY)
        scores = -energies.reshape(1, self.nlabels, height, width)
        least = min((kernel.sxy for kernel in self._kernels), default=1.0)
        stride = self.stride or (1 if least < 2 else 2 if least < 8 else 4)
        kernels = [(kernel, kernel.filter(stride, scores)) for kernel in self._kernels]
        return _Field(scores, area_average(scores, stride), stride, kernels)

    def _given(self, beliefs: Tensor) -> Any:
        return beliefs.detach().numpy() if self._array else beliefs


@dataclass(frozen=True)
class _Field:
    """Scores ``(1, L, H, W)``, their means on blocks, and the kernels with their filters there."""

    scores: Tensor
    coarse: Tensor
    stride: int
    kernels: Sequence[tuple[_Kernel, Callable[[Tensor], Tensor]]]

    def step(self, phi: Tensor) -> Tensor:
        """Scores on blocks after another iteration."""
        q, phi = phi.softmax(1), self.coarse
        for kernel, mean in self.kernels:
            phi = phi - kernel.messages(mean(q))
        return phi

    def beliefs(self, phi: Tensor) -> Tensor:
        """Probabilities ``(L, pixels)``."""
        height, width = self.scores.shape[2:]
        changed = enlarge(phi - self.coarse, self.stride)[:, :, :height, :width]
        return (self.scores + changed).softmax(1).flatten(2)[0]


class DenseCRF2D(DenseCRF):
    """A ``DenseCRF`` of a picture of ``width`` x ``height`` pixels: the calls of pydensecrf's class of this name."""

    def __init__(self, width: int, height: int, nlabels: int, *, stride: int | None = None) -> None:
        super().__init__(width * height, nlabels, stride=stride)
        self.size = (int(height), int(width))

    def addPairwiseGaussian(
        self, sxy: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """A kernel of positions alone. sxy: standard deviation in pixels; of two, for x and y, the geometric mean."""
        self._add(_deviation("sxy", sxy), None, compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """A kernel of positions and colours.

        Args:
            sxy: standard deviation in pixels, see ``addPairwiseGaussian``.
            srgb: standard deviation of colours, one or one for each band.
            rgbim: the picture ``(H, W, 3)`` or of other bands, an array or a tensor, in the units of ``srgb``.
            compat: what equal labels gain, or energies ``(nlabels,)`` of equal or ``(nlabels, nlabels)`` of all pairs.
        """
        picture = _tensor("rgbim", rgbim)
        if picture.ndim != 3:
            raise ValueError(f"rgbim: expected (H, W, bands), got {tuple(picture.shape)}")
        self._sized("rgbim", (picture.shape[0], picture.shape[1]))
        _deviation("srgb", srgb)
        guide = (picture / _tensor("srgb", srgb)).permute(2, 0, 1)[None]
        self._add(_deviation("sxy", sxy), guide, compat, kernel, normalization)


def unary_from_labels(labels: Any, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> np.ndarray:
    """Energies ``(n_labels, pixels)`` of a label map whose labels are right with probability ``gt_prob``.

    With ``zero_unsure`` the labels are 1..n_labels, and 0 stands for a pixel of which nothing is known.
    """
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob: expected more than 0 and less than 1, got {gt_prob!r}")
    flat = np.asarray(labels).astype(np.int64).ravel() - bool(zero_unsure)
    if flat.min() < -bool(zero_unsure) or flat.max() >= n_labels:
        raise ValueError(f"labels: expected {n_labels} labels{', and 0 for unsure' if zero_unsure else ''}, "
                         f"got {flat.min() + bool(zero_unsure)} to {flat.max() + bool(zero_unsure)}")  # fmt: skip
    probabilities = np.full((n_labels, flat.size), (1 - gt_prob) / (n_labels - 1))
    known = np.flatnonzero(flat >= 0)
    probabilities[flat[known], known] = gt_prob
    probabilities[:, flat < 0] = 1 / n_labels
    return -np.log(probabilities).astype(np.float32)


def unary_from_softmax(sm: Any, scale: float | None = None, clip: float | None = 1e-5) -> np.ndarray:
    """Energies ``(labels, pixels)`` of probabilities, class first; ``scale`` mixes 1 - scale of the uniform ones in."""
    probabilities = np.asarray(sm, np.float32)
    labels = len(probabilities)
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale: expected more than 0 and at most 1, got {scale!r}")
        probabilities = scale * probabilities + np.float32((1 - scale) / labels)
    if clip is not None:
        probabilities = probabilities.clip(clip, 1)
    with np.errstate(divide="ignore"):
        return np.ascontiguousarray(-np.log(probabilities).reshape(labels, -1))


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Features of ``addPairwiseEnergy``: positions in an array of ``shape``, in standard deviations of each axis."""
    if len(sdims) != len(shape):
        raise ValueError(f"sdims: expected {len(shape)} numbers, got {len(sdims)}")
    axes = np.indices(tuple(shape), np.float32).reshape(len(shape), -1)
    return axes / np.asarray(sdims, np.float32)[:, None]


def create_pairwise_bilateral(sdims: Sequence[float], schan: Any, img: Any, chdim: int = -1) -> np.ndarray:
    """The same with the bands of a picture, which lie along its axis ``chdim`` (-1: it has one band and no axis)."""
    picture = np.asarray(img, np.float32)
    bands = picture[None] if chdim == -1 else np.moveaxis(picture, chdim, 0)
    deviations = np.asarray(schan, np.float32).reshape(-1)
    if len(deviations) not in (1, len(bands)):
        raise ValueError(f"schan: expected 1 or {len(bands)} numbers, got {len(deviations)}")
    colours = bands.reshape(len(bands), -1) / deviations[:, None]
    return np.concatenate([create_pairwise_gaussian(sdims, bands.shape[1:]), colours])


def _tensor(name: str, value: Any) -> Tensor:
    """A floating point tensor: float64 stays, everything else becomes float32."""
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    if tensor.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {tensor.dtype}")
    return tensor if tensor.dtype == torch.float64 and isinstance(value, Tensor) else tensor.float()


def _deviation(name: str, value: Any) -> float:
    """A standard deviation, or the geometric mean of several."""
    values = np.asarray(value, np.float64).reshape(-1)
    if not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"{name}: expected positive numbers, got {value!r}")
    return float(np.exp(np.log(values).mean()))


def _grid(positions: np.ndarray) -> tuple[tuple[int, int], float]:
    """Height and width of the picture, and the standard deviation in pixels, of rows of positions ``(2, pixels)``."""
    points = positions.shape[1]
    for down, across in (positions, positions[::-1]):
        changes = np.flatnonzero(down != down[0])
        width = int(changes[0]) if len(changes) else points
        height = points // width
        if height * width != points:
            continue
        steps = [line[at] - line[0] for line, at, cells in ((across, 1, width), (down, width, height)) if cells > 1]
        row, column = np.indices((height, width)).reshape(2, -1)
        expected = [down[0] + row * (steps[-1] if height > 1 else 0), across[0] + column * steps[0] * (width > 1)]
        if all(steps) and np.allclose([down, across], expected, rtol=1e-4, atol=1e-4):
            return (height, width), 1 / float(np.exp(np.log(np.abs(steps)).mean()))
    raise ValueError(
        "features: expected rows 0 and 1 to be the positions of a picture's pixels, row after row, each "
        "divided by a standard deviation; kernels without positions or over volumes are not possible"
    )
