"""Sorts metric rows into groups within which methods may be compared.

Two results are comparable when everything but the defense and the seed agrees: data, split, test
images, perturbation budget, recipe and the settings of every attack they share. This module knows
nothing of tables or figures and never averages.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from ltrobust.errors import UserError
from ltrobust.report.across import (
    SEVERAL,
    across_blocks,
    common_key,
    config_names,
    shown_value,
)

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
_MEASURED = (
    *("seconds", "n_train", "train_seconds", "peak_memory_bytes", "parameters"),
    *("n_class_min", "n_class_max"),
)
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
        rows: the metric rows, one per run and attack, with the extra column `label`: the method's
            name, followed by the run id where one method was run twice with the same seed.
        slug: a file name part, different for each group of one report.
        main: whether its files have plain names; true for one group of a report.
        differing: keys in which the rows differ, in a report that ranks across them.
    """

    key: Mapping[str, Any]
    rows: pd.DataFrame
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
        return sorted(self.rows["attack"].unique(), key=attack_order)

    @cached_property
    def labels(self) -> list[str]:
        """Row labels, in alphabetical order."""
        return sorted(self.records)

    @cached_property
    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Label to its rows as plain values, in their order."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows.to_dict("records"):
            known = {str(name): value for name, value in row.items()}
            found.setdefault(str(known["label"]), []).append(known)
        return found

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Label and attack to its rows, one a run, in the order of their seeds."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for label, rows in self.records.items():
            for row in sorted(rows, key=_by_seed):
                found.setdefault((label, row["attack"]), []).append(row)
        return found

    @cached_property
    def checks(self) -> dict[str, list[str]]:
        """Label to the names of the reliability checks that are flagged for any of its runs."""
        checks: dict[str, dict[str, None]] = {label: {} for label in self.labels}
        for label, text in zip(self.rows["label"], self.rows["reliability"], strict=True):
            if isinstance(text, str) and text:
                checks[label] |= dict.fromkeys(text.split(";"))
        return {label: list(names) for label, names in checks.items()}

    def seeds(self, label: str) -> list[int]:
        """Seeds of one row, in increasing order."""
        return sorted({int(row["seed"]) for row in self.records[label]})

    def runs(self, label: str) -> list[str]:
        """Run ids of one row, in the order of their seeds."""
        rows = sorted(self.records.get(label, ()), key=_by_seed)
        return list(dict.fromkeys(row["run_id"] for row in rows))

    def own(self, label: str) -> dict[str, Any]:
        """The values of one row where rows differ; the same for all its runs."""
        row = self.records[label][0]
        return {name: row[name] for name in self.differing}

    def told(self, label: str) -> dict[str, str]:
        """The same as in a table: title of the column to text."""
        own = self.own(label)
        return {name.replace("_", " "): shown_value(name, own[name]) for name in own}


def _by_seed(row: Mapping[str, Any]) -> tuple[int, str]:
    return int(row["seed"]), row["run_id"]


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
    rows = _checked(metrics)
    keys = [*BASE_KEYS, *MORE_KEYS]
    found = [
        _group(keys, free, part)
        for block, free in across_blocks(rows, keys, across)
        for at_eps in _split(block, "radius", everywhere=True)
        for searched in _split(at_eps, "search", everywhere=False)
        for part in _by_settings(searched)
    ]
    order = (*GROUP_KEYS, "search", *MORE_KEYS)
    found.sort(key=lambda group: [_sort_key(group.key[name]) for name in order])
    return with_slugs(found)


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


def settings_of(settings: str) -> dict[str, Any]:
    """Parse an attack's settings (JSON text) and leave out its seed."""
    known: dict[str, Any] = json.loads(settings)
    return {name: value for name, value in known.items() if name != "seed"}


def compact_json(value: Any) -> str:
    """Write `value` as JSON without blanks, keys sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _checked(metrics: pd.DataFrame) -> pd.DataFrame:
    if metrics.empty:
        raise UserError("nothing to report: metrics has no rows; evaluate at least one run first")
    rows = metrics.reset_index(drop=True)
    told = list(zip(rows["attack_settings"], rows["attack_library"], strict=True))
    known = {text: settings_of(text) for text, _ in set(told)}
    # of an attack of ours the settings' protocol decides, whatever the version
    written = {
        (text, library): compact_json([known[text], "" if _is_ours(library) else library])
        for text, library in set(told)
    }
    return rows.assign(
        **{name: rows[name].astype(float) for name in _MEASURED},
        signature=[written[pair] for pair in told],
        search=[known[text].get("search", "fp32") for text, _ in told],
        radius=rows["eps"].round(9),
    )


def _is_ours(library: str) -> bool:
    return library.partition(" ")[0] == "ltrobust"


def _split(rows: pd.DataFrame, column: str, everywhere: bool) -> Iterator[pd.DataFrame]:
    """Yield the attacked rows of each value of a column, clean rows of their runs included.

    Runs that have clean rows alone join the largest value (fp32 of precisions), or every one.
    """
    clean, attacked = rows[rows["attack"] == "clean"], rows[rows["attack"] != "clean"]
    alone = set(clean["run_id"]) - set(attacked["run_id"])
    if attacked.empty:
        yield clean
    for place, value in enumerate(sorted(attacked[column].unique(), reverse=True)):
        part = attacked[attacked[column] == value]
        wanted = {*part["run_id"], *(alone if everywhere or not place else ())}
        yield pd.concat([clean[clean["run_id"].isin(wanted)], part])


def _by_settings(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows of each combination of settings of the attacks that have several."""
    attacked = rows[rows["attack"] != "clean"]
    kinds = attacked.groupby("attack")["signature"].nunique()
    contested = sorted(kinds.index[kinds > 1])
    if not contested:
        order, _ = pd.factorize(rows["run_id"])  # run after run
        yield rows.iloc[order.argsort(kind="stable")]
        return
    parts: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for _, run in rows.groupby("run_id", sort=False):
        choices = [sorted(set(run.loc[run["attack"] == a, "signature"])) or [""] for a in contested]
        for chosen in itertools.product(*choices):
            wanted = dict(zip(contested, chosen, strict=True))
            keep = run["signature"] == run["attack"].map(wanted)
            parts.setdefault(chosen, []).append(run[keep | ~run["attack"].isin(contested)])
    for chosen in sorted(parts):
        yield pd.concat(parts[chosen])


def _group(keys: Sequence[str], free: Sequence[str], rows: pd.DataFrame) -> Group:
    rows = rows.drop_duplicates(["run_id", "attack", *SCORE_COLUMNS])
    twice = rows[rows.duplicated(["run_id", "attack"])]
    if not twice.empty:
        run_id, attack, attack_id = twice[["run_id", "attack", "attack_id"]].iloc[0]
        raise UserError(
            f"run {run_id} has two different results of attack '{attack}' under the same settings; "
            f"delete those that shall not count, such as attacks/{attack_id}.json"
        )
    cuts = sorted(set(rows["groups"]))
    if len(cuts) > 1:
        raise UserError(
            f"results of one setting cut head, medium and tail differently ({'; '.join(cuts)}); "
            "report each directory again with the same --groups"
        )
    base, differing = common_key(rows, keys, free)
    labels = _labels(rows, differing)
    clean = rows["attack"] == "clean"
    first = (rows if clean.all() else rows[~clean]).iloc[0]
    key = {**base, "eps": float(first["eps"]), "search": first["search"]}
    rows = rows.assign(label=labels, eps=rows["eps"].mask(clean, key["eps"]))
    return Group(key, rows.reset_index(drop=True), differing=differing)


def _labels(rows: pd.DataFrame, differing: Sequence[str]) -> list[str]:
    """One label per row: the method, and what tells its runs apart where seeds do not.

    Runs of one method are averaged only where nothing but their seed differs (`config_id`, and the
    keys that may differ); the rest keep labels of their own.
    """
    if differing:
        cells = rows[["config_id", *differing]].astype(str).to_numpy().tolist()
        rows = rows.assign(config_id=[_digest(compact_json(cell)) for cell in cells])
    names = config_names(rows, differing)
    runs = rows.drop_duplicates("run_id")
    configs = runs.groupby("method")["config_id"].nunique()
    several = set(configs.index[configs > 1])
    twice = runs.duplicated(["method", "config_id", "seed"], keep=False)
    repeated = set(runs.loc[twice, "method"])
    labels = []
    for method, config, run_id in zip(
        rows["method"], rows["config_id"], rows["run_id"], strict=True
    ):
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
    defaults and attacked at the radius it was trained for, then with most results, then with most
    test images, then the first.
    """

    def weight(group: Group) -> tuple[float, ...]:
        rows, key = group.rows, group.key
        return len(group.labels), rows["run_id"].nunique(), _usual(key), len(rows), float(key["n"])

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
    pairs = zip(group.rows["attack"], group.rows["signature"], strict=True)
    return sorted({f"{attack} {signature}" for attack, signature in pairs})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _slug(parts: list[str]) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")


def _sort_key(value: Any) -> tuple[int, float, str]:
    if isinstance(value, str) or pd.isna(value):
        return 1, 0.0, str(value)
    return 0, float(value), ""
