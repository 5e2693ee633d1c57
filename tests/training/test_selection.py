"""Every method of choosing subnets: what it trains, what it freezes, and that runs are alike."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.components import ComponentSpace, Granularity
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.ortho_softmax import SelectionProblem
from ortho_edge.train import _kept
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.recipes import Recipe
from ortho_edge.training.selection import make_selection
from ortho_edge.training.selection.base import Selection
from ortho_edge.training.selection.fixed import uniform_order
from ortho_edge.training.selection.top_k import SimpleTopK
from ortho_edge.training.selection.zero_out import IterativeZeroOut
from ortho_edge.training.targets import resolve_targets
from ortho_edge.training.trainer import Trainer
from tests.tolerances import tolerance

TARGETS = (0.8, 0.6)


def space(num_blocks: int = 2) -> ComponentSpace:
    return ComponentSpace(
        Architecture(
            vocab_size=5, dim=32, num_blocks=num_blocks, num_heads=2, head_dim=16, ffn_dim=64,
            kernel_size=3, front_end="strided", front_end_channels=(2, 4),
        )
    )  # fmt: skip


def selection(
    method: str, num_blocks: int = 2, granularity: Granularity = "component", **changes
) -> Selection:
    config = TrainingConfig(
        **{
            "num_steps": 100, "targets": TARGETS, "method": method, "granularity": granularity,
            **changes,
        }
    )  # fmt: skip
    parts = space(num_blocks)
    problem = SelectionProblem(parts, config.granularity)
    return make_selection(problem, config, resolve_targets(config, parts))


def run(recipe: Recipe, corpus: Corpus, folder: Path, stops: tuple[int, ...]) -> list:
    """Runs in parts and returns the cuts of every update."""
    seen = []
    for stop in (*stops, None):
        trainer = Trainer(
            recipe=recipe, corpus=corpus, folder=folder, device=torch.device("cpu"), command="test"
        )
        train_step = trainer._train_step

        def recorded(batch, counts, step, train_step=train_step):
            seen.append(batch.cut_ids)
            return train_step(batch, counts, step)

        trainer._train_step = recorded
        trainer.run(stop_after=stop)
    return seen


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_methods_resume_exactly_on_the_same_data_and_write_checkpoints(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    batches = {}
    corpus = replace(
        tone_corpus, development={"dev": tone_corpus.development["dev"].subset(first=1)}
    )
    # Another test holds OrthoSoftmax to this; what never learns differs in its subnets alone.
    for method in ("top-k", "zero-out", "alone", "aux-loss"):
        targets = TARGETS[1:] if method == "alone" else TARGETS
        training = replace(tone_recipe.training, num_steps=3, method=method, targets=targets)
        recipe = replace(tone_recipe, training=training)
        whole, parts = tmp_path / method / "whole", tmp_path / method / "parts"
        batches[method] = run(recipe, corpus, whole, ())
        # Stage 1 is two updates, where there is one.
        assert run(recipe, corpus, parts, (1,)) == batches[method]
        assert logged(parts) == logged(whole)
        checkpoint = load_checkpoint(whole / "checkpoint")
        sizes = [one.subnet for one in checkpoint.subnets]
        assert all(small <= large for large, small in pairwise(sizes))
        costs = [checkpoint.supernet.space.cost(one, "flops") for one in sizes]
        total = checkpoint.supernet.space.total_cost("flops")
        for one, cost in zip(checkpoint.subnets, costs, strict=True):
            assert cost <= one.target * total * (1 + 1e-9)
        smallest = checkpoint.subnets[-1]
        features, lengths = torch.randn(2, 41, 80), torch.tensor([41, 30])
        gates = smallest.subnet.gates()[None]
        expected, _ = checkpoint.supernet(features, lengths, gates, [smallest.head])
        small = compact(checkpoint.supernet, smallest.subnet, smallest.head)
        actual, _ = small(features, lengths)
        torch.testing.assert_close(actual, expected[0], **tolerance("compaction_float32"))
    assert all(one == batches["alone"] for one in batches.values())


@pytest.mark.parametrize(("num_blocks", "depths"), [(12, [8, 4]), (5, [4, 2]), (2, [1])])
def test_aux_loss_keeps_whole_blocks_from_the_bottom(num_blocks: int, depths: list[int]) -> None:
    chosen = selection("aux-loss", num_blocks)
    subnets = chosen.frozen(0).subnets
    components = space(num_blocks).components
    for depth, subnet in zip(depths, subnets, strict=True):
        expected = tuple(i for i, one in enumerate(components) if (one.block or 0) < depth)
        assert subnet.kept == expected
    assert [one.name for one in chosen.targets] == [f"b{depth:02d}" for depth in depths]


def test_aux_loss_and_sizes_alone_know_an_elastic_front_end() -> None:
    parts = ComponentSpace(replace(space(6).architecture, front_end_chunks=4))
    problem = SelectionProblem(parts, "component")
    config = TrainingConfig(num_steps=100, targets=TARGETS, method="aux-loss")
    chosen = make_selection(problem, config, resolve_targets(config, parts))
    for depth, subnet in zip((4, 2), chosen.frozen(0).subnets, strict=True):
        blocks = [i for i, one in enumerate(parts.components[:-3]) if (one.block or 0) < depth]
        assert list(subnet.kept) == [*blocks, *range(len(parts) - 3, len(parts))]
    order = uniform_order(parts)
    assert sorted(order) == list(range(len(parts)))
    # Half of what there is keeps about half of the front end's chunks too.
    assert 1 <= len({*range(len(parts) - 3, len(parts))} & {*order[: len(parts) // 2]}) <= 2


def test_top_k_is_hard_forward_and_a_sigmoid_backward() -> None:
    chosen = selection("top-k", granularity="layer")
    assert isinstance(chosen, SimpleTopK)
    torch.nn.init.normal_(chosen.scores)
    for step in (0, 30, chosen.stage1_steps - 1):
        for seed in range(4):
            one = chosen.choose(step, np.random.default_rng(seed))
            assert set(one.gates[1].tolist()) <= {0.0, 1.0}
            groups = chosen.problem.groups
            is_open = torch.tensor([one.gates.detach()[1, group[0]] for group in groups])
            chosen.scores.grad = None
            one.gates[1].sum().backward()
            slope = torch.sigmoid(chosen.scores) * torch.sigmoid(-chosen.scores)
            expected = slope * is_open * torch.tensor([len(group) for group in groups])
            torch.testing.assert_close(chosen.scores.grad, expected.detach())
            if step == 0:
                assert is_open.all()
            # Whatever is open scores higher than whatever is closed.
            scores = chosen.scores.detach()
            closed = scores[is_open == 0]
            assert not len(closed) or scores[is_open == 1].min() > closed.max()
    one = chosen.choose(chosen.stage1_steps - 1, np.random.default_rng(0))
    number = one.heads[1] - 1
    kept = [int(i) for i in one.gates[1].nonzero().flatten()]
    assert set(kept) <= set(chosen.frozen(chosen.stage1_steps).subnets[number].kept)


def test_zero_out_takes_the_lowest_for_good_until_the_smallest_target_is_reached() -> None:
    chosen = selection("zero-out", zero_outs=5)
    assert isinstance(chosen, IterativeZeroOut)
    torch.nn.init.normal_(chosen.scores)
    rng = np.random.default_rng(0)
    gone: set[int] = set()
    changed = []
    for step in range(chosen.stage1_steps):
        before = chosen.scores.detach().clone()
        one = chosen.choose(step, rng)
        zeroed = set((chosen.removed >= 0).nonzero().flatten().tolist())
        assert gone <= zeroed
        if zeroed != gone:
            changed.append(step)
            left = [index for index in range(len(before)) if index not in zeroed]
            assert max(before[list(zeroed - gone)]) <= min(before[left])
        gone = zeroed
        gates = one.gates[1].detach()
        allowed = (gates == 0) | torch.isclose(gates, torch.sigmoid(before))
        assert allowed.all()
        with torch.no_grad():
            chosen.scores.add_(0.3 * torch.randn(len(before)))
    assert all(step % 12 == 0 for step in changed)
    assert 2 <= len(changed) <= 5
    kept = [index for index in range(len(chosen.removed)) if index not in gone]
    smallest = chosen.frozen(chosen.stage1_steps).subnets[-1]
    assert set(kept) <= set(smallest.kept)


def test_alone_trains_one_subnet_that_is_alike_in_every_block_or_the_given_one() -> None:
    chosen = selection("alone", 6, targets=(0.5,))
    parts = space(6)
    assert chosen.targets == ()
    assert chosen.stage1_steps == 0
    subnet = chosen.largest.subnet
    assert 0.4 < parts.cost(subnet, "flops") / parts.total_cost("flops") <= 0.5
    units = {
        (one.block, one.module): len(one.units) / parts.num_units(one.module)
        for one in parts.modules(subnet)
    }
    for module in ("ffn1", "mhsa", "ffn2"):
        shares = [share for (_, name), share in units.items() if name == module]
        assert max(shares) - min(shares) <= 1 / parts.num_units(module)
    assert sorted(uniform_order(parts)) == list(range(len(parts)))
    given = selection("alone", 6, targets=(0.5,), kept=(0, 3, 7))
    assert given.largest.subnet.kept == (0, 3, 7)
    with pytest.raises(ValueError, match="more than the target"):
        selection("alone", 6, targets=(0.5,), kept=tuple(range(len(parts))))
    with pytest.raises(ValueError, match="one target"):
        selection("alone")


def test_random_subnets_depend_on_the_seed_alone() -> None:
    first = selection("random", 6, seed=1).frozen(0)
    assert selection("random", 6, seed=1).frozen(0) == first
    assert selection("random", 6, seed=2).frozen(0).subnets != first.subnets


def test_what_is_trained_alone_is_what_the_update_runs(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    training = replace(tone_recipe.training, method="alone", targets=(0.6,))
    trainer = Trainer(
        recipe=replace(tone_recipe, training=training), corpus=tone_corpus, folder=tmp_path,
        device=torch.device("cpu"),
    )  # fmt: skip
    trainer._freeze()
    chosen = trainer._choose(0)
    assert chosen.heads == (0,)
    torch.testing.assert_close(chosen.gates[0], trainer.model.selection.largest.subnet.gates())


@pytest.mark.parametrize(
    ("changes", "message"), [({"distill": 0.5}, "distill into"), ({"any_budget": True}, "between")]
)
def test_what_needs_subnets_is_refused_where_there_are_none(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"method full trains a single network: .*{message}"):
        selection("full", **changes)
    with pytest.raises(ValueError, match="distill must be 0 or more, not -1"):
        selection("orthosoftmax", distill=-1)


def test_an_unknown_method_is_named(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    recipe = replace(tone_recipe, training=replace(tone_recipe.training, method="guessing"))
    with pytest.raises(UserError, match="unknown method 'guessing'; known: orthosoftmax"):
        Trainer(recipe=recipe, corpus=tone_corpus, folder=tmp_path, device=torch.device("cpu"))
    assert not list(tmp_path.iterdir())


def test_every_method_starts_from_the_same_weights(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    def starting(method: str) -> dict[str, torch.Tensor]:
        targets = TARGETS[1:] if method == "alone" else TARGETS
        training = replace(tone_recipe.training, method=method, targets=targets)
        trainer = Trainer(
            recipe=replace(tone_recipe, training=training), corpus=tone_corpus,
            folder=tmp_path / method, device=torch.device("cpu"), command="test",
        )  # fmt: skip
        weights = trainer.model.supernet.state_dict()
        return {name: one for name, one in weights.items() if not name.startswith("ctc_heads.")}

    expected = starting("orthosoftmax")
    for method in ("top-k", "zero-out", "aux-loss", "random", "alone", "full"):
        actual = starting(method)
        assert actual.keys() == expected.keys()
        assert all(actual[name].equal(one) for name, one in expected.items()), method


def test_a_size_alone_can_be_the_one_that_a_checkpoint_holds() -> None:
    checkpoint = shipped_checkpoint()
    sizes = load_checkpoint(checkpoint).subnets
    assert _kept(checkpoint, (f"{sizes[2].target:g}",)) == sizes[2].subnet.kept
    for targets in ((), ("0.99",), ("0.45", "0.28")):
        with pytest.raises(UserError, match=r"--targets must name one size .* 0\.45 \(s045\)"):
            _kept(checkpoint, targets)


def test_a_size_alone_is_the_one_it_is_given() -> None:
    kept = (0, 2, 3)
    chosen = selection("alone", targets=(0.9,), kept=kept)
    assert chosen.largest.subnet.kept == kept
    with pytest.raises(ValueError, match="outside"):
        selection("alone", targets=(0.9,), kept=(0, 999))
    with pytest.raises(ValueError, match=r"more than the target 0\.2"):
        selection("alone", targets=(0.2,), kept=tuple(range(10)))
