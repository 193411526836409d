"""How the examples' pictures look."""

INK, GREY, BLUE, ORANGE = "#22303c", "#8a97a3", "#1f6fb4", "#f28e2b"


def pyplot():
    """matplotlib.pyplot, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.grid": True,
            "grid.color": "#e6eaee",
            "axes.axisbelow": True,
        }
    )
    return plt


def training(title, losses, accuracies, path):
    """Loss of every step and test accuracy of every epoch, saved at `path`."""
    plt = pyplot()
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 5.6), sharex=True, height_ratios=[3, 2], layout="constrained"
    )
    epochs = len(accuracies)
    steps = len(losses) // epochs
    top.plot([i / steps for i in range(1, len(losses) + 1)], losses, color=BLUE, lw=1.1)
    top.set_yscale("log")
    top.set_ylabel("training loss")
    top.set_title(title, loc="left", fontweight="bold", pad=12)
    bottom.plot(range(1, epochs + 1), [100 * a for a in accuracies], "o-", color=ORANGE, ms=4)
    bottom.annotate(
        f"{accuracies[-1]:.2%}",
        (epochs, 100 * accuracies[-1]),
        xytext=(0, -18),
        textcoords="offset points",
        ha="right",
        fontweight="bold",
    )
    bottom.set_ylabel("test accuracy, %")
    bottom.set_xlabel("epoch")
    bottom.set_xlim(0, epochs * 1.01)
    figure.align_ylabels()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"plot: {path}")
