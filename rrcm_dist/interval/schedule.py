"""What changes with the step in training by bounds: ε and the learning rate. Pure functions of the step."""

from collections.abc import Sequence

MIDDLE = 0.25
"""Share of the ramp that is quartic; the rest is linear."""
POWER = 4


def epsilon_at(step: int, target: float, start: int, length: int) -> float:
    """ε of a step: 0 up to `start`, `target` from `start + length` on, in between a ramp (Gowal et al. 2018).

    The ramp is α(step - start)⁴ for its first quarter and then linear, with value and slope joined where they meet.
    """
    done = step - start
    if done < 0 or (done == 0 and length > 0):
        return 0.0
    if done >= length:
        return target
    quartic = int(length * MIDDLE)
    linear = length - quartic
    if quartic == 0:
        return target * done / length
    # α makes both parts end where the other begins: α quartic⁴ + 4 α quartic³ · linear = target.
    joined = target / (1 + POWER * linear / quartic)
    if done < quartic:
        return joined * (done / quartic) ** POWER
    return joined + (target - joined) * (done - quartic) / linear


def stepped_rate(step: int, peak: float, milestones: Sequence[int], decay: float) -> float:
    """Learning rate of a step: `peak` times `decay` for each of the milestones (steps) that it has reached."""
    return peak * decay ** sum(step >= milestone for milestone in milestones)
