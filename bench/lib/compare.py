# SPDX-License-Identifier: BSD-3-Clause
"""Engine and peers in one run: short trials in turn (A B C D, D C B A, ...), ratios within each turn, medians with their
bootstrap interval. A trial that was disturbed is run again; a figure that lacks undisturbed trials is refused."""
import itertools
import shlex
import sys

from . import results, stats, targets
from .processes import BenchError
from .progress import table
from .session import Session

ENOUGH = 2 / 3  # of the wanted samples


class Samples:
    """A device's trials of one scenario, one a turn; None where none counted."""

    def __init__(self):
        self.trials, self.disturbed, self.last_objection = [], 0, ""

    def good(self):
        return sum(1 for trial in self.trials if trial is not None)

    def of(self, metric):
        return [trial.values.get(metric) if trial is not None else None for trial in self.trials]


def take_turns(session, scenario, names, options, progress):
    """Turns until every device has as many undisturbed trials as are wanted, or the turns are used up."""
    limit = session.generator_limit(scenario)
    for name in names:
        session.ramp(name, scenario)
    taken = {name: Samples() for name in names}
    for turn in range(options.pairs + options.more_turns):
        if min(samples.good() for samples in taken.values()) >= options.pairs:
            break
        for name in names if turn % 2 == 0 else reversed(names):
            progress.now(f"{scenario.name}: turn {turn + 1} ({min(samples.good() for samples in taken.values())} of {options.pairs} good), {name}")
            trial = session.trial(name, scenario, options.seconds, options.warmup, limit)
            if trial.objection and not options.accept_noise:
                taken[name].disturbed += 1
                taken[name].last_objection = trial.objection
                trial = None
            taken[name].trials.append(trial)
    return taken, limit


def common(values):
    """The most frequent one, with how often when it was not always."""
    counts = {value: sum(1 for other in values if other == value) for value in values}
    if not counts:
        return None
    value = max(counts, key=counts.get)
    return value if counts[value] == len(values) else f"{value} ({counts[value]} of {len(values)})"


def worst_noise(trials):
    seen = [trial.noise for trial in trials if trial is not None]
    keys = ("steal", "taken", "switches_per_second", "waits_per_second")
    return {key: max((noise[key] for noise in seen if noise[key] is not None), default=None) for key in keys} if seen else None


def summary(samples):
    good = [sample for sample in samples if sample is not None]
    if not good:
        return None, None
    return stats.median(good), [round(value, 4) for value in stats.bootstrap_interval(good)]


def refusal(taken, metric, wanted):
    good = sum(1 for value in taken.of(metric) if value is not None)
    if good >= ENOUGH * wanted:
        return None
    if taken.disturbed:
        return f"only {good} of {wanted} trials were undisturbed; the last that was not: {taken.last_objection}"
    return f"only {good} of {wanted} trials have this figure"


def result_lines(session, scenario, taken, limit, options):
    """One line a metric for the engine alone, and one for each peer."""
    lines = []
    for metric, unit, smaller in scenario.metrics:
        subject = taken.get("engine")
        for name, samples in taken.items():
            own = samples.of(metric)
            value, spread = summary(own)
            refused = refusal(samples, metric, options.pairs)
            about = {"command": next((trial.command for trial in samples.trials if trial is not None), ""),
                     "bottleneck": common([trial.bottleneck for trial in samples.trials if trial is not None]),
                     "noise": worst_noise(samples.trials), "samples": sum(1 for v in own if v is not None),
                     "device": session.devices[name].describe(), "generator_limit": limit, "pairs": options.pairs,
                     "busy_share": summary([trial.details.get("busy_share") for trial in samples.trials if trial is not None])[0],
                     "disturbed": samples.disturbed, "run": shlex.join(sys.argv), "noise_accepted": bool(options.accept_noise)}
            full = f"{scenario.name}/{metric}"
            if name == "engine":
                lines.append(results.line(full, unit, value, spread=spread, refused=refused, **about))
                continue
            ratios = stats.paired_ratios(subject.of(metric), own, smaller) if subject else []
            engine_value, engine_spread = summary(subject.of(metric)) if subject else (None, None)
            refused = refused or (refusal(subject, metric, options.pairs) if subject else None)
            low, high = stats.bootstrap_interval(ratios) if ratios else (None, None)
            lines.append(results.line(
                full, unit, engine_value, spread=engine_spread, peer=name, refused=refused,
                ratio=stats.median(ratios) if ratios else None, ratio_low=low, ratio_high=high,
                peer_value=None if refused else value, peer_spread=None if refused else spread, **about))
    return lines


def show(lines):
    def number(value):
        return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    rows = []
    for line in lines:
        refused = line["refused"]
        value = line["peer_value"] if line["peer"] else line["value"]
        spread = line.get("peer_spread") if line["peer"] else line["spread"]
        rows.append((line["name"], line["peer"] or "engine", number(value),
                     f"{number(spread[0])}..{number(spread[1])}" if spread else "-", line["unit"],
                     f"{line['ratio']:.2f} [{line['ratio_low']:.2f}, {line['ratio_high']:.2f}]" if line["ratio"] else "",
                     line["bottleneck"] or ""))
        if refused:
            rows.append((f"  refused: {refused}", "", "", "", "", "", ""))
    head = ("what", "device", "value", "95 %", "unit", "engine better by", "limited by")
    wide = [row for row in rows if not row[0].startswith("  refused")]
    text = table(wide, head).splitlines() if wide else []
    notes = {line["refused"] for line in lines if line["refused"]}
    return "\n".join(text + [f"refused: {note}" for note in sorted(notes)])


def held_against_targets(lines, wanted):
    """(table of the lines that have a target, whether a must is missed)."""
    rows, missed = [], False
    for line in lines:
        target = targets.of(line, wanted)
        if target is None:
            continue
        figure, verdict = targets.verdict(line, target)
        missed = missed or verdict in ("missed", "absent")
        rows.append((target["what"], line["name"].split("/")[1], "-" if figure is None else f"{figure:.2f}", f"{target['must']:g}",
                     f"{target['aim']:g}", verdict))
    return table(rows, ("what", "links", "lower end", "must", "aim", "reached")) if rows else "", missed


def compare(scenarios, names, options, settings, progress):
    """Runs everything, writes each scenario's lines as soon as they are there. Returns all lines."""
    everything = []
    for kind, group in itertools.groupby(scenarios, key=lambda scenario: scenario.links):
        try:
            with Session(kind, names, settings, progress.say) as session:
                for scenario in group:
                    progress.say(scenario.name)
                    taken, limit = take_turns(session, scenario, names, options, progress)
                    lines = result_lines(session, scenario, taken, limit, options)
                    path = results.append(options.kind, lines, options.results)
                    everything += lines
                    print(show(lines), flush=True)
                    progress.say(f"written to {path}")
        except BenchError as trouble:
            progress.say(f"{kind}: {trouble}")
            everything.append(results.line(f"peers/{kind}", "", None, refused=str(trouble)))
            results.append(options.kind, everything[-1:], options.results)
    return everything
