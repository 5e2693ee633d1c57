"""The targets of a run: shares of a cost, or what devices allow."""

from collections.abc import Sequence

from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.costs import CostModel, criterion_costs
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.limits import device_costs, device_limit
from ortho_edge.ortho_softmax import Target
from ortho_edge.training.config import TrainingConfig

UNITS = {"latency": "ms", "memory": "MB"}


def resolve_targets(config: TrainingConfig, space: ComponentSpace) -> tuple[Target, ...]:
    """The targets with their cost models, the largest share of the full network first.

    Raises:
        UserError: A criterion, device or limit is unknown; or a limit is so high that it is none,
            or so low that nothing holds it.
    """
    targets = [
        _device_target(one, space) if isinstance(one, str) else _share(config, one, space)
        for one in config.targets
    ]
    for one in targets:
        if one.share >= 1:
            raise UserError(
                f"target {one.name} is no limit: the full network takes {one.costs.total:.4g}"
            )
        if one.limit < one.costs.smallest:
            raise UserError(
                f"target {one.name} is below {one.costs.smallest:.4g}, "
                "what front end and output cost alone"
            )
    return tuple(sorted(targets, key=lambda one: -one.share))


def device_settings(targets: Sequence[Target]) -> dict[str, dict[str, float]]:
    """What a resumed run must share: a profile that was measured anew means other targets."""
    shares = {one.name: one.share for one in targets if one.device is not None}
    return {"device targets": shares} if shares else {}


def _share(config: TrainingConfig, share: float, space: ComponentSpace) -> Target:
    costs, device = _criterion(config.criterion, space)
    return Target(
        name=f"s{round(100 * share):03d}", costs=costs, limit=share * costs.total, device=device
    )


def _device_target(text: str, space: ComponentSpace) -> Target:
    limit = device_limit(text)
    name = f"{limit.profile.name}-{limit.value:g}{limit.unit}"
    return Target(name=name, costs=limit.costs(space), limit=limit.value, device=limit.profile.name)


def _criterion(criterion: str, space: ComponentSpace) -> tuple[CostModel, str | None]:
    if criterion in ("flops", "params"):
        return criterion_costs(space, criterion), None
    kind, _, device = criterion.partition(":")
    if kind not in UNITS or not device:
        raise UserError(
            f"unknown criterion {criterion!r}; known: flops, params, latency:DEVICE, memory:DEVICE"
        )
    profile = load_profile(device)
    return device_costs(profile, space, UNITS[kind]), profile.name
