"""One process of a run that `torchrun` starts and `test_distributed.py` examines.

Usage: torchrun ... -m tests.training.distributed_run TONES FOLDER. Process 1 is killed in update 5
and asked to stop in update 6, each once; process 0 writes down the updates that it has done.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ortho_edge.data.corpora import synthetic
from ortho_edge.training.distributed import started_ranks
from ortho_edge.training.recipes import Recipe
from ortho_edge.training.stopping import STOPPED_STATUS
from ortho_edge.training.trainer import Trainer
from tests.training.conftest import corpus_of, small_recipe

SIGNALS = {5: signal.SIGKILL, 6: signal.SIGTERM}


def recipe() -> Recipe:
    """Without dropout, which draws by process, and with batches of one to three utterances."""
    base = small_recipe()
    training = replace(
        base.training, num_steps=10, save_every=2, batch_seconds=3.0, distill=0.5, any_budget=True,
        ffn_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0, layer_drop=0.0,
        adam_epsilon=1e-8,
    )  # fmt: skip
    return replace(base, training=training)


def main(tones: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    with started_ranks(torch.device("cpu")) as (ranks, device):
        trainer = Trainer(
            recipe=recipe(), corpus=corpus_of(synthetic(tones).to_eager()), folder=folder,
            device=device, ranks=ranks,
        )  # fmt: skip
        train_step = trainer._train_step

        def observed(batch, counts, step):
            marker = folder / f"signal-{step}"
            if ranks.rank == 1 and step in SIGNALS and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), SIGNALS[step])
            numbers = train_step(batch, counts, step)
            if ranks.is_first:
                with (folder / "steps.txt").open("a") as file:
                    file.write(f"{step}\n")
            return numbers

        trainer._train_step = observed
        trainer.run()
    sys.exit(STOPPED_STATUS if trainer.stopped else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
