"""The stored examples of a run: made once, with its first PGD attack.

They come last in an evaluation and change no outcome. How an image is attacked is
`evaluation.examples`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence

from ltrobust.config import AttackSpec
from ltrobust.evaluation.evaluate import Evaluator
from ltrobust.evaluation.examples import attack_examples, is_example_attack, one_a_class
from ltrobust.results.store import RunStore


def lacks_examples(store: RunStore, sha: str) -> bool:
    """Whether a run was attacked with PGD on these test images and has no examples yet."""
    return not store.has_examples and _first_pgd(store, sha) is not None


def keep_examples(
    evaluator: Evaluator, store: RunStore, sha: str, train_counts: Sequence[int]
) -> None:
    """Make and store a run's examples, unless it has some or was never attacked with PGD.

    Args:
        evaluator: the run's model on its test images.
        store: the run.
        sha: tells the evaluator's test images.
        train_counts: training images of each class.
    """
    if store.has_examples:
        return
    spec = _first_pgd(store, sha)
    if spec is not None:
        chosen = one_a_class(evaluator.test.labels, train_counts)
        store.write_examples(attack_examples(evaluator, spec, chosen))


def _first_pgd(store: RunStore, sha: str) -> AttackSpec | None:
    """The first PGD attack that was made on a run with these test images."""
    for made in store.attacks().values():
        if made.test_sha256 == sha and is_example_attack(made.attack):
            return AttackSpec(name=made.attack, library=made.library, **made.settings)
    return None
