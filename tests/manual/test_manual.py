"""The manual builds strictly and offline, and what it prints runs: its code, its commands.

In docs/, README.md and CONTRIBUTING.md, a block fenced as `python` is run, the blocks of a page one
after another in one namespace; a block fenced as `text` below it is what it prints, numbers to a
quarter; a block fenced as `py` is only shown. Lines of `sh` blocks, and code in running text, that
call `npgd` or a script must name options that exist.
"""

import argparse
import functools
import http.server
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from inspect import Parameter
from pathlib import Path

import pytest
import typer
import yaml

import analysis
import analysis.report
import npgd
import npgd.networks
import npgd.training
from analysis.projection import ProjectionSettings
from analysis.rec.settings import RecSettings
from analysis.report import RunSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(
    r"`((?:npgd|python -m paper_figures\.\w+|python paper_figures/\w+\.py)(?: .*?)?)`"
)
LAUNCHERS = re.compile(r"^(?:(?:torchrun|accelerate launch) .*?-m npgd|\S*/npgd) ")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def pages_with(pattern):
    found = [page for page in PAGES if pattern.search(page.read_text(encoding="utf-8"))]
    return pytest.mark.parametrize("page", found, ids=name_of)


# The site ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Warnings count as errors, and so does a connection to anywhere."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def refuse(self, address):
        raise AssertionError(f"the build connects to {address}")

    directory = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.chdir(ROOT)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(directory), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return directory


def test_pages_load_nothing_from_elsewhere(site):
    loaded = re.compile(
        r"<(?:script|img|iframe|source)[^>]*?\ssrc=[\"']?https?:[^>]*>"
        r"|<link(?![^>]*rel=[\"']?canonical)[^>]*?\shref=[\"']?https?:[^>]*>"
    )
    for page in site.rglob("*.html"):
        assert not loaded.findall(page.read_text(encoding="utf-8")), page.name


def test_formulas_are_mathml(site):
    """No formula is left as LaTeX, and there are formulas."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert not [name for name, text in pages.items() if 'class="arithmatex"' in text]
    assert pages["theorem.html"].count("<math") > 100
    assert pages["derivation.html"].count('display="block"') > 30


def test_the_derivation_is_whole(site):
    from analysis.theorem import derive

    text = (site / "mathematics" / "derivation.html").read_text(encoding="utf-8")
    assert text.count("✓") == len(derive().checks)


def test_every_public_name_is_in_the_reference(site):
    headings = {
        anchor
        for page in (site / "api").glob("*.html")
        for anchor in re.findall(r'<h3[^>]* id="([^"]+)"', page.read_text(encoding="utf-8"))
    }
    public = [f"npgd.{name}" for name in npgd.__all__]
    # A module, and a name that is npgd's own.
    public += [f"analysis.{name}" for name in analysis.__all__ if name not in ("theorem", "whiten")]
    public += [f"npgd.training.{name}" for name in npgd.training.__all__]
    public += [f"npgd.networks.{n}" for n in npgd.networks.__all__ if n != "ARCHITECTURES"]
    assert sorted(set(public) - headings) == []


def test_docstrings_leave_no_markup_behind(site):
    for page in (site / "api").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r":(?:func|class|mod|meth|attr|data|obj):.{30}", text), page.name


NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
WIDE = """
<!doctype html><title></title><body><script>
(async () => {
  const wide = [];
  for (const page of PAGES) await new Promise(done => {
    const frame = document.createElement("iframe");
    Object.assign(frame, { width: 400, height: 800, src: page });
    frame.onload = () => setTimeout(() => {
      const root = frame.contentDocument.documentElement;
      if (root.scrollWidth > frame.clientWidth || root.scrollHeight < 900) wide.push(page);
      frame.remove();
      done();
    }, 50);
    document.body.append(frame);
  });
  document.title = JSON.stringify(wide);
})();
</script>
"""
"""Opens each page in a frame as wide as a phone, and tells which do not fit or hold nothing."""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium to look with")
def test_every_page_fits_a_phone(site, tmp_path):
    pages = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    pages = [page for page in pages if page not in ("404.html", "wide.html")]
    (site / "wide.html").write_text(WIDE.replace("PAGES", json.dumps(pages)), encoding="utf-8")
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=60000",
            "--dump-dom", f"http://127.0.0.1:{server.server_port}/wide.html",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
        server.shutdown()
    (site / "wide.html").unlink()
    assert len(pages) > 20
    assert re.findall(r"<title>(.*?)</title>", done.stdout) == ["[]"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


# What is printed ---------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """What takes a minute looks less far by default: the calls printed are run as they are."""

    def less(function, **few):
        function = inspect.unwrap(function)
        known = inspect.signature(function).parameters.values()
        assert not set(few) - {parameter.name for parameter in known}
        for kind, kept in (
            (Parameter.POSITIONAL_OR_KEYWORD, "__defaults__"),
            (Parameter.KEYWORD_ONLY, "__kwdefaults__"),
        ):
            old = {p.name: p.default for p in known if p.kind is kind and p.default is not p.empty}
            new = {name: few.get(name, value) for name, value in old.items()}
            monkeypatch.setattr(
                function, kept, tuple(new.values()) if kept == "__defaults__" else new
            )

    less(npgd.choose_step_size, count=2, max_iter=8)
    less(analysis.denoising_curve, draws=1)
    less(
        analysis.report.verify,
        effort="quick",
        rec=RecSettings(points=200, tangent_points=4, search_starts=2, search_steps=5),
        projection=ProjectionSettings(points=4, starts=1, steps=5),
    )
    less(RunSettings.__init__, count=2, n_iter=8)


SECONDS = re.compile(r"\d[\d.]* s\b")
GAP = re.compile(r"\s*(?:\[…\]|…)\s*")
NUMBER = re.compile(r"(?<![\w.])[−-]?\d[\d,]*\.?\d*(?:e[−+-]?\d+)?(?!\w)")


def differs(shown, printed):
    """Where `shown`, with … for what it leaves out, is not `printed`; numbers to a quarter."""
    shown, printed = (" ".join(text.split()) for text in (shown, printed))
    numbers = NUMBER.findall(" ".join(GAP.split(shown)))
    words = [NUMBER.sub("@", part) for part in GAP.split(shown)]
    pattern = r".*?".join(re.escape(part) for part in words).replace("@", f"({NUMBER.pattern})")
    found = re.search(pattern.replace(r"\ ", r"\s*"), printed)
    if not found:
        return "the words differ"
    plain = [
        [float(n.replace(",", "").replace("−", "-")) for n in side]
        for side in (numbers, found.groups())
    ]
    return [
        (a, b)
        for a, b in zip(*plain, strict=True)
        if abs(a - b) > max(0.25 * max(abs(a), abs(b)), 1e-9)
    ]


def test_the_check_of_what_is_printed_can_fail():
    assert not differs("a 1.0 […] 2,000 b", "a 1.1\n and 7 more, 2,100\n b")
    assert differs("a 1.0 b", "a 1.5 b") and differs("a 1.0 b", "a 1.0 c")


@pages_with(CODE)
def test_code_runs_and_prints_what_stands_below_it(page, quick, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    text = page.read_text(encoding="utf-8")
    for block in CODE.finditer(text):
        lines = text.count("\n", 0, block.start(1))
        source = "\n" * lines + block[1]  # so that an error names the page's own line
        capsys.readouterr()
        exec(compile(source, str(page), "exec"), namespace)
        printed = SECONDS.sub("… s", capsys.readouterr().out)
        if block[2]:
            different = differs(SECONDS.sub("… s", block[2]), printed)
            assert not different, f"line {lines + 1}: {different}\n{printed}"


def shell_lines(text):
    """The commands of sh blocks, && taken apart, without comments."""
    for block in SHELL.finditer(text):
        for line in block[1].splitlines():
            yield from (part.strip() for part in line.split("&&"))


def command_line(arguments):
    """The click command that the arguments lead to, and what is left of them."""
    command, rest = typer.main.get_command(analysis_app()), list(arguments)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def analysis_app():
    from analysis.commands import app

    return app


@pages_with(SHELL)
def test_printed_commands_parse(page):
    """Whole commands: subcommand, options, types of values, and nothing missing."""
    for line in shell_lines(page.read_text(encoding="utf-8")):
        line = LAUNCHERS.sub("npgd ", line + " ")
        words = shlex.split(line, comments=True)
        if words[:1] == ["npgd"]:
            command, rest = command_line(words[1:])
            assert not hasattr(command, "commands"), f"{line}: no such command"
            try:
                command.make_context(line, rest)
            except Exception as error:
                pytest.fail(f"{line}\n{type(error).__name__}: {error}")
        elif words[:1] == ["python"] and (ROOT / words[1]).parent.name == "mathematics":
            assert (ROOT / words[1]).exists(), line  # it takes a file, and has no options
        elif words[:1] == ["python"]:
            parser, rest = script(words)
            try:
                parser.parse_args(rest)
            except SystemExit:
                pytest.fail(line)


@pages_with(INLINE)
def test_commands_in_the_text_exist(page):
    """Subcommand and options; values may stand for themselves, as in --task cs|inpainting."""
    for code in INLINE.findall(page.read_text(encoding="utf-8")):
        words = code.replace("…", "").split()
        if words[0] == "python":
            parser, rest = script(words)
            assert not options(rest) - set(parser._option_string_actions), code
            continue
        command, rest = command_line(words[1:])
        if rest and hasattr(command, "commands"):
            assert not re.match(r"[a-z-]+$", rest[0]), f"{code}: no command {rest[0]}"
        known = {"--help", "-h"}
        for option in getattr(command, "params", ()):
            known |= {*option.opts, *option.secondary_opts}
        assert not options(rest) - known, code


def test_the_page_of_commands_names_each_without_being_built():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `npgd ([a-z-]+)` \|", page, re.MULTILINE)
    assert listed == list(typer.main.get_command(analysis_app()).commands)


def options(words):
    return {word for word in words if word.startswith("-")}


def script(words):
    """Of `python FILE …` or `python -m MODULE …`: the parser that its main builds, and the rest."""
    file, rest = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
    path = ROOT / (file if file.endswith(".py") else file.replace(".", "/") + ".py")
    assert path.is_file(), f"{' '.join(words)}: no {path.name}"
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    asked = []

    class Asked(Exception):
        pass

    def parse_args(parser, argv=None):
        asked.append(parser)
        raise Asked

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, path.stem, module)
        specification.loader.exec_module(module)
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(Asked):
            module.main()
    return asked[0], rest


def test_the_checks_of_commands_can_fail(tmp_path):
    page = tmp_path / "page.md"
    for line in (
        "npgd recoverr",
        "npgd recover --nosuch",
        "npgd recover --m many",
        "npgd worst-case",
        "python -m paper_figures.table_design --nosuch",
        "python -m paper_figures.table_design --m many",
    ):
        page.write_text(f"```sh\n{line}\n```\n")
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test_printed_commands_parse(page)
    for code in (
        "npgd nosuch",
        "npgd design --nosuch",
        "python -m paper_figures.nosuch",
        "python -m paper_figures.table_design --nosuch",
    ):
        page.write_text(f"`{code}`\n")
        with pytest.raises(AssertionError):
            test_commands_in_the_text_exist(page)


def test_the_module_is_the_command():
    """`-m npgd`, which launchers of several processes take, is `npgd`."""
    run = subprocess.run(
        [sys.executable, "-m", "npgd", "--help"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert run.returncode == 0 and "verify" in run.stdout


# The doormat --------------------------------------------------------------------------------------


def test_there_is_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest, date = re.search(r"^## \[(.+)\] - (.+)$", changes, re.MULTILINE).groups()
    assert project["version"] == citation["version"] == latest
    assert str(citation["date-released"]) == date
    assert npgd.__version__ == importlib.metadata.version("npgd")


def test_commits_are_checked_as_ci_checks_them():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    checks = re.findall(r'^"\$scratch/venv/bin/(\w+)"(.*)$', (ROOT / ".ci/run").read_text(), re.M)
    assert [hook["entry"] for hook in hooks] == [
        f"{tool}{arguments}".removesuffix(" .") for tool, arguments in checks
    ]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("package", [npgd, analysis])
def test_types_are_seen_by_users(package):
    assert Path(package.__file__).with_name("py.typed").exists()
