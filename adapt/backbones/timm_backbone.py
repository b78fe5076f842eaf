"""Any classification network of timm as a feature backbone."""

from __future__ import annotations

from typing import Any

import timm
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import Tensor, nn

from adapt.backbones.embedder import FeatureBackbone
from resight.errors import InvalidArgument, Unavailable

__all__ = ["TimmBackbone"]


class TimmBackbone(FeatureBackbone):
    """A timm network without its classifier; its parameters keep timm's names under ``model.``.

    Args:
        model_name: Name in timm's registry, with a weights tag if wanted.
        pooling: ``avg`` or ``gem`` when the caller pools maps, ``native`` for timm's own pooling
            (the only one that tokens have); ``None`` takes ``avg`` for ResNet and EfficientNet
            kinds and ``native`` for the rest.
        pretrained: Whether to fetch timm's weights from its hub.
        last_stride: 1 keeps the resolution of the stage before in the last stage, without
            dilation; 2 leaves the network as it is; ``None`` is 1 for ResNet kinds, else 2.
        image_size: Height and width in pixels, for networks with a fixed grid of patches.

    Attributes:
        dim: Dimension of the feature.
        pooling: The pooling decided on.
        mean: Per-channel mean of the inputs, on the 0..1 scale.
        std: Per-channel standard deviation, likewise.

    Raises:
        InvalidArgument: Unknown model, or an option that it does not have.
        Unavailable: The hub could not be reached.
    """

    def __init__(
        self,
        model_name: str,
        *,
        pooling: str | None = None,
        pretrained: bool = False,
        last_stride: int | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.model = _create(model_name, pretrained=pretrained, image_size=image_size)
        maps = isinstance(self.model, ResNet | EfficientNet)
        self.pooling = pooling or ("avg" if maps else "native")
        if self.pooling != "native" and hasattr(self.model, "patch_embed"):
            raise InvalidArgument(
                f"timm:{model_name} gives tokens, not maps: use pooling=native", field="pooling"
            )
        self.last_stride = last_stride or (1 if isinstance(self.model, ResNet) else 2)
        if self.last_stride == 1:
            _remove_last_stride(self.model, model_name)
        native = self.pooling == "native"
        self.dim: int = self.model.head_hidden_size if native else self.model.num_features
        configuration: dict[str, Any] = self.model.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(configuration["mean"])
        self.std: tuple[float, ...] = tuple(configuration["std"])

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the modules that a full checkpoint has and this network has not."""
        names = self.model.pretrained_cfg.get("classifier") or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def features(self, images: Tensor) -> Tensor:
        """Return the last maps (B, C, H', W'); with ``native`` pooling, pooled ones (B, C)."""
        features: Tensor = self.model.forward_features(images)
        if self.pooling == "native":
            features = self.model.forward_head(features, pre_logits=True)
        return features

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the pooled features as they are."""
        return pooled


def _create(
    model_name: str, *, pretrained: bool, image_size: tuple[int, int] | None
) -> Any:  # timm's models share no type
    options: dict[str, Any] = {"img_size": image_size} if image_size else {}
    if model_name.split(".")[0] not in timm.list_models():
        raise InvalidArgument(
            f"backbone timm:{model_name} is not in timm {timm.__version__}: "
            "`timm.list_models()` names what is",
            field="backbone",
        )
    try:
        return timm.create_model(model_name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(model_name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise Unavailable(
            f"timm's weights of {model_name} cannot be fetched ({error}): go online, or give a "
            "file with --init",
            field="init",
        ) from error


def _remove_last_stride(model: nn.Module, model_name: str) -> None:
    """Set every stride of the last strided stage to 1."""
    if isinstance(model, ResNet):
        stages: list[nn.Module] = [model.get_submodule("layer4")]
    elif isinstance(model, EfficientNet):
        stages = list(model.get_submodule("blocks").children())
    else:
        raise InvalidArgument(
            f"timm:{model_name} has no last stage whose stride can be removed: "
            "leave last_stride out",
            field="last_stride",
        )
    for stage in reversed(stages):
        strided = [m for m in stage.modules() if getattr(m, "stride", None) in (2, (2, 2))]
        if strided:
            for module in strided:
                _unstride(module)
            return


def _unstride(module: nn.Module) -> None:
    if isinstance(module, nn.AvgPool2d):
        # The shortcut of the "d" ResNets: with nothing to halve there is nothing to average.
        module.kernel_size = 1
        module.stride = 1
    else:
        module.stride = (1, 1)  # type: ignore[assignment]
