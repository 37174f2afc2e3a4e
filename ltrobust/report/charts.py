"""The charts of a report, each described once from the board; nothing is drawn here.

A panel is one view on the page and one pair of axes in print. Beyond `chart.MANY` methods bars and
lines by class become heat maps, and other lines small multiples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ltrobust.evaluation.concerns import concerns
from ltrobust.report.chart import (
    MANY,
    NONE,
    Axis,
    Chart,
    Counts,
    Ends,
    Heat,
    Panel,
    Series,
    ends,
    values,
)
from ltrobust.report.cost import BUSY, WALL, drawn_costs
from ltrobust.report.estimate import PERCENT, Estimate
from ltrobust.report.groups import Group
from ltrobust.report.marks import FLAG, sign_of
from ltrobust.report.names import attack_title, method_title
from ltrobust.report.ranking import class_attacks
from ltrobust.report.ratios import Family
from ltrobust.report.setting import Curve, Setting
from ltrobust.report.style import CLEAN_MARK, ROBUST_MARK, Mark, marks_for, short
from ltrobust.report.sweeps import Sweep, ratio_sweep, steps_sweep

NAMED_CLASSES = 20
"""Up to so many classes have their names on the axis, markers and error bars."""
_MARKED_EPOCHS = 30
_FEW = 3
"""Up to so many methods are named below a figure."""
_WIDE = 10.0
"""Largest over smallest value from which an axis becomes logarithmic."""
_TIMES = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
_DECIDING = {
    "best": ("held-out training images", "mean of classes under PGD-10"),
    "val": ("held-out training images", "mean of classes under PGD-10"),
    "best-on-test": ("test images", "share of images under PGD-20"),
}
"""By what an epoch is chosen, by `select`: the images, and what is measured on them."""
_DECIDING_UNKNOWN = ("images", "score")


def setting_charts(setting: Setting) -> list[Chart]:
    """All charts of one setting, in reading order; those that nothing is known for are left out."""
    kinds = (balance_chart, class_chart, method_chart, attack_chart)
    more = (training_chart, confusion_chart, cost_chart, steps_chart)
    charts = [describe(setting) for describe in (*kinds, *more)]
    return [chart for chart in charts if chart is not None]


def spanning_charts(
    radii: Sequence[Sweep], families: Sequence[Family]
) -> list[tuple[str, str, Chart]]:
    """Charts that span settings: slug of the setting that shows each, ending of its file, chart."""
    swept = [(family, ratio_sweep(family)) for family in families]
    return [
        *((sweep.home, sweep.group.ending, eps_chart(sweep)) for sweep in radii),
        *((s.home, s.group.ending, ratio_chart(family, s)) for family, s in swept),
    ]


def shown(group: Group, label: str, *attacks: str) -> str:
    """A method's name as written: with a † where a number under one of these is in doubt."""
    return method_title(label) + sign_of(group, label, *attacks)


def balance_chart(setting: Setting) -> Chart | None:
    """Balanced accuracy against balanced robustness: over all classes, and over the tail."""
    robust = setting.robust
    if robust is None or "clean" not in setting.attacks:
        return None
    marks, under = marks_for(setting.labels), attack_title(robust)
    panels = []
    for name, score, what in (
        ("All classes", "balanced_accuracy", "balanced accuracy"),
        ("Tail classes", "tail", "tail accuracy"),
    ):
        points = []
        for label in setting.ranked:
            x, y = (setting.estimate(label, attack, score) for attack in ("clean", robust))
            if x.known and y.known:
                title = shown(setting, label, "clean", robust)
                told = (title, f"Clean {what}: {x.words}", f"Under {under}: {y.words}")
                hover = ((*told, facts(setting, label)),)
                points.append(_point(title, marks[label], x, y, key=label, hover=hover))
        across = Axis(f"clean {what} (%)", brief=f"{what} (%)")
        up = Axis(f"{what} under {under} (%)", brief=f"under {short(under, 20)} (%)")
        panels.append(Panel(name, name, across, up, tuple(points), named=True))
    note = (
        "Up and to the right is better: right on clean images, and still right under "
        f"{under}. {bars_note(setting)}"
    )
    title = "Balanced accuracy against balanced robustness"
    names = [method_title(label) for label in setting.labels]
    beside = len(names) <= 6 and max(map(len, names)) <= 12
    columns, height = (2, 2.6) if beside else (1, 3.3)
    return Chart("balance", title, note, tuple(panels), columns, height)


def class_chart(setting: Setting) -> Chart | None:
    """All methods' classes under clean images, the longest PGD and the strongest attack."""
    if not setting.classes.facts:
        return None
    many = len(setting.labels) > MANY
    panels = []
    for attack in class_attacks(setting.attacks):
        labels = [name for name in setting.ranked if (name, attack) in setting.classes.scored]
        if not labels:
            continue
        title = attack_title(attack)
        names = [shown(setting, label, attack) for label in labels]
        if many:
            cells = [setting.classes.line(label, attack) for label in labels]
            columns = [fact.name for fact in setting.classes.facts]
            heat = _heat(names, columns, cells, "accuracy of a class (%)", largest=PERCENT)
            printed = attack in ("clean", setting.robust)
            panels.append(Panel(title, title, heat=heat, in_print=printed))
        else:
            marks = marks_for(setting.labels)
            lines = tuple(
                _class_line(setting, label, attack, marks[label], name, label)
                for label, name in zip(labels, names, strict=True)
            )
            panels.append(_class_panel(setting, title, lines, in_print=False))
    how = "" if many else "; grey bars are training images on the logarithmic right axis"
    guide = "" if many else " Lines join classes only to guide the eye."
    note = f"Classes from most to least frequent{how}.{guide}"
    name = "per-class" if many else "classes"
    return Chart(name, "Accuracy by class", note, tuple(panels), 1) if panels else None


def method_chart(setting: Setting) -> Chart | None:
    """Clean and robust accuracy by class, a panel a method; None for many, which share a map."""
    if not setting.classes.facts or len(setting.labels) > MANY:
        return None
    panels = [method_panel(setting, label) for label in setting.ranked]
    known = tuple(panel for panel in panels if panel is not None)
    columns = min(len(known), 2 if len(known) <= 6 else 3)
    title = "Accuracy by class and method"
    return Chart("per-class", title, "", known, columns, 1.3, on_screen=False) if known else None


def method_panel(setting: Setting, label: str) -> Panel | None:
    """One method's classes, clean and under the robust attack; None without results."""
    drawn = (("clean", CLEAN_MARK), (setting.robust or "", ROBUST_MARK))
    lines = tuple(
        _class_line(setting, label, attack, mark, attack_title(attack))
        for attack, mark in drawn
        if (label, attack) in setting.classes.scored
    )
    title = shown(setting, label, "clean", setting.robust or "clean")
    return _class_panel(setting, title, lines) if lines else None


def attack_chart(setting: Setting) -> Chart | None:
    """Accuracy under each attack: bars of every method, a heat map of many."""
    attacks = [name for name in setting.attacks if name != "clean"]
    if not attacks:
        return None
    marks = marks_for(setting.labels)
    many = len(setting.labels) > MANY
    titles = tuple(attack_title(attack) for attack in attacks)
    marked = tuple(tuple(sign_of(setting, one, a) for a in attacks) for one in setting.ranked)
    panels = []
    for name, score in (("Balanced", "balanced_accuracy"), ("Image", "accuracy"), ("Tail", "tail")):
        axis = Axis(f"{name.lower()} accuracy (%)")
        printed, across = score == "balanced_accuracy", names_axis(titles)
        rows = [[setting.estimate(one, a, score) for a in attacks] for one in setting.ranked]
        if many:
            names = [method_title(label) for label in setting.ranked]
            heat = _heat(names, titles, rows, axis.title, marked)
            panels.append(Panel(name, "", heat=heat, in_print=printed))
            continue
        bars = []
        for (offset, width), label, cells, signs in zip(
            slot_places(len(rows)), setting.ranked, rows, marked, strict=True
        ):
            texts = tuple(
                (
                    method_title(label) + sign,
                    f"{name} accuracy under {title}: {cell.words}",
                    facts(setting, label),
                    *(f"{FLAG} {c}" for c in setting.checks[label] if concerns(c, attack)),
                )
                for attack, title, cell, sign in zip(attacks, titles, cells, signs, strict=True)
            )
            known = (sign if cell.known else "" for sign, cell in zip(signs, cells, strict=True))
            look: dict[str, Any] = {"kind": "bars", "width": width, "signs": tuple(known)}
            places = [place + offset for place in range(len(attacks))]
            own = method_title(label), marks[label], places, cells, texts
            bars.append(_series(*own, key=label, **look))
        panels.append(Panel(name, "", across, axis, tuple(bars), in_print=printed))
    doubted = any(map(any, marked))
    mark_note = f" {FLAG}: a flagged reliability check puts it in doubt." if doubted else ""
    note = f"Weakest attack on the left. {'' if many else bars_note(setting)}{mark_note}"
    return Chart("attacks", "Accuracy under each attack", note, tuple(panels), 1, 2.4)


def training_chart(setting: Setting) -> Chart | None:
    """Loss and robust accuracy by epoch, a band of one deviation over seeds.

    Where epochs were judged (`select` is not `last`), a third panel has the robust accuracy on the
    images that decide over the faint one of the training, so that overfitting is seen.
    """
    images, measured = _DECIDING.get(str(setting.key["select"]), _DECIDING_UNKNOWN)
    deciding = f"robust accuracy, {images}, {measured} (%)"
    below = (
        "robust accuracy (%): validation, its best epoch marked; training faint\n"
        "(held-out images: mean of classes; test images and training: of images)"
    )
    panels = []
    for name, column, title, axis in (
        ("Robust accuracy", "train_robust_acc", "robust training accuracy (%)", ""),
        ("Loss", "train_loss", "training loss", ""),
        ("Deciding images", "val_robust_acc", below, deciding),
    ):
        lines = _curves(setting, column)
        if lines:
            across, wide = Axis("epoch", whole=True), column == "val_robust_acc"
            panels.append(Panel(name, title, across, Axis(axis or title), lines, wide=wide))
    if not panels:
        return None
    told = (
        f" Deciding images: the {images} that the epoch is chosen by; its accuracy is the "
        f"{measured}, so that its height does not compare with the training's."
    )
    note = (
        "Robust accuracy and loss: on training images, from the training passes themselves; the "
        "accuracy is the share of images. Methods have losses of their own: loss curves compare "
        "shapes, not heights."
        f"{told if any(panel.name == 'Deciding images' for panel in panels) else ''}"
        f"{' Means over seeds.' if setting.several else ''}"
    )
    return Chart("training", "Training curves", note, tuple(panels), 2, 2.3)


def confusion_chart(setting: Setting) -> Chart | None:
    """One heat map a method: rows are true classes, columns predictions, most frequent first."""
    mistakes = setting.mistakes
    if mistakes is None:
        return None
    names = tuple(fact.name for fact in mistakes.classes)
    panels = []
    for label, counts in mistakes.counts.items():
        totals = counts.sum(axis=1, keepdims=True).clip(min=1)
        shares = tuple(map(tuple, (PERCENT * counts / totals).tolist()))
        attack = short(attack_title(mistakes.attack), 14)
        unit = f"images of a class (row) taken for another (column), {attack} (%)"
        title = shown(setting, label, mistakes.attack)
        heat = Heat(names, names, shares, unit, square=True)
        panels.append(Panel(title, title, heat=heat))
    columns = min(len(panels), 2 if len(panels) <= 4 else 3 if len(panels) <= MANY else 5)
    return Chart("confusion", "Confusions", "", tuple(panels), columns, on_screen=False)


def cost_chart(setting: Setting) -> Chart | None:
    """Training time against balanced robustness; who was measured otherwise is named."""
    robust = setting.robust
    seeds = {
        label: len(setting.runs(label))
        for label in setting.labels
        if setting.estimate(label, robust, "balanced_accuracy").known
    }
    drawn, others = drawn_costs(setting.costs, seeds)
    if not drawn or robust is None:
        return None
    longest = max(cost.train_seconds.value for cost in drawn)
    unit, size = next((one for one in _TIMES if longest >= 2 * one[1]), _TIMES[-1])
    marks, under = marks_for(setting.labels), attack_title(robust)
    points = []
    for cost in drawn:
        y, time = setting.estimate(cost.label, robust, "balanced_accuracy"), cost.train_seconds
        scale = PERCENT * size
        x = Estimate(time.value / scale, std=time.std / scale, n_seeds=time.n_seeds)
        title = shown(setting, cost.label, robust)
        told = (title, f"Training: {duration(time.value)}", f"Under {under}: {y.words}")
        hover = ((*told, facts(setting, cost.label), str(cost.conditions)),)
        points.append(_point(title, marks[cost.label], x, y, key=cost.label, hover=hover))
    where = str(drawn[0].conditions)
    foot = [where] if where else []
    note = (
        f"Up and to the left is better. Times are means over seeds. {bars_note(setting)} Measured "
        f"on {where or 'an unknown device'}."
    )
    if drawn[0].conditions.clock == WALL:
        note += BUSY
    if others:
        names = ", ".join(shown(setting, label, robust) for label in others)
        few = names if len(others) <= _FEW else f"{len(others)} methods"
        foot.append(f"measured otherwise, not drawn: {few}")
        note += f" Not drawn, because measured on another device, threads or commit: {names}."
    across = Axis(f"training time ({unit})")
    up = Axis(f"balanced accuracy, {short(under, 14)} (%)")
    panel = Panel("Training time", "", across, up, tuple(points), named=True)
    height = 3.0 if len(points) <= 10 else 4.2
    return Chart("cost", "Cost against robustness", note, (panel,), 1, height, tuple(foot))


def eps_chart(sweep: Sweep) -> Chart:
    """Balanced accuracy against the radius of the attack; eps 0 is without an attack."""

    def axis(attack: str, places: Sequence[float]) -> Axis:
        in_steps = all(abs(255 * x - round(255 * x)) < 1e-4 for x in places)
        if "-l2" in attack:
            return Axis("eps (L2)", tuple((x, f"{x:.3g}") for x in places))
        if in_steps:
            return Axis("eps (1/255)", tuple((x, f"{255 * x:.0f}") for x in places))
        return Axis("eps", tuple((x, f"{x:.3g}") for x in places))

    note = f"eps 0 is without an attack. {bars_note(sweep.group)}"
    return _sweep_chart("eps", "Accuracy by radius", note, sweep, axis)


def steps_chart(setting: Setting) -> Chart | None:
    """Balanced accuracy against the attack's number of steps, logarithmic from a tenfold span."""
    sweep = steps_sweep(setting)

    def axis(_: str, places: Sequence[float]) -> Axis:
        wide = places[-1] > _WIDE * places[0]
        return Axis("number of steps N", tuple((x, f"{x:.0f}") for x in places), log=wide)

    title = "Accuracy by number of steps"
    return _sweep_chart("steps", title, bars_note(setting), sweep, axis) if sweep.lines else None


def ratio_chart(family: Family, sweep: Sweep) -> Chart:
    """Balanced accuracy against the imbalance ratio, without an attack and under the strongest."""
    kind = str(family.together.key["imbalance_type"])
    title = f"imbalance ratio{f' ({kind})' if kind else ''}"

    def axis(_: str, places: Sequence[float]) -> Axis:
        return Axis(title, tuple((x, f"{x:g}") for x in places), log=True)

    note = f"Each ratio is a setting of its own. {bars_note(family.together)}"
    return _sweep_chart("ratios", "Accuracy by imbalance ratio", note, sweep, axis)


# parts --------------------------------------------------------------------------------------------


def _class_line(
    setting: Setting, label: str, attack: str, mark: Mark, name: str, key: str = ""
) -> Series:
    """Accuracy of the classes of one method under one attack."""
    known, cells = setting.classes.facts, setting.classes.line(label, attack)
    few = len(known) <= NAMED_CLASSES
    hover = tuple(
        (
            name,
            f"{fact.name}, {attack_title(attack)}: {cell.words}",
            f"{fact.n_train:,} training images" + (f", {cell.n:,} test images" if cell.n else ""),
        )
        for fact, cell in zip(known, cells, strict=True)
    )
    line = _series(name, mark, range(len(known)), cells, hover, key=key, points=few)
    return line if few else replace(line, y_ends=())


def facts(setting: Setting, label: str) -> str:
    """What a mean must never stand without: test images, of all classes, and seeds."""
    return f"{int(setting.key['n']):,} test images in all, {setting.seed_words(label)}"


def bars_note(group: Group) -> str:
    """What error bars mean."""
    several = {len(group.runs(label)) > 1 for label in group.labels}
    texts = {
        True: "one sample standard deviation over seeds",
        False: "the 95% interval over test images (one seed)",
    }
    return f"Error bars: {' or '.join(texts[kind] for kind in sorted(several, reverse=True))}."


def duration(seconds: float) -> str:
    """Write seconds for people: "45 s", "12 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def slot_places(count: int, room: float = 0.82) -> list[tuple[float, float]]:
    """Offset from the middle and width of bars that stand side by side."""
    width = room / max(count, 1)
    return [((place - (count - 1) / 2) * width, 0.92 * width) for place in range(count)]


def names_axis(names: Sequence[str]) -> Axis:
    """An axis with names at 0, 1, ..."""
    return Axis("", tuple((float(place), name) for place, name in enumerate(names)), names=True)


def _series(
    name: str,
    mark: Mark,
    places: Iterable[float],
    cells: Sequence[Estimate],
    hover: tuple[tuple[str, ...], ...],
    **look: Any,
) -> Series:
    return Series(name, mark, tuple(places), values(cells), ends(cells), hover=hover, **look)


def _point(name: str, mark: Mark, x: Estimate, y: Estimate, **look: Any) -> Series:
    pairs = values([x]), values([y]), ends([y]), ends([x])
    return Series(name, mark, *pairs, kind="points", **look)


def _class_panel(
    setting: Setting, title: str, lines: tuple[Series, ...], in_print: bool = True
) -> Panel:
    known = setting.classes.facts
    names = tuple(fact.name for fact in known)
    few = len(names) <= NAMED_CLASSES
    counts = Counts(names, tuple(float(fact.n_train) for fact in known))
    ranks = tuple((float(n), f"{n + 1}") for n in range(0, len(names), math.ceil(len(names) / 5)))
    across = names_axis(names) if few else Axis("class rank", ranks)
    up = Axis("accuracy (%)", tuple((v, f"{v:g}") for v in (0.0, 50.0, 100.0)), span=(0, 104))
    return Panel(title, title, across, up, lines, counts, in_print=in_print)


def _tenths(value: float) -> float:
    """A percentage as a cell shows it: halves up, whichever side of them the binary number lies."""
    return value if math.isnan(value) else math.floor(10 * value + 0.5 + 1e-6) / 10


def _heat(
    names: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Estimate]],
    unit: str,
    signs: tuple[tuple[str, ...], ...] = (),
    largest: float = 0.0,
) -> Heat:
    """A heat map of estimates, from none to the largest there is, or that is given."""
    hover = tuple(
        tuple(f"{title}: {cell.words}" for title, cell in zip(columns, row, strict=True))
        for row in cells
    )
    shares = tuple(tuple(map(_tenths, values(row))) for row in cells)
    known = (v for row in shares for v in row if not math.isnan(v))
    span = (0.0, largest or max(known, default=0.0) or PERCENT)
    return Heat(tuple(names), tuple(columns), shares, unit, span, hover=hover, signs=signs)


def _curves(setting: Setting, column: str) -> tuple[Series, ...]:
    marks = marks_for(setting.labels)
    lines: list[Series] = []
    for label in setting.ranked:
        curve = setting.curves.get(label)
        if curve is None or not curve.known(column):
            continue
        if column == "val_robust_acc":
            behind = _curve(setting, label, marks[label], curve, "train_robust_acc", faint=True)
            lines += [behind] if curve.known("train_robust_acc") else []
        lines.append(_curve(setting, label, marks[label], curve, column))
        if column == "val_robust_acc":
            lines.append(_best_epoch(lines[-1]))
    return tuple(lines)


def _best_epoch(curve: Series) -> Series:
    """The point of the best epoch, the first of equal ones."""
    known = [place for place, y in enumerate(curve.y) if not math.isnan(y)]
    best = max(known, key=curve.y.__getitem__)
    x, y = curve.x[best], curve.y[best]
    told = ((curve.name, f"Best epoch: {x:g}", f"{y:.2f}%"),)
    return replace(
        curve, x=(x,), y=(y,), y_ends=(), kind="points", hover=told, legend="", band=False
    )


def _curve(
    setting: Setting, label: str, mark: Mark, curve: Curve, column: str, faint: bool = False
) -> Series:
    scale = 1.0 if column == "train_loss" else PERCENT
    means, stds = scale * curve.means[column], scale * curve.stds[column]
    pairs: tuple[Ends, ...] = tuple(
        (float(mean - std), float(mean + std)) if std == std else NONE
        for mean, std in zip(means, stds, strict=True)
    )
    several = any(low == low for low, _ in pairs)
    unit = "" if scale == 1 else "%"
    lines = (method_title(label), f"Epoch {{x}}: {{y}}{unit}", setting.seed_words(label))
    places = tuple(float(epoch) for epoch in curve.epochs)
    return Series(
        method_title(label),
        mark,
        places,
        tuple(float(mean) for mean in means),
        pairs if several and not faint else (),
        key=label,
        hover=(lines,),
        faint=faint,
        band=True,
        points=len(places) <= _MARKED_EPOCHS,
    )


def _sweep_chart(
    name: str,
    title: str,
    note: str,
    sweep: Sweep,
    axis: Callable[[str, Sequence[float]], Axis],
) -> Chart:
    """A panel an attack; `axis` makes that of its name and its places."""
    marks = marks_for(sweep.group.labels)
    panels = []
    for attack, lines in sweep.lines.items():
        across = axis(attack, sorted({x for line in lines.values() for x, _ in line}))
        texts, series = dict(across.ticks), []
        for label, line in lines.items():
            places, cells = zip(*line, strict=True)
            called = shown(sweep.group, label, *sweep.lines)
            told = tuple((called, f"{across.title} {texts[x]}: {cell.words}") for x, cell in line)
            series.append(_series(called, marks[label], places, cells, told, key=label))
        up, of = Axis("balanced accuracy (%)"), attack_title(attack)
        panels.append(Panel(of, short(of, 20), across, up, tuple(series)))
    return Chart(name, title, note, tuple(panels), min(len(panels), 2), 2.3)
