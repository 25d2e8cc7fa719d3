"""Numbers as people write them: true minus signs, few digits, units."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(score: float) -> str:
    """Write a score in hundredths: 0.912 is 91.2."""
    return signed_minus(f"{_tenths(score):.1f}")


def points(difference: float) -> str:
    """Write a difference of scores in hundredths, with its sign: +2.9; what rounds to nothing has none."""
    tenths = _tenths(difference)
    return signed_minus(f"{tenths:+.1f}") if tenths else "0.0"


def spread(mean: float, sd: float | None) -> str:
    """Write a mean over seeds, and its standard deviation where there is one, in hundredths."""
    return percent(mean) if sd is None else f"{percent(mean)} ± {100 * sd:.1f}"


def short_count(number: float) -> str:
    """Write a count as 950, 4.4 k, 14.5 M or 1.3 B."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def short(number: float) -> str:
    """Write a number in three digits; far from 1 as 2.4·10⁻⁶."""
    if number == 0 or 1e-3 <= abs(number) < 1e6:
        return signed_minus(f"{number:.3g}")
    digits, _, exponent = f"{number:.2g}".partition("e")
    if not exponent:
        digits, _, exponent = f"{number:.1e}".partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    return signed_minus(power if digits in ("1", "1.0") else f"{digits}·{power}")


def milliseconds(number: float) -> str:
    """Write milliseconds in two or three digits."""
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def megabytes(number: float) -> str:
    """Write MB in two or three digits."""
    return f"{number:.1f}" if number < 100 else f"{number:.0f}"


def gigabytes(number: float) -> str:
    """Write bytes in GB, in two or three digits."""
    size = number / 1e9
    return f"{size:.2f}" if size < 10 else f"{size:.1f}" if size < 100 else f"{size:.0f}"


def duration(seconds: float) -> str:
    """Write a time as 8.4 s, 3 min 20 s or 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def signed_minus(text: str) -> str:
    """Put a true minus where a hyphen stands for one."""
    return text.replace("-", "−")


def _tenths(score: float) -> float:
    """Round hundredths to one digit; nothing is never minus nothing."""
    return round(100 * score, 1) + 0.0
