import re
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch

from ortho_edge.checkpoint import shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.decoding import greedy_text
from ortho_edge.precision import Precision
from ortho_edge.profile import Arguments, main
from ortho_export.arm.machines import Emulator, MachineError, emulator
from ortho_export.arm.programs import Runner, compare, install
from ortho_export.arm.toolchain import Bundle
from ortho_export.artefact import load_artefact
from ortho_export.fidelity import FLOORS_DB
from ortho_export.parity import ParityError
from ortho_export.ties import could_say
from tests.arm.conftest import Programs
from tests.arm.scope import CORES, QUANTISED, SIZES
from tests.tolerances import TOLERANCES, tolerance

pytestmark = [pytest.mark.arm, pytest.mark.export, pytest.mark.slow]

WORDS = (shipped_checkpoint() / "sample.txt").read_text("utf-8").strip()
SMALLEST = SIZES[-1]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_size_says_on_an_arm_core_what_it_says_here(
    size: str, core: str, bundle: Bundle, programs: Programs, speech: torch.Tensor
) -> None:
    program = programs(size)
    here = load_artefact(program)
    with emulator(core) as machine:
        report = install(machine, bundle).run(program, [speech[None].numpy()])
    found = report.runs[0].output[0]
    torch.testing.assert_close(
        torch.from_numpy(found.copy()),
        torch.from_numpy(here.log_probs(speech)),
        **tolerance("arm_float32"),
    )
    assert could_say(found, WORDS, here.tokens, TOLERANCES["arm_float32"].atol)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("precision", QUANTISED)
@pytest.mark.parametrize("size", SIZES)
def test_a_quantised_size_hears_on_an_arm_core_what_it_hears_here(
    size: str,
    precision: Precision,
    core: str,
    bundle: Bundle,
    programs: Programs,
    speech: torch.Tensor,
) -> None:
    program = programs(size, precision)
    here = load_artefact(program)
    with emulator(core) as machine:
        agreement = compare(install(machine, bundle), program, speech)
    assert agreement.snr_db >= FLOORS_DB[precision]
    assert agreement.here == greedy_text(here.log_probs(speech), here.tokens)
    # Of six words one may be at a tie, there or here: processors round to either side.
    for text in (agreement.text, agreement.here):
        assert jiwer.process_words(WORDS, text).hits >= len(WORDS.split()) - 1


@pytest.fixture(scope="module")
def runner(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("machine")
    return install(Emulator(cpu=CORES[0], folder=folder), bundle)


def test_inputs_of_one_process_do_not_touch_each_other(
    runner: Runner, programs: Programs, speech: torch.Tensor
) -> None:
    program = programs(SMALLEST)
    parts = [speech[:41], speech, speech[:9]]
    report = runner.run(program, [part[None].numpy() for part in parts], runs=2)
    here = load_artefact(program)
    assert [len(run.milliseconds) for run in report.runs] == [2, 2, 2]
    assert report.planned_bytes > 0
    assert report.peak_mb > 1
    for part, run in zip(parts, report.runs, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(run.output[0].copy()),
            torch.from_numpy(here.log_probs(part)),
            **tolerance("arm_float32"),
        )


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("long", "holds 240080 numbers; the program takes 1 to 3000 times 80"),
        ("ragged", "holds 81 numbers; the program takes 1 to 3000 times 80"),
        ("empty", "holds 0 numbers"),
        ("no program", "reading the program .* failed with ExecuTorch error 0x"),
        ("no such core", "cannot run on core 1023"),
        ("no runs", "RUNS must be a whole number of at least 1, not 0"),
    ],
)
def test_the_runner_says_in_one_line_what_is_wrong(
    what: str, message: str, runner: Runner, programs: Programs, tmp_path: Path
) -> None:
    program, shape = programs(SMALLEST), (1, 20, 80)
    if what == "no program":
        program = tmp_path / "broken.pte"
        program.write_bytes(programs(SMALLEST).read_bytes()[:1000])
    shape = {"long": (1, 3001, 80), "ragged": (81,), "empty": (0,)}.get(what, shape)
    with pytest.raises(MachineError, match=f"status 1: runner: .*{message}"):
        runner.run(
            program,
            [np.zeros(shape, np.float32)],
            runs=0 if what == "no runs" else 1,
            core=1023 if what == "no such core" else -1,
        )


def test_the_runner_names_its_usage_and_unreadable_files(runner: Runner) -> None:
    with pytest.raises(MachineError, match="usage: runner PROGRAM THREADS"):
        runner.machine.run([*runner.command, "model.pte"])
    with pytest.raises(MachineError, match=r"reading the program /no/such\.pte failed"):
        runner.machine.run([*runner.command, "/no/such.pte", "1", "-1", "1", "in", "out"])


def test_disagreement_is_an_error_that_names_the_machine(
    runner: Runner, programs: Programs, speech: torch.Tensor
) -> None:
    with pytest.raises(ParityError, match=r"on emulated cortex-a\d+: a log-probability differs"):
        compare(runner, programs(SMALLEST), speech, limit=1e-9)


def test_the_command_compares_every_program_of_a_folder(
    bundle: Bundle, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    program = programs(SMALLEST)
    main(Arguments(on=CORES[0], check=program))
    captured = capsys.readouterr()
    assert f"{program}: on emulated {CORES[0]} as here" in captured.out
    assert re.search(r"; \d+\.\d\d M instructions for 4 s of audio; ", captured.out)
    assert captured.out.strip().endswith(f"hears: {WORDS}")


def test_an_unknown_core_is_refused_with_the_known_ones(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "model.pte").touch()
    with pytest.raises(UserError, match=r"no core 'cortex-x9'; known: .*cortex-a76"):
        main(Arguments(on="cortex-x9", check=tmp_path))
