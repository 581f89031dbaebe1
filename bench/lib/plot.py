# SPDX-License-Identifier: BSD-3-Clause
"""SVG plots of the results, for docs/performance.md: peers side by side with their intervals, cycles against flows, and
the in-process figures beside what they must be and aim at. Of each figure the newest line that was not refused, all of one machine."""
import re

from . import results, targets
from .links import KINDS
from .processes import BenchError

COLOURS = {"engine": "#0b6e4f", "testpmd-io": "#9aa5b1", "testpmd-macswap": "#c3cad2", "ovs-dpdk": "#d1495b"}
NAMES = {"engine": "Trunkline", "testpmd-io": "testpmd io", "testpmd-macswap": "testpmd macswap", "ovs-dpdk": "OVS-DPDK, ct"}
INK, FAINT = "#1f2933", "#e4e7eb"


def _matplotlib():
    try:
        import matplotlib
    except ImportError:
        raise BenchError("plots need matplotlib: Debian's python3-matplotlib; ./dev bench plot installs it") from None
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "svg.fonttype": "path",
        "svg.hashsalt": "trunkline", "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": FAINT, "axes.axisbelow": True, "legend.frameon": False, "figure.figsize": (7.2, 3.6)})
    return plt


def newest(lines, commit=None):
    """{(name, peer): line}; refused lines count for nothing. All of the machine of the newest: cycles of two stand beside each other in no plot."""
    lines = [line for line in lines if line["value"] is not None and line["machine"]["tsc_hz"] and (commit is None or line["commit"].startswith(commit))]

    def machine(line):
        return line["machine"]["cpu"], round(line["machine"]["tsc_hz"] / 5e7)  # it is told to the nearest MHz, or ten of them
    return {(line["name"], line["peer"]): line for line in lines if machine(line) == machine(lines[-1])}


def bars_of(chosen, name):
    """[(device, value, low, high)] of one figure, engine first."""
    found = []
    for (figure, peer), line in chosen.items():
        if figure != name:
            continue
        value, spread = (line["peer_value"], line.get("peer_spread")) if peer else (line["value"], line["spread"])
        if value is not None:
            low, high = spread or (value, value)
            found.append((peer or "engine", value, low, high))
    order = list(NAMES)
    return sorted(found, key=lambda bar: order.index(bar[0]) if bar[0] in order else len(order))


def _whiskers(value, low, high):
    return [[max(0, value - low)], [max(0, high - value)]]


def _plain_log(axes):
    """Numbers as people write them, at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


def side_by_side(plt, chosen, figures, ylabel, title, path, log=False):
    """`figures`: (name, label under the group)."""
    groups = [(label, bars_of(chosen, name)) for name, label in figures]
    groups = [(label, bars) for label, bars in groups if bars]
    if not groups:
        return False
    figure, axes = plt.subplots()
    devices = [device for device in NAMES if any(device == bar[0] for _, bars in groups for bar in bars)]
    width = 0.8 / len(devices)
    for at, (_, bars) in enumerate(groups):
        for device, value, low, high in bars:
            x = at - 0.4 + width * (devices.index(device) + 0.5)
            axes.bar(x, value, width * 0.92, color=COLOURS[device])
            axes.errorbar(x, value, yerr=_whiskers(value, low, high), color=INK, linewidth=0.9, capsize=2)
            axes.annotate(f"{value:,.0f}" if value >= 100 else f"{value:.3g}", (x, max(value, high)), ha="center", va="bottom",
                          xytext=(0, 2), textcoords="offset points", fontsize=7)
    axes.set_xticks(range(len(groups)), [label for label, _ in groups])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(ylabel)
    if log:
        _plain_log(axes)
    else:
        from matplotlib.ticker import FuncFormatter
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    if len(groups) == 1:
        axes.set_xlim(-1, 1)
    axes.margins(y=0.12)
    axes.legend(handles=[plt.Rectangle((0, 0), 1, 1, color=COLOURS[device], label=NAMES[device]) for device in devices],
                ncol=len(devices), loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2, handlelength=1, handleheight=1)
    axes.set_title(title, loc="left", pad=24, fontsize=10, fontweight="bold")
    _save(plt, figure, path)
    return True


def against_flows(plt, chosen, links, path):
    points = {}
    for name, _ in chosen:
        known = re.fullmatch(rf"peers/{links}/established/(\d+)([kM]?)/64/in/cycles", name)
        if known:
            flows = int(known[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[known[2]]
            for device, value, low, high in bars_of(chosen, name):
                points.setdefault(device, {})[flows] = (value, low, high)
    if sum(len(of_device) for of_device in points.values()) < 4 or max(map(len, points.values())) < 2:
        return False
    figure, axes = plt.subplots()
    ends = []
    for device in NAMES:
        if device not in points:
            continue
        flows = sorted(points[device])
        values = [points[device][at][0] for at in flows]
        low = [points[device][at][1] for at in flows]
        high = [points[device][at][2] for at in flows]
        axes.fill_between(flows, low, high, color=COLOURS[device], alpha=0.18, linewidth=0)
        axes.plot(flows, values, marker="o", markersize=4, color=COLOURS[device], linewidth=1.8)
        ends.append((values[-1], flows[-1], device))
    # Names at the lines' ends, apart from each other even where the lines are not.
    lowest = 0.0
    for value, at, device in sorted(ends):
        place = max(value, lowest)
        lowest = place * 1.22
        axes.annotate(f"{NAMES[device]}  {value:,.0f}", (at, place), xytext=(7, 0), textcoords="offset points", va="center",
                      fontsize=8, color=COLOURS[device] if device in ("engine", "ovs-dpdk") else "#616e7c")
    axes.set_xscale("log")
    _plain_log(axes)
    from matplotlib.ticker import NullFormatter
    ticks = sorted({at for of_device in points.values() for at in of_device})
    axes.set_xticks(ticks, [f"{at // 1_000_000}M" if at >= 1_000_000 else f"{at // 1000}k" for at in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("established connections")
    axes.set_ylabel("busy TSC cycles a packet")
    axes.margins(x=0.04)
    axes.set_title(f"Cycles of the tested core, I/O included, 64 B over {links}", loc="left", fontsize=10, fontweight="bold")
    figure.subplots_adjust(right=0.78)
    _save(plt, figure, path)
    return True


def in_process(plt, chosen, path):
    wanted = targets.load()
    rows = {}
    for (name, peer), line in chosen.items():
        target = targets.of(line, wanted) if not name.startswith("peers/") else None
        if target and target["unit" if "unit" in target else "what"] == "cycles":
            rows.setdefault(target["what"], (line, target))
    if not rows:
        return False
    figure, axes = plt.subplots(figsize=(7.2, 0.9 + 0.45 * len(rows)))
    for at, (what, (line, target)) in enumerate(reversed(rows.items())):
        axes.barh(at, line["value"], 0.55, color=COLOURS["engine"])
        if line["spread"]:
            axes.errorbar(line["value"], at, xerr=_whiskers(line["value"], *line["spread"]), color=INK, linewidth=0.9, capsize=2)
        for bound, colour in (("must", "#d1495b"), ("aim", "#f0a202")):
            axes.plot([target[bound]] * 2, [at - 0.36, at + 0.36], color=colour, linewidth=2)
        axes.annotate(f"{line['value']:.0f}", (max(line["value"], (line["spread"] or [0, 0])[1]), at), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=FAINT)
    axes.set_xlabel("TSC cycles a packet; red: at most, yellow: aimed at")
    axes.set_title("In process, one core, burst 32", loc="left", fontsize=10, fontweight="bold")
    _save(plt, figure, path)
    return True


def neighbours(plt, lines, path):
    """A task's ping p99 while others do their worst, against the quiet time right before."""
    rows = {line["name"].split("/")[1]: line for line in lines if line["name"].startswith("neighbours/") and line["value"] is not None}
    if not rows:
        return False
    figure, axes = plt.subplots(figsize=(7.2, 0.9 + 0.3 * len(rows)))
    for at, line in enumerate(reversed(rows.values())):
        before, during = line["before"]["p99"], line["value"]
        axes.barh(at + 0.2, before, 0.35, color="#c3cad2")
        axes.barh(at - 0.2, during, 0.35, color=COLOURS["engine"])
        axes.annotate(f"{during / before:.1f} x", (max(before, during), at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=FAINT)
    axes.set_xlabel("ping p99, ms; grey: before, green: meanwhile")
    axes.set_title("A task beside others that do their worst", loc="left", fontsize=10, fontweight="bold")
    _save(plt, figure, path)
    return True


def _save(plt, figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = path.read_text()
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def run(options):
    files = list(options.results.glob("*.jsonl"))
    if not files:
        raise BenchError(f"no results in {options.results}; ./dev bench peers or quick makes some")
    plt = _matplotlib()
    chosen = newest(results.read(files), options.commit)
    made = []

    def keep(done, path):
        if done:
            made.append(path)

    for links in KINDS:
        base = f"peers/{links}/established"
        sizes = [(f"{base}/10k/{size}/in", label) for size, label in (("64", "64 B"), ("512", "512 B"), ("1518", "1518 B"), ("imix", "IMIX"))]
        for metric, ylabel, title in (("cycles", "busy TSC cycles a packet", "Cycles of the tested core, I/O included"),
                                      ("throughput", "Mpps", "Packets through, one core")):
            path = options.out / f"{links}-{metric}.svg"
            keep(side_by_side(plt, chosen, [(f"{name}/{metric}", label) for name, label in sizes], ylabel,
                              f"{title}, {links}, 10k established connections", path), path)
        path = options.out / f"{links}-flows.svg"
        keep(against_flows(plt, chosen, links, path), path)
        path = options.out / f"{links}-connections.svg"
        keep(side_by_side(plt, chosen, [(f"peers/{links}/connections/rate", "TCP connections of six packets")], "connections a second",
                          f"New connections, {links}, one core", path), path)
        path = options.out / f"{links}-latency.svg"
        keep(side_by_side(plt, chosen, [(f"peers/{links}/latency/10k/64/in/latency-{at}", at) for at in ("p50", "p99", "p99.9")],
                          "us", f"Latency at 300,000 packets a second, {links}, 64 B", path, log=True), path)
    path = options.out / "neighbours.svg"
    keep(neighbours(plt, results.read(files), path), path)
    path = options.out / "in-process.svg"
    keep(in_process(plt, chosen, path), path)
    for path in made:
        print(path)
    if not made:
        raise BenchError("the results hold no figure that is plotted")
    return 0
