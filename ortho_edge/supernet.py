"""The supernet: a Conformer-CTC encoder whose components are gated per forward call.

Gating is stateless: `forward(features, lengths, gates, heads)` evaluates S subnets of shared
weights in one call and nothing is stored on the module. A gate of 0 skips its component.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ortho_edge.components import MODULES, ComponentSpace, Module
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.conformer.front_end import FrontEnd, frames_mask
from ortho_edge.conformer.modules import (
    GatedAttention,
    GatedConvolution,
    GatedFeedForward,
    add_residual,
)

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
        droppable: Modules (block, name) that layer drop may skip, per subnet.
    """

    ffn_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    layer_drop: float = 0.0
    droppable: tuple[frozenset[tuple[int, Module]], ...] = ()


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
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of S subnets for one batch.

        Args:
            features: (B, T, 80) log-mel.
            lengths: (B,) feature frames.
            gates: (S, N); 0 skips the component, any other value multiplies its output.
            heads: Index of the CTC head of each of the S subnets.
            regularization: Dropout and layer drop, applied as given (also in eval mode).

        Returns:
            Log-probabilities (S, B, T', V) in float32 or wider, and encoder lengths (B,).
        """
        x, lengths = self.front_end(features, lengths)
        valid = frames_mask(lengths, x.shape[1])
        x = x.expand(len(heads), *x.shape)
        # One transfer per step tells the host what to skip.
        is_open = (gates.detach() != 0).tolist()
        for index, block in enumerate(self.blocks):
            for module in MODULES:
                place = self.space.module_slice(index, module)
                open_units = [
                    [unit for unit, flag in enumerate(row[place]) if flag] for row in is_open
                ]
                x = self._run_module(block, (index, module), x, gates[:, place], open_units, valid,
                                regularization)  # fmt: skip
            x = block.norm(x)  # pyright: ignore[reportCallIssue] - iterating loses the type
        logits = torch.stack([self.ctc_heads[head](x[s]) for s, head in enumerate(heads)])
        return F.log_softmax(
            logits.to(torch.promote_types(logits.dtype, torch.float32)), -1
        ), lengths

    def _run_module(
        self,
        block: nn.Module,
        name: tuple[int, Module],
        x: Tensor,
        gates: Tensor,
        open_units: list[list[int]],
        valid: Tensor,
        regularization: Regularization,
    ) -> Tensor:
        module = getattr(block, name[1])
        is_ffn = name[1] in ("ffn1", "ffn2")
        dropout = regularization.ffn_dropout if is_ffn else regularization.attention_dropout

        def branch(rows: Tensor, row_gates: Tensor, row_units) -> Tensor:
            y = module.branch(rows, row_gates, row_units, valid, dropout)
            if regularization.residual_dropout > 0:
                y = F.dropout(y, regularization.residual_dropout)
            return y

        if regularization.layer_drop > 0 and regularization.droppable:
            full_branch = branch

            def branch(rows: Tensor, row_gates: Tensor, row_units) -> Tensor:
                return full_branch(rows, row_gates, row_units) * kept

            kept = _layer_drop_mask(
                x, [name in droppable for droppable in regularization.droppable],
                [bool(units) for units in open_units], regularization.layer_drop,
            )  # fmt: skip
        return add_residual(x, gates, open_units, branch, scale=0.5 if is_ffn else 1.0)


def _layer_drop_mask(x: Tensor, droppable: list[bool], live: list[bool], rate: float) -> Tensor:
    """(live subnets, B, 1, 1): row-mode stochastic depth, scaled to keep the expectation."""
    rows = [
        torch.empty(x.shape[1], device=x.device).bernoulli_(1 - rate) / (1 - rate)
        if may_drop
        else torch.ones(x.shape[1], device=x.device)
        for may_drop, is_live in zip(droppable, live, strict=True)
        if is_live
    ]
    return torch.stack(rows)[:, :, None, None].to(x.dtype) if rows else x.new_ones(0, 1, 1, 1)
