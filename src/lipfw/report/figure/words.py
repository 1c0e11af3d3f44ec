"""How figures and tables say metrics, numbers of parameters and sparsities. No matplotlib here."""

NOT_RUN = " (not run)"
_METRICS = {"psnr": "PSNR, dB", "ssim": "SSIM", "mse": "mean squared error", "loss": "loss", "accuracy": "accuracy, %",
            "accuracy_best": "accuracy at the best step, %", "train_accuracy": "accuracy in training, %",
            "swd": "sliced Wasserstein distance / 1000", "seconds": "seconds a round",
            "psnr_raw": "PSNR of one output, dB", "params_left": "parameters left", "sparsity": "weights removed, %"}
_STEPS = {"peak": "at the best step", "picked": "at the picked step", "final": "at the last step"}


def metric_label(metric: str) -> str:
    """Return the name of a metric with its unit.

    >>> metric_label("psnr_peak"), metric_label("ssim")
    ('PSNR at the best step, dB', 'SSIM')
    """
    if metric in _METRICS:
        return _METRICS[metric]
    name, _, step = metric.rpartition("_")
    if name in _METRICS and step in _STEPS:
        said, comma, unit = _METRICS[name].partition(",")
        return f"{said} {_STEPS[step]}{comma}{unit}"
    return metric.replace("_", " ")


def count(n: float, _position=None) -> str:
    """Return a number of parameters, short.

    >>> count(619_200), count(2_200_000), count(950)
    ('619k', '2.2M', '950')
    """
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if n >= unit:
            return f"{n / unit:.3g}{name}"
    return f"{n:g}"


def percent(sparsity: float) -> str:
    """Return a sparsity of [0, 1] as it is said.

    >>> percent(0.8926), percent(0)
    ('89 %', '0 %')
    """
    return f"{100 * sparsity:.1f} %" if sparsity > 0.97 else f"{100 * sparsity:.0f} %"
