"""The twelve named colours of the procedural world, as sRGB in [0, 1]."""

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.98, 0.86, 0.12),
    "green": (0.15, 0.62, 0.18),
    "cyan": (0.10, 0.80, 0.85),
    "blue": (0.12, 0.25, 0.85),
    "purple": (0.50, 0.15, 0.70),
    "pink": (0.98, 0.50, 0.72),
    "brown": (0.45, 0.26, 0.12),
    "black": (0.08, 0.08, 0.09),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.52, 0.53, 0.55),
}
