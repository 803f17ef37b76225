"""What the site adds to the pages: a reference made of docstrings, and the settings files that pages link to."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

REFERENCE = {
    "data": "fedcl_distill.data",
    "methods": "fedcl_distill.methods",
    "engine": "fedcl_distill.engine",
    "objectives": "fedcl_distill.objectives",
    "networks": "fedcl_distill.networks",
    "synthetic": "fedcl_distill.synthetic",
    "evaluation": "fedcl_distill.evaluation",
    "features": "fedcl_distill.features",
    "statistics": "fedcl_distill.statistics",
    "privacy": "fedcl_distill.privacy",
    "audit": "fedcl_distill.audit",
    "flower": "strategies.federated",
    "avalanche": "strategies.continual",
    "federated-continual": "strategies.federated_continual",
}
"""Page to the package whose public names it shows; the names of the top level have a page of links."""

_LINK_OUT = re.compile(r"\]\(((?:\.\./)+)((?:experiments|examples|fedcl_distill|strategies|simulations)/[^)#]*)\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?(?:[\w.]*\.)?(\w+)`")


def on_files(files: Files, config: Any) -> Files:
    """Add a page of reference for each package, and every file outside of ``docs`` that a page links to."""
    names = {page: [f"{package}.{name}" for name in _public(package)] for page, package in REFERENCE.items()}
    pages = {page: _reference(f"`{REFERENCE[page]}`", shown) for page, shown in names.items()}
    for page, text in {**pages, "fedcl_distill": _top_level(set().union(*names.values()))}.items():
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    linked = {
        target
        for page in files.documentation_pages()
        if page.abs_src_path
        for _, target in _LINK_OUT.findall(Path(page.abs_src_path).read_text("utf-8"))
    }
    for target in sorted(linked):
        source = ROOT / target
        text = source if source.is_file() else source / "README.md"
        files.append(File.generated(config, f"files/{target.rstrip('/')}.txt", content=text.read_bytes()))
    return files


def _reference(title: str, names: list[str]) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])


def _top_level(shown: set[str]) -> str:
    """Links to where each name is explained; what no other page explains stands below."""
    places = import_module("fedcl_distill")._PLACES
    found = {}
    for name in _public("fedcl_distill"):
        module, _, other = places[name].partition(":")
        found[name] = f"fedcl_distill.{module}.{other or name}"
    links = [f"- [`{name}`][{place}]" for name, place in found.items()]
    rest = _reference("`fedcl_distill`", [place for place in found.values() if place not in shown])
    title, _, below = rest.partition("\n\n")
    return "\n".join([title, "", *links, "", below])


def _public(package: str) -> list[str]:
    return sorted(import_module(package).__all__)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave ``docs`` lead to the copy of that file in the site."""
    depth = page.file.src_uri.count("/")
    return _LINK_OUT.sub(lambda found: f"]({'../' * depth}files/{found[2].rstrip('/')}.txt)", markdown)


class Roles(griffe.Extension):
    """What griffe cannot know: ``@settings`` makes dataclasses, and docstrings name other objects as Sphinx does."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        if any(one.callable_path.endswith("settings.settings") for one in cls.decorators):
            dataclass = griffe.ExprName("dataclasses.dataclass")
            cls.decorators.append(griffe.Decorator(dataclass, lineno=cls.lineno, endlineno=cls.lineno))

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            plain = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", plain, flags=re.MULTILINE)
