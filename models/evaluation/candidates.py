"""What competes in an evaluation: every bundle in every variant, and bundles that were trained without a part."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engine.bundle import open_bundle
from engine.bundle_build import bundle_path
from engine.errors import UnknownAttribute
from engine.recurrence import VARIANTS, Switches
from engine.runtimes.select import open_networks, select
from models.evaluation.rollout import LoadedBundle
from models.evaluation.settings import RETRAINED, EvaluationSettings

SWITCHED_OFF, RETRAINED_WITHOUT = "switched off", "retrained without"
"""The two kinds of ablation: one training whose parts are removed at run time, and a training for each part."""


@dataclass(frozen=True)
class Candidate:
    """A bundle as it is run. variant: its name in the report; ablation: which kind; label: short, unique, for plots."""

    loaded: LoadedBundle
    variant: str
    switches: Switches
    ablation: str
    label: str


@contextmanager
def open_candidates(settings: EvaluationSettings) -> Iterator[list[Candidate]]:
    """All candidates, the first bundle's first; their networks are open inside the `with`.

    Raises BundleError, RuntimeUnavailable, and UnknownAttribute when a bundle lacks an attribute of the edit.
    """
    with ExitStack() as opened:
        bundles = {}
        for name in dict.fromkeys((*settings.bundles, *settings.retrained.values())):
            bundles[name] = _open(name, settings)
            opened.callback(bundles[name].networks.close)
            _check_attributes(bundles[name], settings)
        of_bundle = "{} ({})" if len(settings.bundles) > 1 else "{}"
        candidates = [
            Candidate(bundles[name], variant, VARIANTS[variant], SWITCHED_OFF, of_bundle.format(variant, name))
            for name in settings.bundles
            for variant in settings.variants
        ]
        candidates += [
            Candidate(bundles[name], part, VARIANTS[RETRAINED[part]], RETRAINED_WITHOUT, f"{part}, retrained")
            for part, name in settings.retrained.items()
        ]
        yield candidates


def _open(name: str, settings: EvaluationSettings) -> LoadedBundle:
    bundle = open_bundle(bundle_path(name))
    runtime = select(settings.runtime, "cpu", settings.precision)
    return LoadedBundle(name, bundle, open_networks(bundle, runtime, "cpu", settings.precision))


def _check_attributes(loaded: LoadedBundle, settings: EvaluationSettings) -> None:
    known = loaded.bundle.directions
    for name in settings.values:
        if name not in known:
            raise UnknownAttribute(f"bundle {loaded.label} has no attribute {name!r}; it has {', '.join(known)}")
