"""The trainer on a corpus of tones: resume, stages, freezing, the checkpoint."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet
from safetensors import safe_open
from torch.nn.utils import parameters_to_vector

from ortho_edge.checkpoint import load_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace, Granularity
from ortho_edge.data.waveforms import each_cut
from ortho_edge.devices.catalogue import load_profile, profile_text
from ortho_edge.devices.latency import predict_latency
from ortho_edge.devices.profile import DeviceProfile
from ortho_edge.nesting import leading_subnets
from ortho_edge.subnet import Subnet
from ortho_edge.tokens import character_tokens
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.recipes import Recipe, with_elastic_front_end
from ortho_edge.training.state import STATE_FILE
from ortho_edge.training.targets import resolve_targets
from ortho_edge.training.trainer import Trainer

CPU = torch.device("cpu")


def trainer(recipe: Recipe, corpus: Corpus, folder: Path, num_workers: int = 0) -> Trainer:
    return Trainer(
        recipe=recipe, corpus=corpus, folder=folder, device=CPU, num_workers=num_workers,
        command="test",
    )  # fmt: skip


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """The losses of each step; times differ between runs."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {name: value for name, value in line.items() if name.startswith("loss/")}
        for line in lines
        if "loss/full" in line
    }


@pytest.fixture(scope="module")
def uninterrupted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "uninterrupted"


def test_interrupted_and_resumed_equals_uninterrupted(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(tone_recipe, tone_corpus, whole).run()
    # Stops within an epoch, after the first epoch's end and after the freeze at step 7.
    for stop in (2, 5, 9):
        assert trainer(tone_recipe, tone_corpus, parts).run(stop_after=stop) is None
    trainer(tone_recipe, tone_corpus, parts, num_workers=1).run()
    assert losses(parts) == losses(whole)
    assert sorted(losses(whole)) == list(range(12))
    first = load_checkpoint(whole / "checkpoint")
    second = load_checkpoint(parts / "checkpoint")
    for name, tensor in first.supernet.state_dict().items():
        torch.testing.assert_close(second.supernet.state_dict()[name], tensor, rtol=0, atol=0)
    assert first.subnets == second.subnets


def test_a_run_that_died_without_saving_repeats_its_steps_once(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tone_recipe, training=replace(tone_recipe.training, save_every=4))
    whole = tmp_path / "whole"
    trainer(recipe, tone_corpus, whole).run()
    dying = trainer(recipe, tone_corpus, tmp_path / "dying")
    train_step = dying._train_step

    def killed(batch, counts, step):
        if step == 6:
            raise KeyboardInterrupt
        return train_step(batch, counts, step)

    monkeypatch.setattr(dying, "_train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        dying.run()
    resumed = trainer(recipe, tone_corpus, tmp_path / "dying")
    assert resumed.progress.step == 4
    resumed.run()
    assert losses(tmp_path / "dying") == losses(whole)


def test_distillation_and_any_budget_resume_exactly_and_leave_subnets_for_every_budget(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    training = replace(tone_recipe.training, distill=0.5, any_budget=True)
    recipe = replace(tone_recipe, training=training)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(recipe, tone_corpus, whole).run()
    for stop in (5, 9, None):
        trainer(recipe, tone_corpus, parts).run(stop_after=stop)
    assert losses(parts) == losses(whole)
    steps = losses(whole)
    assert all(numbers["loss/distill"] > 0 for numbers in steps.values())
    assert {*steps[11]} == {"loss/full", "loss/between", "loss/target2", "loss/distill"}
    checkpoint = load_checkpoint(whole / "checkpoint")
    full, large, small = checkpoint.subnets
    leading = leading_subnets(checkpoint)
    for before, after in pairwise([small, *leading, full]):
        assert before.subnet <= after.subnet
        assert len(after.subnet.kept) == len(before.subnet.kept) + 1
    assert large.subnet in [one.subnet for one in leading]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    (frozen,) = [line for line in lines if "freeze/entropy" in line]
    assert frozen["step"] == training.stage1_steps
    assert frozen["freeze/entropy"] == checkpoint.provenance["row_entropy_at_freeze"]
    assert frozen["freeze/collisions"] == checkpoint.provenance["row_collisions_at_freeze"]
    assert checkpoint.provenance["training"]["distill"] == 0.5
    # Whoever drops an option in the middle of a run is told which.
    with pytest.raises(UserError, match="another any_budget, distill"):
        trainer(tone_recipe, tone_corpus, parts)


@pytest.mark.parametrize("granularity", ["component", "layer"])
def test_an_elastic_front_end_resumes_exactly_and_is_recorded(
    granularity: Granularity, tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    training = replace(tone_recipe.training, granularity=granularity, targets=(0.8, 0.3))
    recipe = with_elastic_front_end(replace(tone_recipe, training=training), 4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(recipe, tone_corpus, whole).run()
    for stop in (5, 9, None):
        trainer(recipe, tone_corpus, parts).run(stop_after=stop)
    assert losses(parts) == losses(whole)
    checkpoint = load_checkpoint(whole / "checkpoint")
    space = checkpoint.supernet.space
    assert space.architecture.front_end_chunks == 4
    for one, target in zip(checkpoint.subnets[1:], training.targets, strict=True):
        assert isinstance(target, float)
        assert space.cost(one.subnet, "flops") <= target * space.total_cost("flops")
    assert checkpoint.order is not None
    assert len(checkpoint.order) == 2 * 11 + 3


def test_the_front_end_of_a_run_cannot_change(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    elastic = with_elastic_front_end(tone_recipe, 4)
    trainer(elastic, tone_corpus, tmp_path / "elastic").run(stop_after=1)
    trainer(tone_recipe, tone_corpus, tmp_path / "plain").run(stop_after=1)
    for recipe, folder in (
        (tone_recipe, "elastic"),
        (with_elastic_front_end(tone_recipe, 2), "elastic"),
        (elastic, "plain"),
    ):
        with pytest.raises(UserError, match="another front_end_chunks; choose another --out"):
            trainer(recipe, tone_corpus, tmp_path / folder)
    # One chunk is what a run without the option has, and states from before it lack the setting.
    with safe_open(tmp_path / "plain" / STATE_FILE, framework="pt") as file:
        assert "front_end_chunks" not in file.metadata()["run"]
    trainer(with_elastic_front_end(tone_recipe, 1), tone_corpus, tmp_path / "plain")


def test_stage_two_trains_frozen_nested_subnets_within_their_targets(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    run = trainer(tone_recipe, tone_corpus, tmp_path)
    run.run(stop_after=8)
    scores = parameters_to_vector(run.model.selection.parameters()).detach()
    frozen = run.selected_subnets()
    run = trainer(tone_recipe, tone_corpus, tmp_path)
    run.run(stop_after=11)
    after = parameters_to_vector(run.model.selection.parameters()).detach()
    torch.testing.assert_close(after, scores, rtol=0, atol=0)
    assert run.selected_subnets() == frozen
    space = run.problem.space
    assert frozen[1] <= frozen[0]
    for subnet, target in zip(frozen, tone_recipe.training.targets, strict=True):
        assert isinstance(target, float)
        assert space.cost(subnet, "flops") <= target * space.total_cost("flops")


def test_training_learns_the_tones(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    config = replace(
        tone_recipe.training, num_steps=300, peak_learning_rate=1e-2, ffn_dropout=0.0,
        attention_dropout=0.0, residual_dropout=0.0, layer_drop=0.0, log_every=1,
    )  # fmt: skip
    path = trainer(replace(tone_recipe, training=config), tone_corpus, tmp_path).run()
    assert path is not None
    checkpoint = load_checkpoint(path)
    assert [one.name for one in checkpoint.subnets] == ["s100", "s080", "s060"]
    # Guessing gives 67 % and blank alone 100 %.
    assert checkpoint.subnets[0].metrics["dev_wer"] <= 20
    assert checkpoint.subnets[1].metrics["dev_wer"] <= 40
    steps = losses(tmp_path)
    # Seconds are too few for the smallest to leave blank; its loss must fall all the same.
    assert steps[299]["loss/target2"] < 0.6 * steps[0]["loss/full"]
    assert steps[299]["loss/full"] < 0.1 * steps[0]["loss/full"]
    assert checkpoint.provenance["command"] == "test"


def test_another_recipe_in_the_same_folder_is_refused(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    trainer(tone_recipe, tone_corpus, tmp_path).run(stop_after=1)
    other = replace(tone_recipe, training=replace(tone_recipe.training, seed=2))
    with pytest.raises(UserError, match="another seed"):
        trainer(other, tone_corpus, tmp_path)


def test_a_truncated_state_is_named(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    trainer(tone_recipe, tone_corpus, tmp_path).run(stop_after=1)
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        trainer(tone_recipe, tone_corpus, tmp_path)


def test_unusable_audio_is_counted_in_the_metrics(
    tone_recipe: Recipe, tone_corpus: Corpus, tone_cuts: CutSet, tmp_path: Path
) -> None:
    # No symbol for MIDDLE: every cut with it is left out.
    corpus = replace(tone_corpus, tokens=character_tokens(["LOW", "HIGH"]))
    run = trainer(tone_recipe, corpus, tmp_path)
    run.run(stop_after=3)
    without = sum("MIDDLE" in (cut.supervisions[0].text or "") for cut in each_cut(tone_cuts))
    assert 0 < sum(run.progress.skipped.values()) <= without * 3
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert "skipped/" in lines


def test_no_usable_audio_at_all_is_an_error(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    corpus = replace(tone_corpus, tokens=character_tokens(["NOTHING"]))
    with pytest.raises(UserError, match="no usable audio"):
        trainer(tone_recipe, corpus, tmp_path).run()


def test_the_latency_of_a_device_selects_otherwise_than_flops(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    """Where heads are dear in time but cheap in FLOPs, as on a device with slow attention."""
    device = slow_attention(tmp_path)
    kept = {}
    for criterion in ("flops", f"latency:{device}"):
        config = replace(tone_recipe.training, criterion=criterion)
        folder = tmp_path / criterion.partition(":")[0]
        path = trainer(replace(tone_recipe, training=config), tone_corpus, folder).run()
        assert path is not None
        checkpoint = load_checkpoint(path)
        subnets = [one.subnet for one in checkpoint.subnets]
        assert subnets[2] <= subnets[1]
        kept[criterion] = subnets
        order = checkpoint.order
        assert order is not None
        assert sorted(order) == list(range(len(checkpoint.supernet.space)))
        (first, *_) = checkpoint.provenance["targets"]
        assert first["share"] == pytest.approx(0.8)
    profile, space = load_profile(device), checkpoint.supernet.space
    full = milliseconds(profile, space.full(), space)
    for subnet, target in zip(kept[f"latency:{device}"][1:], config.targets, strict=True):
        assert isinstance(target, float)
        assert milliseconds(profile, subnet, space) <= target * full
    # Without half of the heads all the rest fits into 60 % of the time, but not of the FLOPs.
    flops = [space.cost(kept[name][2], "flops") / space.total_cost("flops") for name in kept]
    assert flops[0] <= 0.6 < flops[1]


def test_sizes_for_two_devices_nest_and_each_holds_on_its_device(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    space = ComponentSpace(tone_recipe.architecture(len(tone_corpus.tokens)))
    limits = {}
    for name, share in (("pixel8", 0.6), ("raspberrypi5", 0.8)):
        profile = load_profile(name)
        limits[name] = round(share * milliseconds(profile, space.full(), space), 3)
    targets = tuple(f"{name}@{limit}ms" for name, limit in limits.items())
    config = replace(tone_recipe.training, targets=targets)
    path = trainer(replace(tone_recipe, training=config), tone_corpus, tmp_path).run()
    assert path is not None
    full, large, small = load_checkpoint(path).subnets
    assert large.name == f"raspberrypi5-{limits['raspberrypi5']:g}ms"
    assert small.name == f"pixel8-{limits['pixel8']:g}ms"
    assert small.subnet <= large.subnet <= full.subnet
    assert full.subnet != large.subnet != small.subnet
    for one in (large, small):
        name = one.name.partition("-")[0]
        assert milliseconds(load_profile(name), one.subnet, space) <= limits[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("pixel8@8s",)}, "'pixel8@8s' is no limit of a device"),
        ({"targets": ("pixel8@0ms",)}, "'pixel8@0ms' is no limit of a device"),
        ({"targets": ("pixel9@8ms",)}, "unknown device 'pixel9'; known: "),
        ({"targets": ("pixel8@900ms",)}, "target pixel8-900ms is no limit"),
        ({"targets": ("pixel8@0.001ms",)}, "target pixel8-0.001ms is below"),
        ({"criterion": "latency"}, "unknown criterion 'latency'; known: flops, params, latency:"),
        ({"criterion": "energy:pixel8"}, "unknown criterion 'energy:pixel8'"),
    ],
)
def test_an_impossible_target_is_refused(
    tone_recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    config = replace(tone_recipe.training, **changes)
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_targets(config, ComponentSpace(tone_recipe.architecture(9)))


def milliseconds(profile: DeviceProfile, subnet: Subnet, space: ComponentSpace) -> float:
    """Predicted latency of the slowest runtime."""
    return max(
        predict_latency(profile, space, subnet, profile.budget.audio_seconds, runtime).milliseconds
        for runtime in profile.runtimes
    )


def slow_attention(folder: Path) -> str:
    """The file of a device on which a FLOP of attention takes a hundred times as long."""
    profile = load_profile("pixel8")
    runtimes = {}
    for runtime, precisions in profile.runtimes.items():
        costs = precisions["fp32"]
        slow = replace(costs.modules["mhsa"], us_per_mflop=100 * costs.modules["mhsa"].us_per_mflop)
        runtimes[runtime] = {"fp32": replace(costs, modules={**costs.modules, "mhsa": slow})}
    path = folder / "slow.toml"
    path.write_text(profile_text(replace(profile, runtimes=runtimes)), "utf-8")
    return str(path)
