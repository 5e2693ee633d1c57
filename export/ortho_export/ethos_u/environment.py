"""The environment that lowers for Ethos-U, and running the worker in it.

ExecuTorch's extra for Ethos-U pins packages that clash with those of the ONNX exporter, so Arm's
compilers live in a virtual environment of their own, which `make ethos-u` sets up. It has none of
this project's packages; the worker reads them from here.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_export.ethos_u.protocol import Answer, Request

VARIABLE = "ORTHO_EDGE_ETHOS_U"
FOLDER = ".venv-ethos-u"
COMMAND = "make ethos-u"
WORKER = "ortho_export.ethos_u.worker"
PACKAGES = ("ortho_edge", "ortho_export", "ortho_kernels")


class MissingEnvironmentError(UserError):
    """The environment that lowers for Ethos-U is not there."""


def python() -> Path:
    """The interpreter of the environment: where `ORTHO_EDGE_ETHOS_U` says, else `.venv-ethos-u`.

    Raises:
        MissingEnvironmentError: There is none.
    """
    folder = Path(os.environ.get(VARIABLE) or FOLDER)
    found = folder.absolute() / "bin" / "python"
    if not found.is_file():
        raise MissingEnvironmentError(
            f"lowering for Ethos-U needs an environment of its own, and there is none at {folder}; "
            f"make it with `{COMMAND}`, or name its folder in {VARIABLE}"
        )
    return found


def lower_all(
    request: Request, folder: Path, done: Callable[[str], object] = lambda name: None
) -> Answer:
    """Lowers every network of a request; the programs lie in `folder` afterwards.

    Args:
        request: What to lower.
        folder: An empty folder for the exchange.
        done: Called with the name of every job that is done.

    Raises:
        MissingEnvironmentError: There is no environment to lower in.
        UserError: The worker failed; quotes the last line that it wrote.
    """
    interpreter = python()
    request.write(folder)
    roots = {str(Path(str(resources.files(name))).parent) for name in PACKAGES}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sorted(roots)),
        "PYTHONNOUSERSITE": "1",
    }
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            [str(interpreter), "-m", WORKER, str(folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment,
            cwd=folder, text=True,
        ) as worker:  # fmt: skip
            assert worker.stdout is not None
            try:
                for line in worker.stdout:
                    done(line.strip())
            except BaseException:
                worker.kill()
                raise
        if worker.returncode:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise UserError(
                f"lowering for {request.accelerator} failed in {interpreter} with status "
                f"{worker.returncode}: {lines[-1]}"
            )
    return Answer.read(folder)
