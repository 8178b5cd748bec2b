"""The ablations that ship: they load, every arm of every profile is a valid recipe, and mistakes name their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.ablations.grid import Grid, ProfileName, find_grid, grids, stages
from tokbench.card_files import load_card
from tokbench.errors import CardError, UnknownName
from tokbench.kanade.training.recipe import differences, load_recipe
from tokbench.registry import package_folder

RECIPES = sorted(p for p in (package_folder("reproduce") / "kanade").glob("*.yaml") if not p.stem.startswith("_"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_under_its_own_name(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("profile", ["mini", "gpu", "paper"])
@pytest.mark.parametrize("name", grids())
def test_every_arm_of_every_profile_is_a_recipe(name: str, profile: ProfileName) -> None:
    grid = find_grid(name)
    assert grid.name == name
    seed = grid.profiles[profile].seeds[0]
    made = [stages(grid, profile, arm, seed, folder=Path("x"), settings={}) for arm in grid.arms]
    base, *others = (one[-1].recipe for one in made)
    for other in others:
        assert differences(base, other), f"{name} {profile}: {other.name} changes nothing"
    assert all(seed == stage.recipe.seed for one in made for stage in one)


def test_the_ssl_ablation_changes_one_number() -> None:
    grid = find_grid("ssl_loss")
    one, other = (stages(grid, "paper", arm, 42, folder=Path("x"), settings={})[0].recipe for arm in grid.arms)
    assert differences(one, other) == ["losses.ssl: 30.0 -> 0.0"]


def test_a_second_training_starts_from_the_first() -> None:
    grid = find_grid("gan")
    first, second = stages(grid, "paper", grid.arms[1], 42, folder=Path("runs"), settings={})
    assert second.recipe.start_from == f"runs/{first.name}/last.ckpt"
    assert not second.recipe.train.content
    assert second.recipe.losses.uses_discriminator


def test_arms_that_differ_in_the_second_training_share_the_first() -> None:
    grid = find_grid("gan")
    one, other = (stages(grid, "mini", arm, 1, folder=Path("x"), settings={}) for arm in grid.arms)
    assert one[0] == other[0]
    assert one[1].name != other[1].name
    for name in set(grids()) - {"gan"}:
        apart = [stages(find_grid(name), "mini", arm, 1, folder=Path("x"), settings={}) for arm in find_grid(name).arms]
        assert len({made[0].name for made in apart}) == len(apart)


def test_the_published_numbers() -> None:
    folder = package_folder("reproduce") / "kanade"
    gan = load_recipe(folder / "25hz_gan.yaml")
    assert (gan.batches, gan.schedule.total, gan.data.batch_size) == (100_000, 200_000, 96)
    clean = load_recipe(folder / "25hz_clean.yaml")
    assert (clean.optimizer.lr, clean.schedule.warmup, clean.schedule.anneal) == (1e-4, 0.025, "linear")
    assert clean.discriminator.kernel == (7, 7)
    assert not clean.discriminator.downsample
    slow = load_recipe(folder / "12.5hz_pretrain.yaml")
    assert slow.model.config.token_rate * 2 == 25
    assert (slow.losses.ssl, slow.losses.mel, slow.data.batch_size) == (30, 30, 128)


def test_mistakes_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: bad\nsummary: x\nmodel: {base: 25hz}\nlosses:\n  ssll: 3\n")
    with pytest.raises(CardError, match=r"bad.yaml:5: losses.ssll: is not a field .*Did you mean 'ssl'"):
        load_recipe(path)
    good = grids()["ssl_loss"].parent / "kanade" / "mini.yaml"
    with pytest.raises(CardError, match=r"^--set losses.weird: is not a field .*Fields: adversarial, .*ssl"):
        load_recipe(good, settings={"losses.weird": 1})
    with pytest.raises(CardError, match=r"^--set compile: Input should be 'auto', True or False"):
        load_recipe(good, settings={"compile": "maybe"})
    with pytest.raises(CardError, match=r"mini.yaml with --set batches: schedule.warmup is shorter than a batch"):
        load_recipe(good, settings={"batches": 3})
    assert load_recipe(good, settings={"compile": True}).compile is True
    path.write_text("name: bad\nsummary: x\nmodel:\n  base: 25hz\n  overrides: {downsample: 0}\n")
    with pytest.raises(CardError, match=r"bad.yaml:3: model: overrides.downsample: "):
        load_recipe(path)
    with pytest.raises(UnknownName, match=r"Did you mean ssl_loss.*All 5 are listed by `tokbench reproduce list`"):
        find_grid("ssl_los")


def test_arms_need_names_of_their_own(tmp_path: Path) -> None:
    for name in ("ssl_loss", "_ablation"):
        (tmp_path / f"{name}.yaml").write_text(grids()["ssl_loss"].with_name(f"{name}.yaml").read_text())
    twice = {"name": "a", "title": "a"}
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"extends: ssl_loss\nname: grid\narms: [{twice}, {twice}]\n")
    with pytest.raises(CardError, match="two arms have the same name"):
        load_card(grid, Grid)
