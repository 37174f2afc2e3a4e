"""Examples to look at: which images, and that they are those that the verdicts were taken on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ltrobust
from ltrobust.attacks.suite import attack_spec
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel, Evaluator, TestSet
from ltrobust.evaluation.examples import adversarial_examples, attack_examples, one_a_class

CPU = torch.device("cpu")
EPS = 0.1


@pytest.fixture(scope="module")
def trained() -> ltrobust.TrainedModel:
    return ltrobust.train("pgd-at", epochs=3, imbalance_ratio=2, limit_train=200, device="cpu")


@pytest.fixture(scope="module")
def evaluator(trained: ltrobust.TrainedModel) -> Evaluator:
    data = trained.data
    chosen = torch.arange(0, len(data.test_labels), 5)
    test = TestSet(data.test_images[chosen], data.test_labels[chosen], data.test_index[chosen])
    return Evaluator(trained.model, test, num_classes=10, device=CPU)


def test_the_first_image_of_each_class_is_taken_most_frequent_class_first() -> None:
    labels = torch.tensor([2, 0, 0, 1, 2])
    assert one_a_class(labels, [5, 90, 40]).tolist() == [3, 0, 1]


def test_classes_without_test_images_are_left_out() -> None:
    assert one_a_class(torch.tensor([2, 2]), [5, 90, 40]).tolist() == [0]


def test_of_many_classes_evenly_spaced_ones_are_taken_with_both_ends() -> None:
    counts = list(range(100, 0, -1))
    assert one_a_class(torch.arange(100), counts, most=4).tolist() == [0, 33, 66, 99]
    assert len(one_a_class(torch.arange(100), counts)) == 10


def test_examples_are_the_images_that_the_verdicts_were_taken_on(evaluator: Evaluator) -> None:
    spec = attack_spec("pgd3", EPS)
    verdicts = evaluator.run(spec).pred
    chosen = torch.arange(0, len(verdicts), 2)
    frame = attack_examples(evaluator, spec, chosen)
    assert frame["index"].tolist() == evaluator.test.index[chosen].tolist()
    assert frame["label"].tolist() == evaluator.test.labels[chosen].tolist()
    assert frame["pred_clean"].tolist() == evaluator.clean_predictions()[chosen].tolist()
    right = (frame["pred_clean"] == frame["label"]).to_numpy()
    assert 0 < right.sum() < len(right)
    assert frame["pred_adv"][right].tolist() == verdicts[chosen][torch.tensor(right)].tolist()
    assert (frame["pred_adv"] != frame["pred_clean"])[right].any()


def test_every_image_is_attacked_within_eps_even_a_misclassified_one(evaluator: Evaluator) -> None:
    frame = attack_examples(evaluator, attack_spec("pgd3", EPS), torch.arange(40))
    assert (frame["pred_clean"] != frame["label"]).any()
    for row in frame.to_dict("records"):
        clean, adversarial = row["clean"], row["adversarial"]
        assert (clean.dtype, adversarial.dtype) == (np.uint8, np.float32)
        assert clean.shape == adversarial.shape
        change = np.abs(adversarial - clean / 255).max()
        assert 0.5 * EPS < change <= EPS + 1e-6
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


def test_an_example_does_not_depend_on_the_images_beside_it(evaluator: Evaluator) -> None:
    spec = attack_spec("pgd3", EPS)
    both = attack_examples(evaluator, spec, torch.tensor([4, 9]))
    alone = attack_examples(evaluator, spec, torch.tensor([9]))
    np.testing.assert_allclose(both["adversarial"][1], alone["adversarial"][0], atol=1e-6)


def test_plain_images_get_the_names_of_their_classes(trained: ltrobust.TrainedModel) -> None:
    data = trained.data
    names = [f"digit {number}" for number in range(10)]
    images, labels = data.test_images[:3], data.test_labels[:3]
    frame = adversarial_examples(trained.model, images, labels, names, attack_spec("pgd2", EPS))
    assert frame["class_name"].tolist() == [f"digit {label}" for label in labels.tolist()]
    np.testing.assert_array_equal(np.stack(frame["clean"]), images.numpy())


class Enlarging(nn.Module):
    """A network that wants larger images, as resnet50-224 does."""

    input_size = 12

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def test_a_network_that_enlarges_shows_the_images_as_it_sees_them() -> None:
    model = DefendedModel(Enlarging(), lambda logits: logits)
    images = torch.arange(2 * 64, dtype=torch.uint8).view(2, 1, 8, 8)
    spec = attack_spec("pgd2", EPS)
    frame = adversarial_examples(model, images, torch.tensor([0, 1]), ["a", "b", "c"], spec)
    assert frame["clean"][0].shape == frame["adversarial"][0].shape == (1, 12, 12)
    assert np.abs(frame["adversarial"][1] - frame["clean"][1] / 255).max() <= EPS + 1e-6


@pytest.mark.parametrize("name", ["autoattack", "clean", "cw5", "tpgd2"])
def test_other_attacks_are_refused(evaluator: Evaluator, name: str) -> None:
    with pytest.raises(UserError, match="examples are made with PGD"):
        attack_examples(evaluator, attack_spec(name, EPS), torch.tensor([0]))


def test_float_images_are_refused(trained: ltrobust.TrainedModel) -> None:
    images, labels = torch.rand(1, 1, 8, 8), torch.tensor([0])
    with pytest.raises(UserError, match="need uint8 images"):
        adversarial_examples(trained.model, images, labels, list("abc"), attack_spec("pgd2", EPS))
