"""Several processes that train one model: `torchrun` starts them, rank 0 writes.

A process that ends is noticed by `torchrun`, which stops the others and, with `--max-restarts`,
starts all of them again; they go on from the last saved state.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ortho_edge.cli import UserError

TIMEOUT = timedelta(hours=6)
"""So long may rank 0 evaluate while the others wait for it."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, and which one this is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes, logs and evaluates."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of every process's values, without a gradient; as many on each."""
        values = values.detach().clone()
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def merged(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The sum of every process's counts by name."""
        found: list[Mapping[str, int]] = [counts] * self.count
        if self.count > 1:
            dist.all_gather_object(found, dict(counts))
        return dict(sum(map(Counter, found), Counter()))

    def agree(self, value: int) -> bool:
        """Whether all processes have the same value."""
        values = torch.tensor([value, value * value], dtype=torch.float64)
        mean, square = (self.total(values) / self.count).tolist()
        return mean == value and square == value * value

    def wait(self) -> None:
        """Waits for all processes."""
        if self.count > 1:
            dist.barrier()

    def wrap(self, network: nn.Module) -> nn.Module:
        """`network`, whose backward leaves the mean of all processes' gradients.

        Subnets leave weights out, and those of CTC heads that an update does not train, so which
        weights are in use is looked up in every update.
        """
        if self.count == 1:
            return network
        return DistributedDataParallel(
            network, find_unused_parameters=True, broadcast_buffers=False
        )


ALONE = Ranks()


@contextmanager
def started_ranks(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """The processes that `torchrun` started, connected; this one alone where it did not.

    Args:
        device: Kind of device; on CUDA each process gets the GPU of its rank on this machine.

    Raises:
        UserError: There are more processes than GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"--nproc_per_node asks for GPU {local}; this machine has "
                f"{torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    _connect("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield Ranks(dist.get_rank(), count), device
    # Not after an exception: others may wait, and torchrun ends them.
    dist.destroy_process_group()


def _connect(backend: str) -> None:
    store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
    # torchrun keeps one store through all restarts; in it are the addresses of processes that
    # are gone. Each machine counts its own restarts, so only one alone can tell them apart.
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(restart, store)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
