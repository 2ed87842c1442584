"""What Sphinx is told beside `conf.py`: the directive `made`, in whose place stands what a function writes.

```{made} docs._ext.studies:page
```
"""

from __future__ import annotations

import pkgutil
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Made(SphinxDirective):
    """Markdown written by the function that its first argument names, as MODULE:FUNCTION, and that is given the words
    after it; it may have headings."""

    required_arguments, optional_arguments = 1, 9

    def run(self) -> list[nodes.Node]:
        name, *words = self.arguments
        text = pkgutil.resolve_name(name)(*words)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("made", Made)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
