"""What changes with the step: learning rate, temperature, weights of the losses."""

from ortho_edge.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """One-cycle rate: linear from the initial to the peak, late and final rates."""
    rates = (
        config.initial_learning_rate,
        config.peak_learning_rate,
        config.late_learning_rate,
        config.final_learning_rate,
    )
    done = step / config.num_steps
    start = 0.0
    for index, fraction in enumerate(config.cycle_fractions):
        if done < start + fraction:
            share = (done - start) / fraction
            return rates[index] + share * (rates[index + 1] - rates[index])
        start += fraction
    return rates[-1]


def temperature(config: TrainingConfig, step: int) -> float:
    """Of the softmaxes, falling geometrically over stage 1."""
    done = min(step / max(config.stage1_steps - 1, 1), 1.0)
    ratio = config.final_temperature / config.initial_temperature
    return config.initial_temperature * ratio**done


def penalty_weight(config: TrainingConfig, step: int) -> float:
    """Of the orthogonality penalty, rising linearly to 1 over stage 1."""
    return min(step / max(config.stage1_steps - 1, 1), 1.0)


def alignment_weight(config: TrainingConfig, step: int) -> float:
    """Of the aligned frames' cross-entropy, falling linearly from 1 to 0."""
    if config.alignment_fraction <= 0:
        return 0.0
    return max(0.0, 1 - step / (config.alignment_fraction * config.num_steps))
