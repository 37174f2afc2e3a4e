"""Sorts metric rows into groups within which methods may be compared.

Two results are comparable when everything but the defense and the seed agrees: data, split, test
images, perturbation budget, recipe and the settings of every attack they share. This module knows
nothing of tables or figures; a group averages over seeds, and over nothing else.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from ltrobust.errors import UserError
from ltrobust.report.across import SEVERAL, across_blocks, common_key, config_names, shown_value
from ltrobust.report.estimate import Estimate, Quantity, over_seeds
from ltrobust.report.rows import Row, alike, by_seed, compact_json, read_rows
from ltrobust.results.custom import own_metrics

BASE_KEYS = (
    *("dataset", "imbalance_ratio", "test_protocol", "arch", "recipe", "select", "augment"),
    *("epochs", "precision", "batch_size", "train_eps", "split_seed", "split_sha256", "n"),
)
GROUP_KEYS = (*BASE_KEYS, "eps")
MORE_KEYS = ("recipe_changes", "imbalance_type", "test_sha256", "data_fingerprint")
"""More of them; they stand at the end where keys are columns."""
SCORE_COLUMNS = ("accuracy", "balanced_accuracy", "head", "medium", "tail", "worst_class")
MORE_SCORES = ("robust_gap", "natural_error", "boundary_error")
"""Scores of which less is better, or neither."""
SCORES = (*SCORE_COLUMNS, *MORE_SCORES)
INTERVALS = {
    "accuracy": ("acc_ci_low", "acc_ci_high"),
    "balanced_accuracy": ("ci_low", "ci_high"),
    **{name: (f"{name}_ci_low", f"{name}_ci_high") for name in ("head", "medium", "tail")},
    "worst_class": ("worst_class_ci_low", "worst_class_ci_high"),
}
"""Score to the columns of its 95% interval over test images."""
_FAMILIES = (
    *("clean", "noise", "fgsm", "pgd", "mim", "cw", "lsa", "dlr", "tpgd", ""),
    *("aa-rand", "aa-apgd", "autoattack"),
)
_BASE_TOKENS = 4
"""Data set, imbalance, architecture and recipe: what is in every group's name."""
_ATTACK = re.compile(
    rf"({'|'.join(name for name in _FAMILIES if name)})(\d*)(?:[ax]\d.*)?(?:-l2)?(?:@.*)?"
)


@dataclass(frozen=True, eq=False)
class Group:
    """Results that may stand in one table.

    Attributes:
        key: the value of each of `GROUP_KEYS` and `MORE_KEYS`, `SEVERAL` where the rows differ,
            and `search`: the precision in which adversarial images were looked for.
        rows: the metric rows, one per run and attack, with `label`: the method's name, followed by
            the run id where one method was run twice with the same seed.
        slug: a file name part, different for each group of one report.
        main: whether its files have plain names; true for one group of a report.
        differing: keys in which the rows differ, in a report that ranks across them.
    """

    key: Mapping[str, Any]
    rows: Sequence[Row]
    slug: str = ""
    main: bool = True
    differing: tuple[str, ...] = ()

    @property
    def ending(self) -> str:
        """What stands behind the names of its files."""
        return "" if self.main else f"-{self.slug}"

    @cached_property
    def attacks(self) -> list[str]:
        """Names of the attacks that any run has, weakest family first, AutoAttack last."""
        return sorted({row["attack"] for row in self.rows}, key=attack_order)

    @property
    def autoattack(self) -> str | None:
        """AutoAttack's name here, where any run has it."""
        return next((name for name in self.attacks if attack_family(name) == "autoattack"), None)

    @cached_property
    def run_ids(self) -> frozenset[str]:
        """Ids of all runs."""
        return frozenset(row["run_id"] for row in self.rows)

    @property
    def shown_attacks(self) -> list[str]:
        """Names of the attacks that its tables tell of."""
        return self.attacks

    @cached_property
    def labels(self) -> list[str]:
        """Row labels, in alphabetical order."""
        return sorted(self.records)

    @cached_property
    def records(self) -> dict[str, list[Row]]:
        """Label to its rows, in their order."""
        return {label: rows for (label,), rows in alike(self.rows, "label").items()}

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Row]]:
        """Label and attack to its rows, one a run, in the order of their seeds."""
        return alike(sorted(self.rows, key=by_seed), "label", "attack")

    @cached_property
    def checks(self) -> dict[str, list[str]]:
        """Label to the names of the reliability checks that are flagged for any of its runs."""
        found: dict[str, dict[str, None]] = {label: {} for label in self.labels}
        for row in self.rows:
            if isinstance(row["reliability"], str) and row["reliability"]:
                found[row["label"]] |= dict.fromkeys(row["reliability"].split(";"))
        return {label: list(names) for label, names in found.items()}

    @cached_property
    def estimates(self) -> dict[tuple[str, str, str], Estimate]:
        """Every score over seeds, by label, attack and score; every combination is there.

        Robust error, natural and boundary error together, is what accuracy leaves to 1.
        """
        found: dict[tuple[str, str, str], Estimate] = {}
        images = int(self.key["n"])
        own = {metric.column: metric for metric in own_metrics()}
        for label, attack in itertools.product(self.labels, self.attacks):
            by_run = {row["run_id"]: row for row in self.cells.get((label, attack), ())}
            rows = [by_run.get(run, {}) for run in self.runs(label)]
            for score in (*SCORES, *own):
                columns = INTERVALS.get(score, ("", ""))
                low, high = (float(rows[0].get(name, math.nan)) for name in columns)
                values = [row.get(score, math.nan) for row in rows]
                found[label, attack, score] = over_seeds(values, low, high, images)
            right = found[label, attack, "accuracy"]
            wrong = Estimate(1 - right.value, std=right.std, n_seeds=right.n_seeds)
            found[label, attack, "robust_error"] = wrong
            for score in (name for name, metric in own.items() if not metric.share):
                one = found[label, attack, score]
                found[label, attack, score] = Quantity(one.value, std=one.std, n_seeds=one.n_seeds)
        return found

    @cached_property
    def _runs(self) -> dict[str, list[str]]:
        found: dict[str, dict[str, None]] = {}
        for row in sorted(self.rows, key=by_seed):
            found.setdefault(row["label"], {})[row["run_id"]] = None
        return {label: list(runs) for label, runs in found.items()}

    def runs(self, label: str) -> list[str]:
        """Run ids of one row, in the order of their seeds."""
        return self._runs.get(label, [])

    def seeds(self, label: str) -> list[int]:
        """Seeds of one row, in increasing order."""
        return sorted({int(row["seed"]) for row in self.records[label]})

    def seed_words(self, label: str) -> str:
        """The same for a reader: "seed 0", "seeds 0, 1"."""
        seeds = self.seeds(label)
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"

    @property
    def several(self) -> bool:
        """Whether any row has several seeds."""
        return any(len(runs) > 1 for runs in self._runs.values())

    def own(self, label: str) -> dict[str, Any]:
        """The values of one row where rows differ; the same for all its runs."""
        row = self.records[label][0]
        return {name: row[name] for name in self.differing}

    def told(self, label: str) -> dict[str, str]:
        """The same as in a table: title of the column to text."""
        own = self.own(label)
        return {name.replace("_", " "): shown_value(name, own[name]) for name in own}


def comparable_groups(metrics: pd.DataFrame, across: Sequence[str] = ()) -> list[Group]:
    """Split metric rows into groups of comparable results, in a fixed order.

    Clean rows join every eps group of their run; a run with clean rows alone joins all eps groups
    of its setting, so that its missing attacks show. Where one attack was run with several settings
    or library versions, each combination is a group of its own. A single attack seed is no setting,
    the worst case over several (`seeds`) is, and never stands beside single ones. Changed values of
    a recipe (`recipe_changes`) make another recipe.

    Args:
        metrics: rows of metrics.csv, one per run and attack.
        across: what results of one group may differ in, from `parse_across`.

    Raises:
        UserError: no rows, two different results for one run and attack, or results of one setting
            whose head, medium and tail are cut differently.
    """
    if metrics.empty:
        raise UserError("nothing to report: metrics has no rows; evaluate at least one run first")
    keys = [*BASE_KEYS, *MORE_KEYS]
    found = [
        _group(keys, free, part)
        for block, free in across_blocks(read_rows(metrics), keys, across)
        for at_eps in _split(block, "radius", everywhere=True)
        for searched in _split(at_eps, "search", everywhere=False)
        for part in _by_settings(searched)
    ]
    order = (*GROUP_KEYS, "search", *MORE_KEYS)
    found.sort(key=lambda group: [_sort_key(_place(group, name)) for name in order])
    return with_slugs(found)


def fewer_images(groups: Sequence[Group]) -> dict[str, str]:
    """Where AutoAttack was made on a part of the test images alone: its group beside which others.

    Returns:
        Slug of a group without AutoAttack to that of a group that has it, fewer images and no other
        runs, and agrees in all other keys and in the settings of the attacks that both have; of
        several to that with most runs, then with most images.
    """
    alike: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        shared = (str(v) for name, v in group.key.items() if name not in ("n", "test_sha256"))
        alike.setdefault(tuple(shared), []).append(group)
    found = {}
    for block in alike.values():
        dear = [one for one in block if one.autoattack]
        for group in block:
            fitting = [one for one in dear if _stands_beside(one, group)]
            if fitting and not group.autoattack:
                best = max(fitting, key=lambda one: (len(one.run_ids), int(one.key["n"])))
                found[group.slug] = best.slug
    return found


def _stands_beside(fewer: Group, group: Group) -> bool:
    own = {row["attack"]: row["signature"] for row in group.rows if row["attack"] != "clean"}
    return (
        fewer.key["n"] < group.key["n"]
        and fewer.run_ids <= group.run_ids
        and all(own.get(row["attack"], row["signature"]) == row["signature"] for row in fewer.rows)
    )


def attack_order(name: str) -> tuple[int, int, str]:
    """Sort key of an attack's name: clean, the single attacks, others, AutoAttack last."""
    match = _ATTACK.fullmatch(name)
    family, steps = match.groups() if match else ("", "")
    return _FAMILIES.index(family), int(steps or 0), name


def attack_family(name: str) -> str:
    """Which attack a name is of, whatever its steps, restarts and norm; "" where none is known."""
    match = _ATTACK.fullmatch(name)
    return match[1] if match else ""


def imbalance(key: Mapping[str, Any]) -> str:
    """Write how the classes were made unequal, such as "imbalance ratio 50 (step)"."""
    kind = f" ({key['imbalance_type']})" if key["imbalance_type"] else ""
    return f"imbalance ratio {key['imbalance_ratio']:g}{kind}"


def format_eps(eps: float) -> str:
    """Write a perturbation budget as k/255 where it is one ("8/255"), else as a short decimal."""
    steps = eps * 255
    if eps > 0 and abs(steps - round(steps)) < 1e-4:
        return f"{round(steps)}/255"
    return f"{eps:.6g}"


def _split(rows: Sequence[Row], column: str, everywhere: bool) -> Iterator[list[Row]]:
    """Yield the attacked rows of each value of a column, clean rows of their runs included.

    Runs that have clean rows alone join the largest value (fp32 of precisions), or every one.
    """
    clean = [row for row in rows if row["attack"] == "clean"]
    values = alike([row for row in rows if row["attack"] != "clean"], column)
    if not values:
        yield clean
    attacked = {row["run_id"] for part in values.values() for row in part}
    alone = {row["run_id"] for row in clean} - attacked
    for place, value in enumerate(sorted(values, reverse=True)):
        wanted = {row["run_id"] for row in values[value]}
        wanted |= alone if everywhere or not place else set()
        yield [*(row for row in clean if row["run_id"] in wanted), *values[value]]


def _by_settings(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each combination of settings of the attacks that have several."""
    kinds = {(row["attack"], row["signature"]) for row in rows if row["attack"] != "clean"}
    counts = Counter(attack for attack, _ in kinds)
    contested = sorted(attack for attack, count in counts.items() if count > 1)
    parts: dict[tuple[str, ...], list[Row]] = {}
    for run in alike(rows, "run_id").values():
        there = [{row["signature"] for row in run if row["attack"] == one} for one in contested]
        for chosen in itertools.product(*(sorted(own) or [""] for own in there)):
            wanted = dict(zip(contested, chosen, strict=True))
            fits = [row for row in run if wanted.get(row["attack"]) in (None, row["signature"])]
            parts.setdefault(chosen, []).extend(fits)
    for chosen in sorted(parts):
        yield parts[chosen]


def _group(keys: Sequence[str], free: Sequence[str], rows: Sequence[Row]) -> Group:
    rows = [same[0] for same in alike(rows, "run_id", "attack", *SCORE_COLUMNS).values()]
    for (run_id, attack), found in alike(rows, "run_id", "attack").items():
        if len(found) > 1:
            raise UserError(
                f"run {run_id} has two different results of attack '{attack}' under the same "
                f"settings; delete those that shall not count, such as "
                f"attacks/{found[1]['attack_id']}.json"
            )
    cuts = sorted({row["groups"] for row in rows})
    if len(cuts) > 1:
        raise UserError(
            f"results of one setting cut head, medium and tail differently ({'; '.join(cuts)}); "
            "report each directory again with the same --groups"
        )
    base, differing = common_key(rows, keys, free)
    first = next((row for row in rows if row["attack"] != "clean"), rows[0])
    key = {**base, "eps": float(first["eps"]), "search": first["search"]}
    labelled = [
        {**row, "label": label, "eps": key["eps"] if row["attack"] == "clean" else row["eps"]}
        for row, label in zip(rows, _labels(rows, differing), strict=True)
    ]
    return Group(key, labelled, differing=differing)


def _labels(rows: Sequence[Row], differing: Sequence[str]) -> list[str]:
    """One label per row: the method, and what tells its runs apart where seeds do not.

    Runs of one method are averaged only where nothing but their seed differs (`config_id`, and the
    keys that may differ); the rest keep labels of their own.
    """
    if differing:
        told = ([str(row[name]) for name in ("config_id", *differing)] for row in rows)
        ids = (_digest(compact_json(cell)) for cell in told)
        rows = [{**row, "config_id": one} for row, one in zip(rows, ids, strict=True)]
    names = config_names(rows, differing)
    runs = [own[0] for own in alike(rows, "run_id").values()]
    configs = alike(runs, "method", "config_id")
    several = {method for method, n in Counter(method for method, _ in configs).items() if n > 1}
    same = alike(runs, "method", "config_id", "seed").items()
    repeated = {method for (method, *_), own in same if len(own) > 1}
    labels = []
    for row in rows:
        method, config, run_id = row["method"], row["config_id"], row["run_id"]
        if method in repeated:
            labels.append(f"{method} ({run_id.rpartition('-')[2][:8]})")
        elif method in several:
            labels.append(f"{method} ({names.get((method, config), config[:6])})")
        else:
            labels.append(str(method))
    return labels


def main_group(groups: Sequence[Group]) -> Group:
    """The setting whose files keep the plain names, however many others join it.

    That with most methods; of equals that with most runs, then the one nearest to the data set's
    defaults and attacked at the radius it was trained for, then with most test images, then with
    most results, then the first.
    """

    def weight(group: Group) -> tuple[float, ...]:
        runs = len({row["run_id"] for row in group.rows})
        return len(group.labels), runs, _usual(group.key), float(group.key["n"]), len(group.rows)

    return groups[0] if len(groups) == 1 else max(groups, key=weight)  # of equals the first


def _usual(key: Mapping[str, Any]) -> int:
    """In how many settings a group is as its data set has it by default."""
    from ltrobust.data import dataset_spec  # imports torch, which a single group does without

    usual = {
        "test_protocol": "balanced",
        "search": "fp32",
        "recipe": "unified",
        "recipe_changes": "",
        "select": "last",
        "augment": "none",
        "split_seed": 0,
    }
    facts = [
        *(key[name] == value for name, value in usual.items()),
        key["imbalance_type"] != "step",
        key["train_eps"] != SEVERAL and math.isclose(key["eps"], key["train_eps"]),
    ]
    try:
        spec = dataset_spec(str(key["dataset"]))
    except UserError:
        return sum(facts)
    facts += [math.isclose(key["eps"], spec.eps), key["imbalance_ratio"] == spec.imbalance_ratio]
    return sum([*facts, key["arch"] == spec.arch, key["epochs"] == spec.epochs])


def with_slugs(groups: Sequence[Group]) -> list[Group]:
    """Name the groups of one report: what they are, and in what they differ from the main one.

    Data set, imbalance, architecture and recipe are in every name; behind them stands in what a
    group differs from the main one of these. So names stay when others join. `Group.main` tells
    the main group of all.
    """
    bases = [_slug([*_tokens(group.key).values()][:_BASE_TOKENS]) for group in groups]
    alike: dict[str, list[Group]] = {}
    for group, base in zip(groups, bases, strict=True):
        alike.setdefault(base, []).append(group)
    mains = {base: main_group(own) for base, own in alike.items()}
    rivals = [mains[base] for base in bases]
    best = main_group(groups) if len(mains) > 1 else next(iter(rivals), None)
    names = []
    for group, base, rival in zip(groups, bases, rivals, strict=True):
        usual, own = _tokens(rival.key), [*_tokens(group.key).items()][_BASE_TOKENS:]
        names.append(_slug([base, *(token for name, token in own if token != usual[name])]))
    wanted = Counter(names)
    named: list[Group] = []
    taken: set[str] = set()
    for group, name, rival in zip(groups, names, rivals, strict=True):
        if group is not rival and wanted[name] > 1:
            attacks = sorted({*signatures(group)} - {*signatures(rival)}) or signatures(group)
            name = f"{name}-attacks-{_digest(compact_json(attacks))}"
        if name in taken:
            name = f"{name}-{_digest(compact_json([str(group.key), *signatures(group)]))}"
        taken.add(name)
        named.append(replace(group, slug=name, main=group is best))
    return named


def _tokens(key: Mapping[str, Any]) -> dict[str, str]:
    ratio = "" if math.isnan(key["imbalance_ratio"]) else f"ir{key['imbalance_ratio']:g}"
    kind = key["imbalance_type"].replace("exp", "")  # the usual one is not named
    tokens = {
        "dataset": str(key["dataset"]),
        "imbalance_ratio": "-".join(part for part in (ratio, kind) if part),
        "arch": str(key["arch"]),
        "recipe": str(key["recipe"]),
        "test_protocol": str(key["test_protocol"]),
        "select": f"select-{key['select']}",
        "augment": f"augment-{key['augment']}",
        "epochs": f"epochs{key['epochs']}",
        "precision": str(key["precision"]),
        "batch_size": f"batch{key['batch_size']}",
        "train_eps": f"train-eps{_eps_token(key['train_eps'])}",
        "split_seed": f"split{key['split_seed']}",
        "split_sha256": f"sha{str(key['split_sha256'])[:8]}",
        "n": f"n{key['n']}",
        "eps": f"eps{_eps_token(key['eps'])}",
        "search": f"search-{key['search']}",
        "recipe_changes": str(key["recipe_changes"]) or "as-it-is",
        "test_sha256": f"images{str(key['test_sha256'])[:8]}",
        "data_fingerprint": f"data{str(key['data_fingerprint'])[:8]}",
    }
    several = {name: f"any-{name}" for name, value in key.items() if value is SEVERAL}
    return {**tokens, **several}


def _eps_token(eps: Any) -> str:
    return str(eps) if isinstance(eps, str) else format_eps(float(eps)).replace("/", "of")


def signatures(group: Group) -> list[str]:
    """What was run: every attack with its settings and, where it is not ours, its library."""
    return sorted({f"{row['attack']} {row['signature']}" for row in group.rows})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _slug(parts: list[str]) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")


def _place(group: Group, name: str) -> Any:
    """What groups are ordered by: with more test images before fewer."""
    return -group.key["n"] if name == "n" else group.key[name]


def _sort_key(value: Any) -> tuple[int, float, str]:
    if isinstance(value, str) or pd.isna(value):
        return 1, 0.0, str(value)
    return 0, float(value), ""
