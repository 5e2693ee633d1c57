"""The voices that speak synthesised digits: synthesiser voices, accents and vocal tracts.

Left out are whispering, croaking, robotic and echoing variants of espeak-ng, and those that turn
out to sound exactly like its plain voice.
"""

from dataclasses import dataclass
from itertools import cycle
from typing import Literal

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Engine = Literal["espeak-ng", "flite", "festival"]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A speaker of the synthesised corpus.

    Attributes:
        name: unique; letters, digits and hyphens, so that it can stand in a file name.
        engine: the program that speaks.
        model: espeak-ng: ``language+variant``; flite: voice name; festival: the Scheme
            function that selects it.
        base_pitch: the voice's own mean pitch, in Hz (espeak-ng: its scale from 0 to 99).
        tract: vocal tract scale: formants are multiplied by it. Above 1 is a shorter tract.
        phonemes: espeak-ng mnemonics of the ten digits, for a speaker whose first language is
            the model's; empty where the model speaks English.
    """

    name: str
    engine: Engine
    model: str
    base_pitch: float
    tract: float = 1.0
    phonemes: tuple[str, ...] = ()


_ENGLISH_ACCENTS = (
    "en-us",
    "en-gb",
    "en-us-nyc",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-029",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)

_ESPEAK_VARIANTS = """
    m1 f1 m2 f2 m3 f3 m4 f4 m5 f5 m6 m7 m8 adam Alex Alicia Andrea Andy Annie antonio aunty
    belinda benjamin boris caleb david Denis Diogo ed edward gene grandma grandpa Henrique
    Hugo iven Jacky john kaukovalta Lee linda marcelo Mario max Michael michel Nguyen
    norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac anika
"""

# English digits with the sounds of another language, as its speakers say them.
_FOREIGN_PHONEMES = {
    "de": "z'i:Ro: v'an t'u: sr'i: f'o:r f'aIf z'Iks z'Ev@n 'Ejt n'aIn",
    "fr-fr": "zir'o w'an t'u sr'i f'Or fa'iv s'iks sev'En e'it na'in",
    "es": "s'i**o w'an t'u t**'i f'or f'aIb s'iks s'eBen 'eIt n'aIn",
    "it": "s'iRo w'an t'u tR'i f'oR f'aIv s'iks s'even 'Eit n'aIn",
    "pl": "z'iRO w'an t'u tR'i f'OR f'ajf s'yks s'EvEn 'Ejt n'ajn",
    "cs": "z'i:Ro v'an t'u: tR'i: f'o:R f'ajv s'iks s'even 'eIt n'ajn",
    "nl": "z'iro: v#'An t'u sr'i f'o:r f'a:jf s'Iks s'Ev@n 'e:t n'a:jn",
    "el": "z'iro Qu'an t'u Tr'i f'or f'aIv s'iks s'even 'eit n'aIn",
    "hi": "z'i:*o: v'Vn t.'u: t#r'i f'o:r f'a:Iv s'Iks s'e:v@n 'e:t. n'a:In",
    "sv": "s'i:Ru: v'an t'u: tR'i: f'o:R f'ajv s'Iks s'EvE-n 'Ejt n'ajn",
    "tr": "zi*'O v'an t'U tR'I f'OR f'ajv s'Iks sev'@n 'Ejt n'ajn",
}
_FOREIGN_VARIANTS = ("m2", "f3")

_FLITE_PITCH_HZ = {"awb": 130.0, "rms": 95.0, "slt": 175.0, "kal16": 105.0}
_FESTIVAL_PITCH_HZ = {"voice_ked_diphone": 110.0, "voice_cmu_us_slt_arctic_hts": 175.0}
_TRACTS = (0.86, 0.92, 0.96, 1.0, 1.04, 1.1, 1.17)


def _english_voices() -> list[Voice]:
    return [
        Voice(
            name=f"espeak-{accent}-{variant.lower()}",
            engine="espeak-ng",
            model=f"{accent}+{variant}",
            base_pitch=50.0,
        )
        for variant, accent in zip(_ESPEAK_VARIANTS.split(), cycle(_ENGLISH_ACCENTS), strict=False)
    ]


def _foreign_voices() -> list[Voice]:
    return [
        Voice(
            name=f"espeak-{language}-{variant}",
            engine="espeak-ng",
            model=f"{language}+{variant}",
            base_pitch=50.0,
            phonemes=tuple(phonemes.split()),
        )
        for language, phonemes in _FOREIGN_PHONEMES.items()
        for variant in _FOREIGN_VARIANTS
    ]


def _tract_voices(engine: Engine, pitches_hz: dict[str, float]) -> list[Voice]:
    return [
        Voice(
            name=f"{engine}-{model.removeprefix('voice_').replace('_', '-')}-{tract * 100:.0f}",
            engine=engine,
            model=model,
            base_pitch=pitch,
            tract=tract,
        )
        for model, pitch in pitches_hz.items()
        for tract in _TRACTS
    ]


VOICES: tuple[Voice, ...] = (
    *_english_voices(),
    *_foreign_voices(),
    *_tract_voices("flite", _FLITE_PITCH_HZ),
    *_tract_voices("festival", _FESTIVAL_PITCH_HZ),
)
