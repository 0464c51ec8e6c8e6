"""What the documentation's build adds: a page for each public module, made of what the module says of itself.

Owns which modules are public (no underscore, no command), in what order their names stand, and where a page
goes that the navigation does not name. Takes along the pages that lie at the root of the sources, and the
script that draws diagrams, where `MERMAID` says where it is, so that browsers need no other site. It imports
nothing of sbrpc: the sources are read.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

SOURCE = Path(__file__).resolve().parent.parent / "src" / "sbrpc"
COMMANDS = {"__main__", "cli"}
# What is reached through the names of a module, and which its `__all__` does not have.
BESIDES = {
    "sbrpc.emulator": ["control.FaultControl", "control.FaultHandle", "broker.books.Books"],
    "sbrpc.pytest_plugin": ["sbrpc_bench", "sbrpc_new_bench"],
}

# What hosts of repositories look for at their root.
AT_ROOT = ("CONTRIBUTING.md", "SECURITY.md")

MERMAID = "assets/javascripts/mermaid.min.js"


def mermaid() -> str | None:
    """The script on this machine, if there is one."""
    path = os.environ.get("MERMAID", "")
    return os.path.abspath(path) if os.path.isfile(path) else None


def modules() -> dict[str, ast.Module]:
    """The public modules by name, the package itself first."""
    found = {"sbrpc": SOURCE / "__init__.py"}
    for path in sorted(SOURCE.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.stem.startswith("_") or path.stem in COMMANDS or file.suffix != ".py" or not file.exists():
            continue
        found[f"sbrpc.{path.stem}"] = file
    return {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in found.items()}


def names(module: ast.Module) -> list[str]:
    """What the module offers, as its `__all__` has it."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def page(name: str) -> str:
    return f"reference/{name}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put these pages into the navigation, and whichever it does not name at the end of their section."""
    sections = {name: pages for item in config.nav or [] for name, pages in item.items()}
    docs = Path(config.docs_dir)
    named = str(config.nav)
    for path in sorted(docs.rglob("*.md")):
        if (uri := path.relative_to(docs).as_posix()) not in named:
            sections["How to" if uri.startswith("how-to/") else "Explanation"].append(uri)
    assert config.nav is not None
    config.nav += [{"Contributing": "contributing.md"}, {"Security": "security.md"}]
    sections["Reference"] += [{name: page(name)} for name in modules()]
    return config


def purpose(module: ast.Module) -> str:
    """What a module says of itself, without what it owns and must not know: that is for its authors."""
    paragraphs = (ast.get_docstring(module) or "").split("\n\n")
    return "\n\n".join(text for text in paragraphs if not text.startswith(("Owns", "Knows")))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Write the pages, which are found nowhere but in the site."""
    for name, module in modules().items():
        # The other names of the package are at home in the modules below.
        members = ["connect"] if name == "sbrpc" else names(module) + BESIDES.get(name, [])
        text = [f"# {name}", purpose(module), *(f"::: {name}.{member}" for member in members)]
        files.append(File.generated(config, page(name), content="\n\n".join(text) + "\n"))
    for file in AT_ROOT:
        text = (SOURCE.parent.parent / file).read_text(encoding="utf-8")
        files.append(File.generated(config, file.lower(), content=as_in_docs(text)))
    if (script := mermaid()) is not None:
        files.append(File.generated(config, MERMAID, abs_src_path=script))
    return files


def as_in_docs(text: str) -> str:
    """A page from the root: links into docs/ as they are from there, none to what the site does not have."""
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(
        "|".join(rf"\]\({re.escape(file)}\)" for file in AT_ROOT), lambda link: link[0].lower(), text
    )
    return re.sub(r"\[([^\]]+)\]\((?:tests|src|examples|benchmarks)/[^)]*\)", r"\1", text)


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Fill in the list of modules, and take away the marks that are for the tests."""
    if page.file.src_uri == "reference/index.md":
        rows = []
        for name, module in modules().items():
            first = (ast.get_docstring(module) or "").split("\n", 1)[0]
            rows.append(f"| [`{name}`]({name}.md) | {first} |")
        markdown = markdown.replace("<!-- modules -->", "\n".join(["| module | |", "|---|---|", *rows]))
    return markdown.replace("```python run\n", "```python\n")


def on_post_page(output: str, page: Any, config: MkDocsConfig) -> str:
    """Have the script loaded where there is a diagram; it is large."""
    if mermaid() is None or 'class="mermaid"' not in output:
        return output
    script = f'<script src="{get_relative_url(MERMAID, page.url)}"></script>'
    # Ahead of the theme's own script, which asks another site for it otherwise.
    return output.replace("</head>", f"{script}</head>", 1)
