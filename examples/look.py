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
