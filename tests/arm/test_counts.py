import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ortho_edge.devices.latency import predict_latency
from ortho_edge.devices.profile import AssumedSpeed
from ortho_export.arm.counts import counter, load_plugin, noise
from ortho_export.arm.machines import Emulator, emulator
from ortho_export.arm.toolchain import Bundle, tool
from tests.arm.conftest import Programs
from tests.arm.scope import CORES, SIZES
from tests.devices.recorded import recorded_profile
from tests.tolerances import tolerance

pytestmark = pytest.mark.arm

LOOPS = 123_457
ASSEMBLY = f"""
.global _start
_start:
    mov x8, #173 // getppid
    svc #0
    ldr x0, ={LOOPS}
again:
    subs x0, x0, #1
    b.ne again
    mov x8, #173
    svc #0
    mov x8, #93 // exit
    mov x0, #0
    svc #0
"""


def test_every_instruction_between_two_marks_is_counted_once(
    bundle: Bundle, tmp_path: Path
) -> None:
    source, binary = tmp_path / "loop.s", tmp_path / "loop"
    source.write_text(ASSEMBLY)
    compiler = tool("aarch64-linux-gnu-gcc")
    subprocess.run([compiler, "-nostdlib", "-static", source, "-o", binary], check=True)
    with emulator(CORES[0]) as machine:
        option = f"{load_plugin()},out={machine.path('marks')}"
        dataclasses.replace(machine, options=("-plugin", option)).run([str(binary)])
        first, second = map(int, machine.get("marks").split())
    # The load, the loop, the move, and the second call itself.
    assert second - first == 1 + 2 * LOOPS + 1 + 1
    assert first == 2


@pytest.mark.export
@pytest.mark.slow
def test_counts_repeat_and_grow_with_the_audio(
    bundle: Bundle, programs: Programs, tmp_path: Path
) -> None:
    machine = Emulator(cpu=CORES[0], folder=tmp_path)
    inputs = [noise(0.2), noise(0.6), noise(1.0)]
    counts = counter(machine, bundle)(programs(SIZES[-1]), inputs)
    assert counts == sorted(counts)
    again = counter(machine, bundle)(programs(SIZES[-1]), inputs)
    np.testing.assert_allclose(again, counts, **tolerance("instruction_counts"))
    # As many as FLOPs, give or take: four multiply-accumulates take one instruction.
    assert 1e5 < counts[0] < counts[2] < 1e7


@pytest.mark.export
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_profile_of_counted_probes_predicts_other_networks_at_other_lengths(
    size: str, bundle: Bundle, programs: Programs, tmp_path: Path
) -> None:
    speed = AssumedSpeed(instructions_per_cycle=1.0, clock_ghz=1.0, source="1 instruction is 1 ns")
    profile = recorded_profile(programs.checkpoint, tmp_path / "probes", speed)
    subnet = programs.checkpoint.subnet(size).subnet
    with emulator("cortex-a76") as machine:
        lengths = [1.3, 2.2]
        counts = counter(machine, bundle)(programs(size), [noise(one) for one in lengths])
    for seconds, instructions in zip(lengths, counts, strict=True):
        predicted = predict_latency(
            profile, programs.checkpoint.supernet.space, subnet, seconds, "executorch"
        )
        assert predicted.milliseconds * 1e6 == pytest.approx(instructions, rel=0.01)
