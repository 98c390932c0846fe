"""Any timm model with ``features_only`` and an output stride as the backbone (extra ``[timm]``)."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from segmodel.model.backbone import Backbone
from segmodel.model.dilated import separate_dilated

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig

STRIDES = (8, 16, 32)


class TimmBackbone(Backbone):
    """The last features of a timm model, at ``output_stride``, without weights.

    Forward: normalised image ``(N, 3, H, W)`` -> ``(N, channels, ceil(H / output_stride), ceil(W / output_stride))``.
    ``mean`` and ``std`` are the colours (RGB, 0..255) that the model's pre-trained weights expect.

    Raises:
        ValueError: timm is not installed, has no model of this name, or the model has no features of this stride.
    """

    form = "timm:NAME"
    leaves_unused = True  # some models: those of stages behind the last features

    def __init__(self, name: str, *, output_stride: int):
        super().__init__()
        self.name, self.stride, self._recompute = name, output_stride, False
        if output_stride not in STRIDES:
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")
        self.body = _create(name, output_stride, pretrained=False)
        separate_dilated(self.body)
        info: Any = self.body.feature_info
        reduction = info.reduction()[-1]
        if reduction != output_stride:
            raise ValueError(f"backbone: timm:{name}: its last features have stride {reduction}, not the "
                             f"output_stride {output_stride}")  # fmt: skip
        self.channels: int = info.channels()[-1]
        expected: Any = self.body.pretrained_cfg
        self.mean = tuple(255 * value for value in expected["mean"])
        self.std = tuple(255 * value for value in expected["std"])

    @classmethod
    def configured(cls, config: "ModelConfig") -> "TimmBackbone":
        return cls(config.backbone.partition(":")[2], output_stride=config.output_stride)

    @property  # type: ignore[override]
    def recompute(self) -> bool:
        """Whether activations are recomputed in the backward pass (timm's gradient checkpointing).

        Running statistics inside then take each batch twice, which moves them as a larger momentum would; those that a
        training recomputes at its end do not.
        """
        return self._recompute

    @recompute.setter
    def recompute(self, enable: bool) -> None:
        inner = getattr(self.body, "model", None)  # some models stand within a wrapper that has no such method
        holder: Any = next((part for part in (self.body, inner) if hasattr(part, "set_grad_checkpointing")), None)
        try:
            if enable or holder is not None:
                holder.set_grad_checkpointing(enable)
        except (AttributeError, AssertionError, NotImplementedError) as error:
            why = f"timm:{self.name} cannot recompute its activations"
            raise ValueError(f"checkpoint_activations: {why}") from error
        self._recompute = enable

    def forward(self, x: Tensor) -> Tensor:
        # whole cells: some models round sizes down, and the head needs a cell for every part of the image
        height, width = x.shape[-2:]
        features: Tensor = self.body(functional.pad(x, (0, -width % self.stride, 0, -height % self.stride)))[-1]
        if features.shape[1] != self.channels:  # (N, h, w, D), as timm's Swin models have it
            features = features.permute(0, 3, 1, 2)
        return features

    def read_weights(self, path: str | Path) -> dict[str, Tensor]:
        """The tensors of a timm weight file; of "timm" those that timm itself downloads for this model."""
        if str(path) == "timm":
            tensors: Mapping[str, Tensor] = _create(self.name, self.stride, pretrained=True).state_dict()
        else:
            tensors = super().read_weights(path)
        # timm writes stages.0 in files, and stages_0 where features are asked for
        own = {name.removeprefix("body.").replace(".", "_"): name for name in self.state_dict()}
        return {own.get(name.removeprefix("body.").replace(".", "_"), name): value for name, value in tensors.items()}


def _create(name: str, output_stride: int, *, pretrained: bool) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name.split('.')[0][:6]}*")[:3]
        hint = f" (for instance {', '.join(near)})" if near else ""
        raise ValueError(f"backbone: timm {timm.__version__} has no model {name!r}{hint}")
    # the default stride is not passed on: some models have no such argument, yet features of stride 32
    stride = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        return timm.create_model(name, pretrained=pretrained, features_only=True, **stride)
    except (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"backbone: timm:{name} has no features at output stride {output_stride} ({reason})"
        ) from error


def _timm() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise ValueError(
            f"backbone: timm:NAME needs the extra: python -m pip install 'segmodel[timm]' ({error})"
        ) from error
