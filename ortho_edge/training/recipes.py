"""Recipes: named, typed descriptions of a training. Change one with `dataclasses.replace`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from ortho_edge.cli import UserError
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.corpora import (
    Corpus,
    DataOptions,
    digits_corpus,
    librispeech_corpus,
    speechocean762_corpus,
    tedlium2_corpus,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training from corpus to checkpoint.

    Attributes:
        name: What the command line calls it.
        architecture: The supernet's shape for a number of symbols.
        corpus: Loads the data.
        training: Every number of the run.
        augmentation: What is done to training audio.
        cache_audio: Keep decoded audio in memory; for corpora of a few hours.
    """

    name: str
    architecture: Callable[[int], Architecture]
    corpus: Callable[[DataOptions], Corpus]
    training: TrainingConfig
    augmentation: Augmentation = field(default_factory=Augmentation)
    cache_audio: bool = False


def with_elastic_front_end(recipe: Recipe, chunks: int) -> Recipe:
    """The recipe with that many chunks of the front end, all but the first of them components.

    Raises:
        ValueError: The front end does not divide so.
    """

    def architecture(vocab_size: int) -> Architecture:
        return replace(recipe.architecture(vocab_size), front_end_chunks=chunks)

    architecture(2)  # refuses now what would be refused once the corpus is read
    return replace(recipe, architecture=architecture)


def digits() -> Recipe:
    """The small supernet that ships: spoken digit strings, hours on two CPU cores."""
    return Recipe(
        name="digits",
        architecture=lambda vocab_size: Architecture(
            vocab_size=vocab_size, dim=128, num_blocks=6, num_heads=4, head_dim=32, ffn_dim=512,
            kernel_size=15, front_end="strided", front_end_channels=(16, 32),
            feature_normalization="utterance",
        ),
        corpus=partial(digits_corpus, sounds=160),
        augmentation=Augmentation(silence_probability=0.5),
        cache_audio=True,
        training=TrainingConfig(
            num_steps=4000,
            targets=(0.7, 0.45, 0.28, 0.15),
            batch_seconds=48.0,
            num_buckets=8,
            initial_learning_rate=5e-5,
            peak_learning_rate=1.3e-3,
            late_learning_rate=2e-4,
            final_learning_rate=1e-6,
            cycle_fractions=(0.1, 0.7, 0.2),
            score_learning_rate_factor=5.0,
            loss_weighting="constant",
            distill=0.5,
            stage1_fraction=0.4,
            alignment_fraction=0.3,
            initial_temperature=1.0,
            final_temperature=0.05,
            weight_decay=1e-2,
            adam_epsilon=1e-9,
            # Augmentation repeats no example, and drawing masks costs a CPU a fifth of a step.
            ffn_dropout=0.0,
            attention_dropout=0.0,
            residual_dropout=0.0,
            evaluate_every=500,
            save_every=250,
        ),
    )  # fmt: skip


def _small(vocab_size: int) -> Architecture:
    """0.9 M parameters: minutes on a core."""
    return Architecture(
        vocab_size=vocab_size, dim=96, num_blocks=4, num_heads=4, head_dim=24, ffn_dim=384,
        kernel_size=15, front_end="strided", front_end_channels=(8, 16),
        feature_normalization="utterance",
    )  # fmt: skip


def digits_small() -> Recipe:
    """A smaller supernet on the recorded digits: every method of the comparison in minutes."""
    base = digits()
    return replace(
        base,
        name="digits_small",
        architecture=_small,
        corpus=partial(digits_corpus, digit_copies=1, other_sentences=0),
        # So few updates need examples that are alike.
        augmentation=replace(
            base.augmentation, silence_probability=0.0, speed=(0.9, 1.1),
            reverberation_probability=0.0,
            band_limit_probability=0.0, noise_probability=0.5, tempo_probability=0.0,
            vocal_tract_probability=0.3, channel_probability=0.3, mask_probability=0.3,
        ),
        training=replace(
            base.training,
            num_steps=800,
            targets=(0.75, 0.55, 0.38, 0.22),
            distill=0.0,  # methods are compared with it and without
            batch_seconds=24.0,
            peak_learning_rate=2e-3,
            alignment_fraction=0.6,
            evaluate_every=400,
        ),
    )  # fmt: skip


def speechocean762() -> Recipe:
    """Open-vocabulary sentences of accented speakers, four hours of audio."""
    return Recipe(
        name="speechocean762",
        architecture=lambda vocab_size: Architecture(
            vocab_size=vocab_size, dim=192, num_blocks=8, num_heads=6, head_dim=32, ffn_dim=768,
            kernel_size=15, front_end="strided", front_end_channels=(16, 32),
            feature_normalization="utterance",
        ),
        corpus=speechocean762_corpus,
        cache_audio=True,
        training=TrainingConfig(
            num_steps=20000,
            targets=(0.7, 0.45, 0.25),
            batch_seconds=120.0,
            initial_learning_rate=5e-5,
            peak_learning_rate=1e-3,
            late_learning_rate=1e-4,
            final_learning_rate=1e-6,
            cycle_fractions=(0.2, 0.7, 0.1),
            score_learning_rate_factor=10.0,
            loss_weighting="constant",
            initial_temperature=1.0,
            final_temperature=0.05,
            weight_decay=1e-2,
            adam_epsilon=1e-9,
        ),
    )  # fmt: skip


def speechocean762_small() -> Recipe:
    """A smaller supernet on the same sentences: one training of all sizes in half an hour."""
    base = speechocean762()
    return replace(
        base,
        name="speechocean762_small",
        architecture=_small,
        corpus=partial(speechocean762_corpus, short_first=0.05, flat_start=True),
        # A dozen epochs underfit: strong changes would only slow learning down.
        augmentation=replace(
            Augmentation.none(), speed_probability=0.5, speed=(0.9, 1.1), gain_db=(-10.0, 6.0),
            vocal_tract_probability=0.3, channel_probability=0.3, mask_probability=0.3,
        ),
        training=replace(
            base.training,
            num_steps=7000,
            batch_seconds=20.0,
            num_buckets=8,
            peak_learning_rate=2e-3,
            late_learning_rate=2e-4,
            cycle_fractions=(0.06, 0.74, 0.2),
            # At 5 the scores were decided while every output was still blank.
            score_learning_rate_factor=1.0,
            stage1_fraction=0.4,
            alignment_fraction=0.07,
            ffn_dropout=0.0,
            attention_dropout=0.0,
            residual_dropout=0.0,
            evaluate_every=1000,
            save_every=250,
        ),
    )  # fmt: skip


# The paper's audio is 60-7600 Hz, ours 20-7600 Hz as in sherpa-onnx. Labels are what the corpus was
# prepared with: phonemes as in the paper, word pieces or characters. docs/method.md lists what else
# differs from the released configurations.
PAPER_AUGMENTATION = Augmentation(
    speed_probability=0.67, speed=(0.9, 1.1), reverberation_probability=0.0,
    band_limit_probability=0.0, noise_probability=0.0, gain_db=(0.0, 0.0), tempo_probability=0.0,
    vocal_tract_probability=0.0, channel_probability=0.0, mask_probability=1.0,
    time_masks_at_least=2, time_mask_every=25, time_mask_frames=20,
    frequency_masks=(2, 5), frequency_mask_bins=8,
)  # fmt: skip


def librispeech_512() -> Recipe:
    """The paper's five-size LibriSpeech supernet (width 512, about 75 M parameters)."""
    return Recipe(
        name="librispeech_512",
        architecture=lambda vocab_size: Architecture(
            vocab_size=vocab_size, dim=512, num_blocks=12, num_heads=8, ffn_dim=2048
        ),
        corpus=librispeech_corpus,
        training=TrainingConfig(
            num_steps=732_000,
            targets=(0.793, 0.588, 0.451, 0.314),
            batch_seconds=150.0,
            peak_learning_rate=4e-4,
            initial_temperature=2.0,
            final_temperature=0.06,
            evaluate_every=24_400,
            save_every=2000,
        ),
        augmentation=PAPER_AUGMENTATION,
    )


def tedlium2_384() -> Recipe:
    """The paper's five-size TED-LIUM-v2 supernet (width 384, 42 M parameters)."""
    return Recipe(
        name="tedlium2_384",
        architecture=lambda vocab_size: Architecture(
            vocab_size=vocab_size, dim=384, num_blocks=12, num_heads=6, ffn_dim=1536
        ),
        corpus=tedlium2_corpus,
        training=TrainingConfig(
            num_steps=375_000,
            targets=(0.759, 0.578, 0.457, 0.337),
            batch_seconds=140.0,
            peak_learning_rate=4e-4,
            initial_temperature=1.0,
            final_temperature=0.165,
            evaluate_every=7500,
            save_every=2000,
        ),
        augmentation=PAPER_AUGMENTATION,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "digits_small": digits_small,
    "speechocean762": speechocean762,
    "speechocean762_small": speechocean762_small,
    "librispeech_512": librispeech_512,
    "tedlium2_384": tedlium2_384,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UserError: There is none.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]()
