"""What the report says of queried images, against plain loops over the stored runs and the image files themselves."""

import base64
import io
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from cache.errors import DataUnavailableError
from cache.features import FeatureCache, FeatureWriter, Identity, Listing
from cache.runs import RunStore
from pipeline import queried_figures
from pipeline.curves import line_styles
from pipeline.queried import mapped, queried_panels
from pipeline.queried_classes import balance_of, counts_over, data_spec
from pipeline.queried_figures import small_png
from pipeline.report import readable_runs
from pipeline.results import group_runs
from pipeline.task import prepare_task
from pipeline.thumbnails import data_uri, open_images
from stages.al.variants import parse_variant
from stages.embed.images import DATASETS, download
from stages.embed.images.download import Archive
from tests.files import photos

INITIAL, BATCH, BUDGET = 4, 3, 18
SURROGATE = {"name": "surrogate", "model_digest": "5a" * 32, "train_seeds": [9]}
CLASSES = ["blue", "grün", "red"]


@pytest.fixture(autouse=True)
def nothing_open():
    open_images.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def no_pixels():
    """Rendering takes most of the time; one test does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queried_figures, "small_png", lambda figure: b"")
        yield small_png


def put_features(root, spec):
    """Made-up features of real images, one view; returns the finished cache."""
    images = DATASETS.build(spec).open()
    listing = Listing(
        ids=images.ids,
        labels=images.labels,
        split=images.split,
        contents=images.contents,
        class_names=images.class_names,
    )
    identity = Identity(
        dataset=DATASETS.build(spec).slug,
        dataset_digest=images.digest,
        backbone="simclr",
        parameters={"width": 4},
        full_name="net.w1",
        weights="",
        weights_digest="0",
        preprocessing={},
        views=[{"name": "identity"}],
        view_seed=0,
    )
    writer = FeatureWriter(root / "features", identity, listing, dim=6)
    rng = np.random.default_rng(0)
    writer.write(0, rng.normal(size=(len(images), 1, 6)).astype(np.float32) + images.labels[:, None, None])
    writer.finish()
    writer.close()
    return FeatureCache(writer.path, "make embed")


def put_run(root, task, strategy, seed, command):
    """A run that queries at random; initial set and queries as the grid writes them."""
    rng = np.random.default_rng([seed, len(strategy["name"])])
    ids = [str(image_id) for image_id in rng.choice(np.unique(task.ids.astype(str)), BUDGET, replace=False)]
    budget = np.array([*range(INITIAL, BUDGET, BATCH), BUDGET])
    queried = [ids[start:stop] for start, stop in zip([0, *budget], budget, strict=False)]
    n_pool, n_validation, n_test = task.sizes
    record = {
        "run": {
            **task.about,
            "head": {"name": "ridge"},
            "strategy": strategy,
            "protocol": {"initial_size": INITIAL, "batch_size": BATCH, "budget": BUDGET},
            "seed": seed,
        },
        "summary": {"seconds": 0.1},
        "n_pool": n_pool,
        "n_validation": n_validation,
        "n_test": n_test,
        "classes": list(task.class_names),
        "command": command,
    }
    columns = {"budget_spent": budget, "queried": queried, "test_accuracy": rng.uniform(0.5, 0.9, len(budget))}
    run_id = f"{task.about['dataset']}/net.w1/ridge-{strategy['name']}-s{seed}-{task.derived.basis}"
    RunStore(root / "runs").put(run_id, record, pa.table(columns))


def put_group(root, pool="whole", strategies=({"name": "random"}, {"name": "margin"}, SURROGATE)):
    """Photos, features and runs of three seeds; returns the one group of runs."""
    folder = photos(root / "my photos")
    cache = put_features(root, f"folder:{folder}")
    task = prepare_task(cache, 5, 10, root, parse_variant(pool))
    for strategy in strategies:
        for seed in range(3):
            put_run(root, task, strategy, seed, f"alcove al --dataset 'folder:{folder}' --seeds 3")
    (group,) = group_runs(readable_runs(root))
    return group


def panels_of(group, root, **options):
    names = sorted(result.label for result in group.results if result.name != "random" and not result.is_surrogate)
    return queried_panels(group, root, line_styles(group, names), **options)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A group, its data root and its panels, which no test changes."""
    root = tmp_path_factory.mktemp("data")
    group = put_group(root)
    return group, root, panels_of(group, root)


def stored(root):
    """(strategy, seed) -> classes of the queried images in order, by the folder that the image lies in."""
    found = {}
    for run in RunStore(root / "runs"):
        ids = [image_id for batch in run.rounds()["queried"] for image_id in batch]
        found[run.record["run"]["strategy"]["name"], run.record["run"]["seed"]] = ids
    return found


def entropy_share(classes):
    """Normalised entropy of a list of names, by a loop."""
    shares = [classes.count(name) / len(classes) for name in CLASSES]
    return -sum(share * np.log(share) for share in shares if share) / np.log(len(CLASSES))


def test_counts_are_those_of_a_plain_loop(rng):
    labels, budget, classes = rng.integers(0, 5, 30), np.array([4, 10, 11, 30]), np.array([3, 0, 4])
    expected = [[labels[:spent].tolist().count(label) for label in classes] for spent in budget]
    np.testing.assert_array_equal(counts_over(labels, budget, classes), expected)


def test_balance_by_hand():
    assert balance_of(np.array([7, 7, 7, 7])) == pytest.approx(1)
    assert balance_of(np.array([0, 9, 0])) == 0
    np.testing.assert_allclose(balance_of(np.array([[1, 1, 2], [1, 1, 0]])), np.array([1.5, 1]) / np.log2(3))
    assert balance_of(np.array([5])) == 1


def test_tables_agree_with_a_loop_over_the_runs(shown):
    _, root, panels = shown
    assert panels.notes == ()
    balance, classes = (table.numbers for table in panels.tables)
    balance = balance.set_index("strategy")
    for name in ("random", "margin", "surrogate"):
        runs = [[image_id.split("/")[0] for image_id in stored(root)[name, seed]] for seed in range(3)]
        values = pd.Series([entropy_share(run) for run in runs])
        assert balance.loc[name, "balance_mean"] == pytest.approx(values.mean())
        assert balance.loc[name, "balance_error"] == pytest.approx(values.sem())
        assert balance.loc[name, "classes_seen_mean"] == np.mean([len(set(run)) for run in runs])
        for row in classes[classes["strategy"] == name].itertuples():
            shares = pd.Series([run.count(row[2]) / BUDGET for run in runs])
            assert (row.share_mean, row.share_error) == pytest.approx((shares.mean(), shares.sem()))
    assert set(classes["class"]) == set(CLASSES)
    assert panels.tables[1].said.loc["margin"].tolist() == [
        f"{share:.1%}" for share in classes[classes["strategy"] == "margin"]["share_mean"]
    ]
    assert classes.groupby("strategy")["pool_share"].sum().tolist() == pytest.approx([1, 1, 1])


def test_balance_is_drawn_with_a_band_of_one_standard_error(shown):
    _, root, panels = shown
    figure = next(picture.figure for picture in panels.figures if picture.stem.endswith("balance"))
    (axes,) = figure.axes
    line = next(line for line in axes.lines if line.get_label().endswith("  margin"))
    runs = [[image_id.split("/")[0] for image_id in stored(root)["margin", seed]] for seed in range(3)]
    frame = pd.DataFrame([[entropy_share(run[: int(spent)]) for spent in line.get_xdata()] for run in runs])
    np.testing.assert_allclose(line.get_ydata(), frame.mean())
    band = next(band for band in axes.collections if to_hex(band.get_facecolor()[0]) == to_hex(line.get_color()))
    edges = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(edges.max(), (frame.mean() + frame.sem()).max())
    np.testing.assert_allclose(edges.min(), (frame.mean() - frame.sem()).min())


def nearest(uri, folder):
    """The image file that a thumbnail looks most like; a JPEG of noise is not quite that noise."""
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), dtype=float)
    files = {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in folder.glob("*/*.png")}
    distances = {name: np.abs(shown - file).mean() for name, file in files.items() if file.shape == shown.shape}
    return min(distances, key=distances.get)


def test_thumbnails_are_the_first_images_after_the_initial_set(shown):
    group, root, panels = shown
    assert [strip.label for strip in panels.strips] == [result.label for result in group.results]
    for strip in panels.strips:
        ids = stored(root)[strip.label, panels.seed][INITIAL : INITIAL + 10]
        assert [thumbnail.image_id for thumbnail in strip.thumbnails] == ids
        for thumbnail in strip.thumbnails:
            assert thumbnail.name == thumbnail.image_id.split("/")[0]
            assert nearest(thumbnail.uri, root / "my photos") == thumbnail.image_id


def test_a_large_image_becomes_a_small_jpeg(rng):
    ramp = np.linspace(0, 255, 300)[None, :, None] * np.ones((200, 1, 3))
    pixels = (ramp * 0.9 + rng.uniform(0, 20, ramp.shape)).astype(np.uint8)
    kind, _, content = data_uri(pixels).partition(",")
    assert kind == "data:image/jpeg;base64" and len(content) < 3000
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))), dtype=float)
    assert shown.shape == (43, 64, 3)
    expected = np.asarray(Image.fromarray(pixels).resize((64, 43), Image.Resampling.BOX), dtype=float)
    assert np.abs(shown - expected).mean() < 6


def test_the_small_picture_is_the_figure_in_fewer_colours(shown, no_pixels):
    figure = next(picture.figure for picture in shown[2].figures if picture.stem.endswith("classes"))
    small = Image.open(io.BytesIO(no_pixels(figure)))
    assert small.mode == "P" and small.size == tuple((figure.get_size_inches() * 144).astype(int))


def test_without_features_one_sentence_names_the_command(tmp_path):
    group = put_group(tmp_path)
    shutil.rmtree(tmp_path / "features")
    panels = panels_of(group, tmp_path)
    assert (panels.figures, panels.tables, panels.strips) == ((), (), ())
    (note,) = panels.notes
    assert "these runs are gone: run `make embed" in note
    assert f"DATASET='folder:{tmp_path / 'my photos'}'" in note and "BACKBONE=simclr:width=4" in note


def test_without_images_the_rest_is_shown(tmp_path):
    group = put_group(tmp_path)
    (tmp_path / "my photos").rename(tmp_path / "moved")
    panels = panels_of(group, tmp_path)
    assert len(panels.figures) == 3 and len(panels.tables) == 2 and panels.strips == ()
    (note,) = panels.notes
    assert "there is no folder" in note and "my photos" in note


def test_a_changed_image_is_not_shown_as_the_one_that_was_queried(tmp_path):
    group = put_group(tmp_path)
    image_id = stored(tmp_path)["margin", 0][INITIAL]
    Image.new("RGB", (9, 9), "white").save(tmp_path / "my photos" / image_id)
    panels = panels_of(group, tmp_path)
    assert panels.strips == ()
    assert f"image {image_id!r} is gone or has changed since it was embedded" in panels.notes[0]


def test_other_features_than_the_runs_had_are_said_to_be(tmp_path):
    group = put_group(tmp_path)
    group.settings["n_pool"] += 1
    (note,) = panels_of(group, tmp_path).notes
    assert "now give a pool of" in note


def test_of_a_repeated_image_the_class_is_counted_all_the_same(tmp_path):
    group = put_group(tmp_path, pool="redundant:2:40")
    panels = panels_of(group, tmp_path)
    assert panels.notes == ()
    runs = [[image_id.split("/")[0] for image_id in stored(tmp_path)["margin", seed]] for seed in range(3)]
    balance = panels.tables[0].numbers.set_index("strategy").loc["margin", "balance_mean"]
    assert balance == pytest.approx(np.mean([entropy_share(run) for run in runs]))


def test_the_map_has_random_and_the_surrogate_among_six(tmp_path):
    names = ("margin", "entropy", "badge", "coreset", "typiclust", "bald")
    group = put_group(tmp_path, strategies=[{"name": name} for name in ("random", *names)] + [SURROGATE])
    labels = mapped(group.results)
    assert len(labels) == 6 and {"random", "surrogate"} < set(labels)
    figure = next(picture.figure for picture in panels_of(group, tmp_path).figures if picture.stem.endswith("map"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == labels


def test_the_data_set_is_what_a_command_or_the_user_says(tmp_path):
    group = put_group(tmp_path)
    spec = f"folder:{tmp_path / 'my photos'}"
    assert data_spec(group) == spec
    for run in group.runs:
        run.record["command"] = "alcove al --dataset folder:elsewhere,digits --strategy it's"
    assert data_spec(group) is None
    assert "nothing says where the images of 'folder-my-photos' lie" in panels_of(group, tmp_path).notes[0]
    assert data_spec(group, spec) == spec
    group.runs[0].record["command"] = f"alcove surrogate '--dataset=digits,{spec}'"
    assert data_spec(group) == spec


def test_nothing_is_downloaded_for_a_report(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a report asked the network")

    monkeypatch.setattr(download, "retrieve", refuse)
    monkeypatch.setattr(
        DATASETS.get("svhn"), "open", lambda _, root: download.fetch(Archive("https://host/a.mat", None), root, "svhn")
    )
    with pytest.raises(DataUnavailableError, match=r"'svhn' is not in .*: `make embed` does$"):
        open_images("svhn", tmp_path)
