"""Whose the data is and whose the model, as far as anybody has said."""

from __future__ import annotations

from sfumato.reporting.stored import Stored

UNKNOWN = "unknown"
BUNDLED = {
    "digits": ("cc-by-sa-3.0", "MNIST: Yann LeCun, Corinna Cortes, Christopher J. C. Burges (1998)"),
    "emoji": (
        "other",
        "Fluent Emoji (c) Microsoft, MIT; Noto Emoji (c) Google, Apache-2.0; Twemoji (c) Twitter and "
        "contributors, CC BY 4.0",
    ),
}
"""What ships with the package, as NOTICE has it."""


def of_model(run: Stored) -> str:
    """The model's licence, as the user said it."""
    return str(run.parts.get("about", {}).get("licence") or UNKNOWN)


def of_data(run: Stored) -> tuple[str, str]:
    """The data's licence, and whose it is where that is known."""
    said = run.parts.get("about", {})
    if said.get("data_licence"):
        return str(said["data_licence"]), ""
    bundled = run.parts.get("data", {}).get("bundled")
    return BUNDLED.get(str(bundled), (UNKNOWN, ""))


def lines(run: Stored) -> list[str]:
    """Both in sentences."""
    model, (data, whose) = of_model(run), of_data(run)
    said = [
        f"The model: {model}."
        if model != UNKNOWN
        else "The model: nobody has said. Say it with --licence (apache-2.0, cc-by-4.0, ...)."
    ]
    if data == UNKNOWN:
        said.append(
            "The data: nobody has said. Say it with --data-licence; a model of pictures that are not yours "
            "may not be yours to give away."
        )
    else:
        said.append(f"The data: {data}{f' ({whose})' if whose else ''}.")
    return said
