"""A tiny network lowered for real, where the environment of Arm's compilers is set up."""

from pathlib import Path

import pytest
import torch

from ortho_edge.compaction import compact
from ortho_export.ethos_u.compiled import ALLOWED_OUTSIDE, check_delegation, compare
from ortho_export.ethos_u.environment import MissingEnvironmentError, lower_all, python
from ortho_export.ethos_u.protocol import Answer, Job, Part, Request
from ortho_export.ethos_u.windows import speech_windows
from ortho_export.executorch import read_facts
from ortho_export.facts import Facts
from tests.export.tiny import LARGE, bursts, tiny_checkpoint
from tests.tolerances import tolerance

try:
    python()
    missing = ""
except MissingEnvironmentError as error:
    missing = str(error)
pytestmark = [
    pytest.mark.export,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=missing),
]

FRAMES = 100
CHECKPOINT = tiny_checkpoint(spread=5)
FACTS = Facts(
    subnet=LARGE, tokens=CHECKPOINT.tokens, checkpoint_digest="0" * 64, min_frames=FRAMES,
    max_frames=FRAMES,
)  # fmt: skip
WINDOWS = speech_windows(bursts(2.35), None, CHECKPOINT.tokens, FRAMES)
MODULES = {"ffn1": 2, "conv": 1, "mhsa": 1}
"""How often the network has such a module: both feed-forward modules are alike."""
FIXED: tuple[Part, ...] = ("front_end", "last_norm", "ctc_head")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange")


@pytest.fixture(scope="module")
def answer(folder: Path) -> Answer:
    """The whole network and each of its parts alone."""
    supernet = CHECKPOINT.supernet
    space, trained = supernet.space, CHECKPOINT.subnet(LARGE)
    jobs = [Job(name="whole", kept=trained.subnet.kept, head=trained.head, frames=FRAMES)]
    jobs += [Job(name=part, kept=(), frames=FRAMES, part=part) for part in FIXED]
    for module in MODULES:
        kept = tuple(range(len(space))[space.module_slice(0, module)])  # pyright: ignore[reportArgumentType]
        jobs.append(Job(name=module, kept=kept, frames=FRAMES, part="module"))
    request = Request(
        accelerator="ethos-u85-256",
        architecture=supernet.architecture,
        num_heads=len(supernet.ctc_heads),
        jobs=jobs,
        constants=FACTS.constants(),
        supernet=supernet.state_dict(),
        calibration=WINDOWS.calibration,
        clips=WINDOWS.checked,
    )
    done: list[str] = []
    answer = lower_all(request, folder, done.append)
    assert done == [job.name for job in jobs]
    return answer


def test_the_accelerator_takes_the_network_as_one_piece(answer: Answer, folder: Path) -> None:
    whole = answer.lowered["whole"]
    check_delegation(whole)
    assert set(whole.outside) == ALLOWED_OUTSIDE
    assert read_facts(folder / whole.file) == FACTS


def test_cycles_of_a_network_are_the_sum_of_its_modules(answer: Answer) -> None:
    cycles = {name: one.cost.cycles for name, one in answer.lowered.items()}
    total = sum(cycles[part] for part in FIXED)
    total += sum(times * cycles[module] for module, times in MODULES.items())
    assert total == pytest.approx(cycles["whole"], rel=tolerance("vela_cycles")["rtol"])


def test_the_graph_that_vela_compiles_says_what_the_encoder_says(answer: Answer) -> None:
    one = CHECKPOINT.subnet(LARGE)
    eager = compact(CHECKPOINT.supernet, one.subnet, one.head)
    with torch.no_grad():
        expected = {
            name: eager(clip, torch.tensor([FRAMES]))[0][0].numpy()
            for name, clip in WINDOWS.checked.items()
        }
    agreement = compare("whole", answer, expected, CHECKPOINT.tokens)
    assert agreement.tosa_db == pytest.approx(agreement.graph_db, abs=3)
