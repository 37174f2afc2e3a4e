"""Conformance tests for what else comes from outside, as `check_method` is one for defenses.

Attacks, networks, data sets and metrics. They run on the CPU in seconds, raise AssertionError that
says what is broken, and need no test framework. Whether an attack is strong is not judged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust.attacks.custom import ATTACKS, attacked_images
from ltrobust.attacks.pgd import attack_mode
from ltrobust.data import NATURAL, dataset_spec, load_data
from ltrobust.data.catalog import known_name
from ltrobust.data.opening import open_source
from ltrobust.errors import RunError, UserError
from ltrobust.method import load_builtin_methods
from ltrobust.models import ARCHS, Network, build_model
from ltrobust.models.folded import fold
from ltrobust.plugins import load_plugin
from ltrobust.results.custom import METRICS
from ltrobust.results.digest import Digest

TOLERANCE = 1e-4
"""Difference of logits that another order of sums explains."""
SHAPES = ((1, 8, 2), (3, 32, 10))
"""Channels, side and classes that attacks and networks are tried with."""
LEAKED = 0.01
"""Share of the test images that may stand in the training set too."""


def check_attack(name: str, *, plugin: str | Path | None = None) -> None:
    """Check that a registered attack keeps the contract of `ltrobust.attacks.custom`.

    It must stay within eps and [0, 1], whatever the shape and the number of classes, leave weights,
    images and labels as they were, depend on its generator alone, and change nothing at eps 0.

    Raises:
        AssertionError: it breaks the contract; the message says how.
        UserError: there is no such attack, or the plugin cannot be loaded.
    """
    _load(plugin)
    ATTACKS.get(name)
    for channels, size, classes in SHAPES:
        net = build_model(
            "small-cnn", num_classes=classes, in_channels=channels, image_size=size
        ).eval()
        draw = torch.Generator().manual_seed(0)
        x = torch.rand(5, channels, size, size, generator=draw)
        y = torch.randint(classes, (5,), generator=draw)
        for images in (5, 1):
            _check_attack(name, net, x[:images], y[:images])


def _check_attack(name: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    where = f"attack {name}: images {tuple(x.shape)}"
    before, weights = (x.clone(), y.clone()), [p.clone() for p in net.parameters()]

    def attacked(eps: float, seed: int = 0) -> Tensor:
        torch.manual_seed(seed + 17)  # a stream that it must not draw from
        with torch.no_grad(), attack_mode(net):
            try:
                return attacked_images(name, net, x, y, eps, torch.Generator().manual_seed(0))
            except RunError as error:
                raise AssertionError(f"{where}: {error}") from error

    first = attacked(0.1)
    assert torch.equal(x, before[0]), f"{where}: changes the clean images in place"
    assert torch.equal(y, before[1]), f"{where}: changes the labels in place"
    same = all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))
    assert same, f"{where}: changes the weights"
    assert torch.equal(first, attacked(0.1, seed=1)), f"{where}: draws from a global generator"
    assert torch.equal(attacked(0.0), x), f"{where}: changes images at eps 0"


def check_network(name: str, *, plugin: str | Path | None = None) -> None:
    """Check that a registered network keeps the contract of `ltrobust.models.network.Network`.

    It must build for any channels, size and number of classes, give finite float logits through its
    features and its head, treat each image alone in eval mode, let gradients reach every weight,
    and compute the same with its batch norms folded and after saving and loading.

    Raises:
        AssertionError: it breaks the contract; the message says how.
        UserError: there is no such network, or the plugin cannot be loaded.
    """
    _load(plugin)
    ARCHS.canonical(name.partition(":")[0])
    tried = 0
    for channels, size, classes in SHAPES:
        if size < getattr(ARCHS.get(name.partition(":")[0]), "min_image_size", 8):
            continue
        _check_network(name, channels, size, classes)
        tried += 1
    assert tried, f"network {name}: takes no images of 32 pixels"


def _check_network(name: str, channels: int, size: int, classes: int) -> None:
    where = f"network {name}: {channels} channels, {size} pixels, {classes} classes"
    torch.manual_seed(0)
    made = partial(build_model, name, num_classes=classes, in_channels=channels, image_size=size)
    net = made()
    assert isinstance(net, Network), f"{where}: is no ltrobust.models.Network"
    x = torch.rand(4, channels, size, size)
    logits = net.train()(x)
    assert logits.shape == (4, classes), f"{where}: logits have shape {tuple(logits.shape)}"
    assert logits.dtype == torch.float32, f"{where}: logits are {logits.dtype}"
    assert logits.isfinite().all(), f"{where}: logits are not finite"
    logits.logsumexp(1).sum().backward()
    missed = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missed, f"{where}: no gradient reaches {', '.join(missed)}"
    with torch.no_grad():
        whole = net.eval()(x)
        features = net.features(x)
        assert features.shape == (4, net.feature_dim), f"{where}: features are not (B, feature_dim)"
        assert torch.equal(net.head(features), whole), f"{where}: is not head(features(x))"
        alone = torch.cat([net(image[None]) for image in x])
        assert _near(alone, whole), f"{where}: an image's logits depend on its batch in eval mode"
        folded = fold(net, x)  # None, and a notice, where it cannot be
        assert folded is None or _near(folded(x), whole), f"{where}: is another one when folded"
        copy = made().eval()
        copy.load_state_dict(net.state_dict())
        assert torch.equal(copy(x), whole), f"{where}: its state dict does not hold all of it"


def check_dataset(
    name: str, *, plugin: str | Path | None = None, data_dir: str | Path | None = None
) -> None:
    """Check that a data set from outside keeps the contract of `ltrobust.data.custom`.

    Its spec must tell terms and defaults that fit, and its loader must give the same arrays at each
    call, as they should be, with training and test images of every class that are not the same
    images, and enough of them for the default ratio.

    Args:
        name: the data set.
        plugin: the Python file to load first, if it is not installed.
        data_dir: what its loader is given; default as for `--data-dir`.

    Raises:
        AssertionError: it breaks the contract; the message says how.
        UserError: there is no such data set, or the plugin cannot be loaded.
    """
    _load(plugin)
    where, spec, root = f"data set {name}", dataset_spec(name), Path(data_dir) if data_dir else None
    for key in ("citation", "licence", "defaults"):
        assert getattr(spec.about, key), f"{where}: its spec does not tell about.{key}"
    assert 0 < spec.eps <= 1, f"{where}: eps {spec.eps:g} is in [0, 1] image units, such as 8/255"
    try:
        torch.manual_seed(0)
        np.random.seed(0)
        once = open_source(known_name(name), root, download=False)
        torch.manual_seed(1)
        np.random.seed(1)
        again = open_source(known_name(name), root, download=False)
        assert once.files == again.files, f"{where}: gives other arrays at the second call"
        for ratio in (None, NATURAL):
            data = load_data(name, data_dir=root, imbalance_ratio=ratio)
        channels, size, _ = data.image_shape
        build_model(spec.arch, num_classes=data.num_classes, in_channels=channels, image_size=size)
    except UserError as error:
        raise AssertionError(f"{where}: {error}") from error
    train = {image.numpy().tobytes() for image in data.train_images}
    shared = sum(image.numpy().tobytes() in train for image in data.test_images)
    assert shared <= LEAKED * len(data.test_images), (
        f"{where}: {shared} of {len(data.test_images)} test images are training images too"
    )


def check_metric(name: str, *, plugin: str | Path | None = None) -> None:
    """Check that a metric from outside keeps the contract of `ltrobust.results.custom`.

    It must stay in its range for any outcomes, classes without test images and perfect ones among
    them, give the same number for the same counts, leave them alone, and call a model that is
    always right at least as good as one that never is. Its docstring says what it is.

    Raises:
        AssertionError: it breaks the contract; the message says how.
        UserError: there is no such metric, or the plugin cannot be loaded.
    """
    _load(plugin)
    metric = METRICS.get(name)
    assert metric.load.__doc__, f"metric {name}: its docstring must say what it is, for captions"
    draw = np.random.default_rng(0)
    for classes in (2, 10):
        counts = [max(1, 500 >> c) for c in range(classes)]
        found = {}
        for share in (0.0, 0.2, 0.7, 1.0):
            for fewest in (0, 1):
                digest = _digest(draw, classes, share, fewest)
                before, given = digest.model_copy(deep=True), list(counts)
                try:
                    value = metric.of(digest, given)
                    same = metric.of(before.model_copy(deep=True), list(counts))
                except UserError as error:
                    raise AssertionError(f"{classes} classes: {error}") from error
                assert (digest, given) == (before, counts), f"metric {name}: changes its counts"
                assert np.array_equal(value, same, equal_nan=True), (
                    f"metric {name}: gives {value:g} and then {same:g} for the same counts"
                )
                found[share] = value
        wrong = found[0.0] > found[1.0] if metric.better == "more" else found[0.0] < found[1.0]
        assert not wrong, (
            f"metric {name}: {metric.better} is better, but it gives {found[1.0]:g} where all "
            f"images are right and {found[0.0]:g} where none is"
        )


def _digest(draw: np.random.Generator, classes: int, share: float, fewest: int) -> Digest:
    """Random outcomes, of which about a share is right; the last class has `fewest` images."""
    tested = [*draw.integers(1, 40, classes - 1).tolist(), fewest]
    right = [int(draw.binomial(n, share)) for n in tested]
    predictions = []
    for c, (n, r) in enumerate(zip(tested, right, strict=True)):
        wrong = [p for p in range(classes) if p != c]
        counts = draw.multinomial(n - r, [1 / len(wrong)] * len(wrong)).tolist()
        told = {c: r} | dict(zip(wrong, counts, strict=True))
        predictions.append({str(p): count for p, count in told.items() if count})
    return Digest(right=right, predictions=predictions, natural=sum(tested) - sum(right))


def _near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * max(1.0, float(other.abs().max())))


def _load(plugin: str | Path | None) -> None:
    load_builtin_methods()
    if plugin is not None:
        load_plugin(Path(plugin))
