"""Pages in HTML from templates, in which no text of the data acts as HTML or as a control sequence."""

from typing import Any

import jinja2

from alkd_jax.errors import printable

_MAX_TEXT = 10_000


def render_page(template: str, **content: Any) -> str:
    """Returns a page.

    Args:
        template: name of a file in the folder of templates.
        **content: values of the template; a text that is not `markupsafe.Markup` is escaped.
    """
    loader = jinja2.PackageLoader(__package__)
    environment = jinja2.Environment(loader=loader, autoescape=True, finalize=_finalize)
    return environment.get_template(template).render(**content)


def _finalize(value: Any) -> Any:
    """Makes a text printable: half a surrogate pair cannot be written, and a mark of direction would turn the page."""
    return printable(value, width=_MAX_TEXT) if type(value) is str else value
