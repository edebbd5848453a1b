"""Named presets: which networks, of which size, belong together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from engine.errors import UsageError
from models import mobile_stylegan, recurrent, visibility
from models.bisenet import BiSeNet, BiSeNetConfig
from models.e4e import E4eConfig, E4eEncoder
from models.encoder import BaseEncoder, BaseEncoderConfig
from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig
from models.parsing import FaceParser, ParserConfig
from models.recurrent import RecurrentConfig, RecurrentEncoder
from models.stylegan2 import StyleGan2, StyleGan2Config
from models.visibility import VisibleNet, VisibleNetConfig

NETWORKS = ("generator", "encoder", "recurrent", "parser", "visible")
"""What a preset holds, by field name."""


@dataclass(frozen=True)
class Preset:
    """The configuration of each network; all work on crops of 256 px."""

    name: str
    generator: StyleGan2Config | MobileStyleGanConfig
    encoder: E4eConfig | BaseEncoderConfig
    recurrent: RecurrentConfig
    parser: BiSeNetConfig | ParserConfig
    visible: VisibleNetConfig

    def __post_init__(self) -> None:
        assert self.generator.latent_rows == self.encoder.latent_rows, "encoder and generator disagree on W+"
        assert self.generator.former_rows == self.recurrent.former_rows, "the encoders disagree on the former rows"

    def build(self, network: str) -> nn.Module:
        """One of NETWORKS with fresh weights, drawn from torch's generator."""
        config = getattr(self, network)
        return _CLASSES[type(config)](config)


_CLASSES: Mapping[type, Callable[[Any], nn.Module]] = MappingProxyType(
    {
        StyleGan2Config: StyleGan2,
        MobileStyleGanConfig: MobileStyleGan,
        E4eConfig: E4eEncoder,
        BaseEncoderConfig: BaseEncoder,
        RecurrentConfig: RecurrentEncoder,
        BiSeNetConfig: BiSeNet,
        ParserConfig: FaceParser,
        VisibleNetConfig: VisibleNet,
    }
)

PAPER_256 = Preset(
    name="paper-256",
    generator=StyleGan2Config(),
    encoder=E4eConfig(),
    recurrent=recurrent.PAPER,
    parser=BiSeNetConfig(),
    visible=visibility.PAPER,
)

LIGHT_256 = Preset(
    name="light-256",
    generator=mobile_stylegan.LIGHT_256,
    encoder=BaseEncoderConfig(),
    recurrent=recurrent.LIGHT,
    parser=ParserConfig(),
    visible=visibility.LIGHT,
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in (PAPER_256, LIGHT_256)})


def preset(name: str) -> Preset:
    """The preset of that name; UsageError with the names there are."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
