"""The supernet: a Conformer-CTC encoder whose components are gated per forward call.

Gating is stateless: `forward(features, lengths, gates, heads)` evaluates S subnets of shared
weights in one call and nothing is stored on the module. A gate of 0 skips its component.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ortho_edge.components import FRONT_END, MODULES, ComponentSpace, Place
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.conformer.front_end import FrontEnd
from ortho_edge.conformer.modules import (
    GatedAttention,
    GatedConvolution,
    GatedFeedForward,
    GatedModule,
)
from ortho_edge.subnet import Subnet
from ortho_kernels import worklist
from ortho_kernels.worklist import SubnetPlan, WorkList

INITIAL_BLANK_BIAS = 4.0
"""Most frames are blank in CTC. Learning so from scratch takes gradients a hundred times larger
than all later ones, and AdamW's second moment remembers them for a thousand updates."""


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """Random dropping inside the encoder while training.

    Attributes:
        ffn_dropout: On the hidden units of a full FFN, scaled by the kept share of chunks.
        attention_dropout: On attention weights.
        residual_dropout: On the output of every module.
        layer_drop: Probability of skipping a droppable module for one utterance.
        droppable: Modules (block, name) that layer drop may skip, per subnet; those of blocks only.
    """

    ffn_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    layer_drop: float = 0.0
    droppable: tuple[frozenset[Place], ...] = ()


NO_REGULARIZATION = Regularization()


class Block(nn.Module):
    """Half-FFN, convolution, self-attention, half-FFN, LayerNorm."""

    def __init__(self, architecture: Architecture) -> None:
        """Builds the four gated modules of one block."""
        super().__init__()
        self.ffn1 = GatedFeedForward(architecture)
        self.conv = GatedConvolution(architecture)
        self.mhsa = GatedAttention(architecture)
        self.ffn2 = GatedFeedForward(architecture)
        self.norm = nn.LayerNorm(architecture.dim)


class Supernet(nn.Module):
    """The full weight-sharing network with one CTC head per trained subnet."""

    def __init__(self, architecture: Architecture, num_heads_ctc: int = 1) -> None:
        """Draws all weights.

        Args:
            architecture: Shape of the network.
            num_heads_ctc: CTC heads; by convention head 0 belongs to the full network.
        """
        super().__init__()
        self.architecture = architecture
        self.space = ComponentSpace(architecture)
        self.front_end = FrontEnd(architecture)
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.num_blocks))
        self.ctc_heads = nn.ModuleList(
            nn.Linear(architecture.dim, architecture.vocab_size) for _ in range(num_heads_ctc)
        )
        with torch.no_grad():
            for head in self.ctc_heads:
                head.bias[0] = INITIAL_BLANK_BIAS  # pyright: ignore[reportOptionalSubscript, reportIndexIssue]

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        gates: Tensor,
        heads: Sequence[int],
        regularization: Regularization = NO_REGULARIZATION,
        plan: SubnetPlan | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of S subnets for one batch.

        Args:
            features: (B, T, 80) log-mel.
            lengths: (B,) feature frames.
            gates: (S, N); 0 skips the component, any other value multiplies its output. Chunks of
                the front end are computed once for all subnets, whatever their gates.
            heads: Index of the CTC head of each of the S subnets.
            regularization: Dropout and layer drop, applied as given (also in eval mode).
            plan: Which components to compute, from `plan` where the host knows it: those with a
                gate other than 0, or more, which changes nothing as long as its module has such a
                one. Asked of `gates` otherwise, which waits for the device.

        Returns:
            Log-probabilities (S, B, T', V) in float32 or wider, and encoder lengths (B,).
        """
        if self.front_end.num_chunks > 1:
            own = gates[:, self.space.module_slice(*FRONT_END)]
            x, lengths = self.front_end.gated(features, lengths, own)
        else:
            x, lengths = self.front_end(features, lengths)
            x = x.expand(len(heads), *x.shape)
        plan = plan or self.plan_of_gates(gates)
        # Plain loops over ranges: torch.compile breaks the graph at next() and enumerate().
        for index in range(len(self.blocks)):
            block = self.blocks[index]
            for number in range(len(MODULES)):
                name = MODULES[number]
                place = self.space.module_slice(index, name)
                x = self._run_module(
                    getattr(block, name), (index, name), x, gates[:, place],
                    plan.modules[index * len(MODULES) + number], lengths, regularization,
                )  # fmt: skip
            x = block.norm(x)  # pyright: ignore[reportCallIssue] - iterating loses the type
        rows = []
        for row in range(len(heads)):
            rows.append(self.ctc_heads[heads[row]](x[row]))  # noqa: PERF401 - likewise
        logits = torch.stack(rows)
        return F.log_softmax(
            logits.to(torch.promote_types(logits.dtype, torch.float32)), -1
        ), lengths

    def plan(
        self,
        subnets: Sequence[Subnet],
        device: torch.device | str,
        *,
        full_capacity: bool = False,
    ) -> SubnetPlan:
        """Work lists of hard subnets, uploaded at once; no wait for the device.

        Args:
            subnets: The S subnets of a forward call.
            device: Where it runs.
            full_capacity: Make room for any masks, as a CUDA graph needs.
        """
        is_open = [[index in subnet for index in range(len(self.space))] for subnet in subnets]
        return self._plan(is_open, device, full_capacity=full_capacity)

    def plan_of_gates(self, gates: Tensor) -> SubnetPlan:
        """Work lists of the gates (S, N) other than 0: one transfer tells the host."""
        return self._plan((gates.detach() != 0).tolist(), gates.device, full_capacity=False)

    def _plan(
        self, is_open: list[list[bool]], device: torch.device | str, *, full_capacity: bool
    ) -> SubnetPlan:
        modules = []
        for index in range(len(self.blocks)):
            for name in MODULES:
                place = self.space.module_slice(index, name)
                open_units = [
                    [unit for unit, flag in enumerate(row[place]) if flag] for row in is_open
                ]
                modules.append((open_units, place.stop - place.start))
        return worklist.plan(modules, device, full_capacity=full_capacity)

    def _run_module(
        self,
        module: GatedModule,
        name: Place,
        x: Tensor,
        gates: Tensor,
        work: WorkList,
        lengths: Tensor,
        regularization: Regularization,
    ) -> Tensor:
        if work.capacity == 0:
            return x
        is_ffn = name[1] in ("ffn1", "ffn2")
        dropout = regularization.ffn_dropout if is_ffn else regularization.attention_dropout
        layer_drop = regularization.layer_drop if regularization.droppable else 0.0
        if not (regularization.residual_dropout or layer_drop):
            return module(x, gates, work, lengths, dropout)
        y = module.branch(x, gates, work, lengths, dropout)
        if regularization.residual_dropout > 0:
            y = F.dropout(y, regularization.residual_dropout)
        if layer_drop > 0:
            may_drop = [name in droppable for droppable in regularization.droppable]
            y = y * _layer_drop_mask(y, may_drop, layer_drop)
        return torch.add(x, y, alpha=module.residual_scale)


def _layer_drop_mask(y: Tensor, droppable: list[bool], rate: float) -> Tensor:
    """(S, B, 1, 1): row-mode stochastic depth, scaled to keep the expectation."""
    rows = [
        torch.empty(y.shape[1], device=y.device).bernoulli_(1 - rate) / (1 - rate)
        if may_drop
        else torch.ones(y.shape[1], device=y.device)
        for may_drop in droppable
    ]
    return torch.stack(rows)[:, :, None, None].to(y.dtype)
