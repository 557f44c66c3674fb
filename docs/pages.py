"""What mkdocs shows besides docs/*.md: pages that stand beside what they describe, and a page of API for each package.

Links are those of the repository; here they become links between the pages. What has no page loses its link.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
BESIDE = {
    "README.md": "index.md",
    "maps/SPEC.md": "spec.md",
    "golden/README.md": "golden.md",
    "android_bridge/README.md": "devices.md",
    "android_bridge/library/README.md": "jvm.md",
    "export/hfnet_export/networks/weights/README.md": "weights.md",
    "benchmarks/README.md": "figures.md",
}
PACKAGES = {
    "hfnet_edge": "sdk",
    "hfnet_export": "export",
    "hfnet_maps": "maps",
    "hfnet_parity": "parity",
    "hfnet_device": "android_bridge",
}
NO_API = re.compile(r"_.*|schema|cli|.*_cli")  # private, generated, command lines


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/."""
    for source, name in BESIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=api(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links between pages of the links of a page, which are relative to its place in the repository."""
    shown = page.file.src_uri
    source = next((source for source, name in BESIDE.items() if name == shown), f"docs/{shown}")

    def link(found: re.Match[str]) -> str:
        text, path, anchor = found.groups()
        if not path or "://" in path:
            return found[0]
        target = os.path.normpath(os.path.join(os.path.dirname(source), path))
        name = BESIDE.get(target) or BESIDE.get(f"{target}/README.md") or target.removeprefix("docs/")
        if name not in files.src_uris:
            return text.strip("![]")
        return f"{text}({name}{anchor})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)#\s]*)([^)\s]*)\)", link, markdown)


def api(package: str) -> str:
    """The page of a package: all its public modules."""
    folder = ROOT / PACKAGES[package]
    names = []
    for path in sorted((folder / package).rglob("*.py")):
        parts = [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
        if not any(NO_API.fullmatch(part) for part in parts):
            names.append(".".join(parts))
    return f"# {package}\n\n" + "\n".join(f"::: {name}\n" for name in sorted(names))
