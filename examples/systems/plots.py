"""The picture: accuracy against time, and below a bar a system for what it took."""

from __future__ import annotations

import look
import numpy as np

COLORS = ["#22303c", "#8a97a3", "#1f6fb4", "#6fb1e0", "#2a9d8f", "#f28e2b", "#c8553d", "#7b5ea7", "#b5a642"]


def plot(figures, title, target, path):
    plt = look.pyplot()
    names = list(dict.fromkeys(figure.system for figure in figures))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    figure, axes = plt.subplot_mosaic(
        [["curve"] * 5, ["time", "accuracy", "sent", "communication", "efficiency"]],
        figsize=(14, 5 + 0.34 * len(figures)),
        height_ratios=[4.6, 0.4 + 0.34 * len(figures)],
        layout="constrained",
    )
    curve(axes["curve"], figures, colors, target)
    places = np.arange(len(figures))[::-1]
    shades = [colors[f.system] for f in figures]

    def bars(name, values, heading, text):
        axis = axes[name]
        axis.barh(places, values, color=shades, height=0.7)
        for place, value in zip(places, values, strict=True):
            axis.annotate(text(value), (value, place), xytext=(4, 0), textcoords="offset points", va="center", size=9)
        axis.set_title(heading, loc="left", fontsize=10.5, fontweight="bold")
        axis.set_yticks(places, [f.label for f in figures] if name == "time" else [])
        axis.set_ylim(-0.6, len(figures) - 0.4)
        axis.grid(axis="y", visible=False)
        axis.set_xlim(0, 1.25 * max([value for value in values if value == value], default=1) or 1)

    bars("time", [f.seconds for f in figures], f"seconds ( | to {target:.0%})", lambda v: f"{v:.1f}")
    for place, f in zip(places, figures, strict=True):
        if f.reached is not None:
            axes["time"].plot([f.reached] * 2, [place - 0.35, place + 0.35], color="white", lw=3)
            axes["time"].plot([f.reached] * 2, [place - 0.35, place + 0.35], color=look.INK, lw=1.4)
    bars("accuracy", [100 * f.accuracy for f in figures], "accuracy, %", lambda v: f"{v:.1f}")
    least = min(100 * f.accuracy for f in figures)
    axes["accuracy"].set_xlim(max(0, min(90, least - 2)), 102.5)
    sent = [f.sent / 1e3 if f.sent else np.nan for f in figures]
    bars("sent", sent, "kB sent by a rank", lambda v: f"{v:,.0f}" if v == v else "")
    if any(value == value for value in sent):
        axes["sent"].set_xscale("log")
        axes["sent"].set_xlim(np.nanmin(sent) / 2, np.nanmax(sent) * 8)
    share = [100 * f.communication for f in figures]
    bars("communication", share, "communication, %", lambda v: f"{v:.0f}")
    bars("efficiency", [100 * f.efficiency for f in figures], "efficiency, %", lambda v: f"{v:.0f}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"plot: {path}")


def curve(axis, figures, colors, target):
    """The error on a logarithmic axis upside down, labelled as accuracy: the last per cents are what it is about."""
    for f in figures:
        seconds, accuracies = np.array(f.curve).T
        style = {"lw": 1.5, "ls": (0, (3, 1.5))} if f.codec else {"lw": 2.0}
        errors = np.maximum(1 - smooth(accuracies), 0.003)
        axis.plot(seconds, errors, color=colors[f.system], label=f.label, **style)
    ticks = [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99]
    axis.set_yscale("log")
    axis.set_ylim(0.9, 0.012)
    axis.set_yticks([1 - tick for tick in ticks], [f"{tick:.0%}" for tick in ticks])
    axis.minorticks_off()
    axis.axhline(1 - target, color=look.INK, lw=1, ls=(0, (4, 3)), zorder=0)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlim(left=min(f.curve[0][0] for f in figures))
    axis.set_xlabel("seconds")
    axis.set_ylabel("test accuracy, mean of three")
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.005, 0.5))


def smooth(values):
    """Running mean of the last three."""
    return np.array([np.mean(values[max(0, i - 2) : i + 1]) for i in range(len(values))])
