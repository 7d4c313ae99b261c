#!/usr/bin/env python3
"""Checks that what the documents name exists: links and their anchors, files, settings, metrics, routes, commands and
their flags. Also that README.md has at most 900 words.

    docs/check.py              prints each fault with its file and line; exit status 1 if there is one
    docs/check.py --self-test  makes a small tree with one fault of each kind, and expects every fault to be found

Reads the repository only: no network, no build, Python 3.11 and its standard library.
"""

import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

MOST_WORDS = 900

# Words in capitals with an underscore that are no settings of the two programs, each with whose it is.
NOT_SETTINGS = {
    "queues": ["INBOUND_WHATSAPP_MESSAGES", "WHATSAPP_STATUS_UPDATES", "WHATSAPP_EVENTS"],
    "compose.yaml": ["RABBITMQ_USER", "RABBITMQ_PASSWORD", "GRAFANA_PASSWORD", "POSTGRES_PASSWORD", "COMMIT"],
    "tests and scripts": [
        "ALARM_INTERVAL", "CHAOS_BUILD", "ODD_LOG", "ODD_LOGS", "ODD_SECONDS", "ODD_SEED", "UPDATE_DOCUMENTS",
        "UPDATE_EXAMPLES", "RELEASE_EXAMPLES", "CARGO_TARGET_DIR", "LAB_S3", "BUILD_COMMIT",
    ],
    "Meta": ["PARTNER_ADDED", "TIER_2K", "WABA_ID"],
    "other programs": ["NO_COLOR", "ALL_PROXY", "HTTP_PROXY", "TCP_USER_TIMEOUT", "SSL_CERT_FILE", "MINIO_API_STALE_UPLOADS_EXPIRY"],
}
# Words that begin like a metric and are none.
NOT_METRICS = {"whatsapp_business_account", "whatsapp_business_management", "whatsapp_business_messaging", "whatsapp_events"}
# Paths of other services, and of files inside a container or the kernel.
NOT_ROUTES = re.compile(r"^/(tenants/by-business-account|state/|v\d+\.\d+|proc/|worker$|ingress$|simulator$|\{|data$|var/|etc/|run/)")
METRIC = re.compile(r"^(whatsapp_\w+|(?:webhook|rabbitmq|minio|cache|media|process)_\w+_(?:total|seconds|bytes|fds|threads))(?:\{.*\})?$")
SETTING = re.compile(r"(?<![\w${])\$?\{?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w…])")
ASSIGNED = re.compile(r"(?<![\w$-])([A-Z]{4,})=")
ROUTE = re.compile(r"^(?:(GET|HEAD|POST|PUT|PATCH|DELETE) )?(/[\w.{}$/-]*)(?:\?\S*)?$")
URL = re.compile(r"https?://(?:[\w.-]+:(?:8080|9080|9081)|<[^>\s]+>)(/[^\s`?\"')]*)")
COMMAND = re.compile(r"(?:^\s*|/|--rm |&& |\$\()worker ([a-z]+(?: [^|&;#`]*)?)")
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
# Names of deployments for kubectl, and the files of the recipe for a new type.
NOT_FILES = {"deploy/worker", "deploy/ingress", "worker/src/item/event/wave.rs", "worker/tests/fixtures/wave.json"}
TOP = ("docs/", "deploy/", "worker/", "ingress/", "shared/", "tests/", "fuzz/", ".ci/")


@dataclass
class Known:
    """What there is to be named."""

    settings: set[str] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)
    routes: dict[str, set[str]] = field(default_factory=dict)
    commands: dict[str, set[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)


@dataclass
class Document:
    """A Markdown file: its lines outside of fences, its pieces of code with their lines, its anchors."""

    path: Path
    text: list[tuple[int, str]] = field(default_factory=list)
    code: list[tuple[int, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


def read(path: Path) -> Document:
    document, fence, language, seen = Document(path), "", "", {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)(.*)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence, language = ("", "") if fence else (mark[1], mark[2].strip())
            continue
        if fence:
            # What was printed, and pictures, name nothing.
            if language not in ("text", "mermaid"):
                document.code.append((number, line))
            continue
        document.text.append((number, re.sub(r"`[^`]*`", "``", line)))
        document.code += [(number, code) for code in re.findall(r"`([^`]+)`", line)]
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            document.anchors.add(anchor(heading[1], seen))
        document.anchors.update(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line))
    return document


def anchor(heading: str, seen: dict[str, int]) -> str:
    """As GitHub makes it: lower case, no punctuation, hyphens for spaces, a number for a second one."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    count = seen.get(slug, 0)
    seen[slug] = count + 1
    return f"{slug}-{count}" if count else slug


def known(root: Path) -> Known:
    return Known(
        settings=settings(root),
        metrics=set(re.findall(r"^\| `(\w+)` \|", (root / "docs/metrics.md").read_text(), re.M)),
        routes=routes(root / "docs/openapi.yaml"),
        commands=commands(root / "docs/commands.md"),
        flags=flags(root),
    )


def routes(openapi: Path) -> dict[str, set[str]]:
    """Path, with `{}` for each parameter, to its methods."""
    found, inside, path = {}, False, ""
    for line in openapi.read_text().splitlines():
        if re.match(r"\w", line):
            inside = line.startswith("paths:")
        if inside and (at := re.match(r"  (/[^:]*):", line)):
            path = plain(at[1])
            found[path] = set()
        elif inside and (method := re.match(r"    (get|put|post|delete|head|patch):", line)):
            found[path].add(method[1].upper())
    return found


def plain(path: str) -> str:
    """A path without the names of its parameters: `/tenants/$WABA/invalidate` is `/tenants/{}/invalidate`."""
    path = re.sub(r"\{[^}]*\}|\$\{?\w+\}?", "{}", path)
    return path if path == "/" else path.rstrip("/")


def commands(path: Path) -> dict[str, set[str]]:
    """The worker's commands as the tables of docs/commands.md have them, with the words that may follow."""
    found: dict[str, set[str]] = {"run": set(), "health": set()}
    for line in path.read_text().splitlines():
        if not line.startswith("| `worker "):
            continue
        for command, rest in re.findall(r"`worker ([a-z]+)((?: [a-z]+(?![\w=]))?)", line.split(" | ")[0]):
            found.setdefault(command, set()).update(rest.split())
        # `worker config check`, `print`: words of the same command.
        first = re.match(r"\| `worker ([a-z]+) [a-z]+`((?:, `[a-z]+`)+) \|", line)
        if first:
            found[first[1]].update(re.findall(r"`([a-z]+)`", first[2]))
    return found


def commands_of_code(root: Path) -> set[str]:
    """The variants of the worker's enum of commands."""
    cli = root / "worker/src/cli.rs"
    text = cli.read_text() if cli.exists() else ""
    body = text.partition("pub enum WorkerCommand {")[2].partition("\n}")[0]
    return {name.lower() for name in re.findall(r"^    ([A-Z]\w*)[,(]", body, re.M)}


def settings(root: Path) -> set[str]:
    """Those of the programs, and those of the simulator."""
    found = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (root / ".env.example").read_text(), re.M))
    simulator = root / "tests/src/bin/simulator.rs"
    if simulator.exists():
        found |= set(re.findall(r'env = "([A-Z][A-Z0-9_]*)"', simulator.read_text()))
    return found


def flags(root: Path) -> set[str]:
    """Every flag that the sources of the worker, ingress and what they share declare."""
    found = {"--help", "--version"}
    for folder in ("worker/src", "ingress/src", "shared/src"):
        for source in (root / folder).rglob("*.rs"):
            for arguments, name in re.findall(r"#\[arg\(((?:[^()]|\([^()]*\))*?)\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?(\w+):", source.read_text()):
                if re.search(r"\blong\b", arguments):
                    named = re.search(r'long = "([\w-]+)"', arguments)
                    found.add("--" + (named[1] if named else name.replace("_", "-")))
    return found


class Check:
    """Collects faults: `file:line: what`."""

    def __init__(self, root: Path):
        self.root, self.known, self.faults = root, known(root), []
        self.documents: dict[Path, Document] = {}

    def fault(self, document: Document, line: int, what: str) -> None:
        self.faults.append(f"{document.path.relative_to(self.root)}:{line}: {what}")

    def document(self, path: Path) -> Document:
        if path not in self.documents:
            self.documents[path] = read(path)
        return self.documents[path]

    def run(self) -> list[str]:
        names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
        paths = [self.root / name for name in names if (self.root / name).exists()]
        paths += sorted(path for path in (self.root / "docs").rglob("*.md") if "node_modules" not in path.parts)
        for path in paths:
            document = self.document(path)
            self.links(document)
            for line, code in document.code:
                self.code(document, line, code)
        if (self.root / "CHANGELOG.md").exists():
            self.links(self.document(self.root / "CHANGELOG.md"))
        self.commands_of_code()
        self.words()
        return self.faults

    def links(self, document: Document) -> None:
        notes = set()
        for line, text in document.text:
            for target in LINK.findall(text):
                self.link(document, line, target)
            if reference := re.match(r"\[[^\]^]+\]:\s+(\S+)", text):
                self.link(document, line, reference[1])
            if note := re.match(r"\[\^([^\]]+)\]:", text):
                notes.add(note[1])
        for line, text in document.text:
            for note in re.findall(r"\[\^([^\]]+)\](?!:)", text):
                if note not in notes:
                    self.fault(document, line, f"there is no footnote {note}")

    def link(self, document: Document, line: int, target: str) -> None:
        if re.match(r"[a-z]+:", target):
            return
        name, _, fragment = target.partition("#")
        path = (document.path.parent / name).resolve() if name else document.path
        if not path.exists():
            self.fault(document, line, f"the link {target} leads nowhere")
        elif fragment and path.suffix == ".md" and fragment not in self.document(path).anchors:
            self.fault(document, line, f"{path.name} has no heading for the link {target}")

    def code(self, document: Document, line: int, code: str) -> None:
        self.file(document, line, code)
        self.settings(document, line, code)
        if (metric := METRIC.match(code)) and not self.is_metric(metric[1]):
            self.fault(document, line, f"docs/metrics.md has no metric {metric[1]}")
        self.routes(document, line, code)
        for call in COMMAND.findall(code):
            self.command(document, line, call)

    def file(self, document: Document, line: int, code: str) -> None:
        for word in re.findall(r"[\w./*-]+", code):
            if not word.startswith(TOP) or re.search(re.escape(word) + r"[<$…{]", code):
                continue
            word = word.rstrip(".")
            if word not in NOT_FILES and not any(self.root.glob(word.rstrip("/"))):
                self.fault(document, line, f"there is no file {word}")

    def settings(self, document: Document, line: int, code: str) -> None:
        others = {name for names in NOT_SETTINGS.values() for name in names}
        for name in SETTING.findall(code) + ASSIGNED.findall(code):
            if name not in self.known.settings | others and not name.startswith(("OTEL_", "CARGO_")):
                self.fault(document, line, f".env.example has no setting {name}")

    def is_metric(self, name: str) -> bool:
        base = re.sub(r"_(bucket|count|sum|info)$", "", name)
        return name in NOT_METRICS or bool({name, base, base + "_info"} & self.known.metrics)

    def routes(self, document: Document, line: int, code: str) -> None:
        found = [(method, path) for method, path in ROUTE.findall(code.strip())]
        found += [("", path) for path in URL.findall(code)]
        for method, path in found:
            path = plain(path)
            if NOT_ROUTES.match(path) or path in ("//", ""):
                continue
            methods = self.known.routes.get(path)
            if methods is None:
                self.fault(document, line, f"docs/openapi.yaml has no route {path}")
            elif method and method not in methods | ({"HEAD"} if "GET" in methods else set()):
                self.fault(document, line, f"docs/openapi.yaml has no {method} {path}")

    def command(self, document: Document, line: int, call: str) -> None:
        words = call.split()
        command, rest = words[0], words[1:]
        if command not in self.known.commands:
            self.fault(document, line, f"docs/commands.md has no command worker {command}")
            return
        further = self.known.commands[command]
        if further and rest and re.fullmatch(r"[a-z]+", rest[0]) and rest[0] not in further:
            self.fault(document, line, f"docs/commands.md has no command worker {command} {rest[0]}")
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", call):
            if flag not in self.known.flags:
                self.fault(document, line, f"worker {command} has no flag {flag}")

    def commands_of_code(self) -> None:
        table = self.document(self.root / "docs/commands.md")
        for command in sorted(commands_of_code(self.root) ^ set(self.known.commands)):
            self.fault(table, 1, f"worker {command} is in worker/src/cli.rs or here, not in both")

    def words(self) -> None:
        """Words of README.md: whatever has a letter or digit, tables and code included; a link counts by its text."""
        readme = self.document(self.root / "README.md")
        text = re.sub(r"\]\([^)]*\)", "]", readme.path.read_text())
        count = sum(bool(re.search(r"[^\W_]", word)) for word in text.split())
        if count > MOST_WORDS:
            self.fault(readme, 1, f"{count} words, and {MOST_WORDS} are the most")


GOOD = {
    "README.md": "# One\n\n[two](docs/two.md#a-heading) `TWO_WORDS=1` `whatsapp_good_total` `GET /good/{id}` `worker good --far`\n"
    "`docs/two.md` [note][^1] `https://<host>/good/7$X` `ARCH=1`\n\n[^1]: A note.\n",
    "docs/two.md": "# Two\n\n## A `heading`\n\n```sh\nworker good list --far  # as it is\n```\n",
    "docs/metrics.md": "| `whatsapp_good_total` | counter |\n",
    "docs/commands.md": "| `worker good list` | |\n",
    "docs/openapi.yaml": "paths:\n  /good/{id}:\n    get:\n  /good/7{id}:\n    get:\ncomponents:\n",
    ".env.example": "#TWO_WORDS=\n#ARCH=\n",
    "worker/src/cli.rs": "pub enum WorkerCommand {\n    Run,\n    Health,\n    Good(Args),\n}\n"
    "struct Args {\n    #[arg(long)]\n    pub far: bool,\n}\n",
}
# A line that is added to README.md (or another file), and the fault that it is.
BAD = [
    ("README.md", "[x](docs/gone.md)", "the link docs/gone.md leads nowhere"),
    ("README.md", "[x](docs/two.md#gone)", "no heading for the link docs/two.md#gone"),
    ("README.md", "text[^2]", "no footnote 2"),
    ("README.md", "`docs/gone/file.json`", "no file docs/gone/file.json"),
    ("README.md", "`GONE_SETTING`", "no setting GONE_SETTING"),
    ("README.md", "`GONE=1`", "no setting GONE"),
    ("docs/two.md", "```sh\nGONE_HERE=1 ingress\n```", "no setting GONE_HERE"),
    ("README.md", "`whatsapp_gone_total{code=\"401\"}`", "no metric whatsapp_gone_total"),
    ("README.md", "`/gone`", "no route /gone"),
    ("README.md", "`POST /good/{id}`", "no POST /good/{}"),
    ("README.md", "`curl http://worker:9081/gone`", "no route /gone"),
    ("README.md", "`worker gone`", "no command worker gone"),
    ("README.md", "`worker good gone`", "no command worker good gone"),
    ("docs/two.md", "```sh\nworker good --gone\n```", "worker good has no flag --gone"),
    ("docs/commands.md", "| `worker stray` | |", "worker stray is in worker/src/cli.rs or here"),
    ("README.md", "word " * MOST_WORDS, f"and {MOST_WORDS} are the most"),
]


def faults_of(change: tuple[str, str] | None) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in GOOD.items():
            path = Path(folder).resolve() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            added = f"\n{change[1]}\n" if change and change[0] == name else ""
            path.write_text(text + added)
        return Check(Path(folder).resolve()).run()


def self_test() -> int:
    wrong = [f"found where nothing is wrong: {fault}" for fault in faults_of(None)]
    for name, text, expected in BAD:
        found = faults_of((name, text))
        if not any(expected in fault for fault in found):
            wrong.append(f"not found: {expected} ({found})")
        if len(found) != 1:
            wrong.append(f"{expected}: {len(found)} faults instead of one: {found}")
    print("\n".join(wrong) or f"docs/check.py finds each of {len(BAD)} faults, and none where there is none")
    return bool(wrong)


def main() -> int:
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    faults = Check(Path(__file__).resolve().parent.parent).run()
    print("\n".join(faults) or "docs/check.py: everything that the documents name exists")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
