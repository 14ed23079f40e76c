"""Looks at a domain's kernel before anything is started: a Python file with `main(guest)`, a name that leads to one, or
a program.

Nothing of the kernel is executed here; whether its imports work is known when its domain starts.
"""

import ast
import os
import shutil
import stat
import warnings
from pathlib import Path

from hvd.toolstack.config.problems import Place, Report, nearest, shown
from hvd.transport.kernels import PYTHON, is_program

KERNEL_BYTES_MAX = 1 << 20
ELF, SCRIPT = b"\x7fELF", b"#!"
_GROUP = "hvd.kernels"
_PROGRAMS = Path(__file__).parents[2] / "domains" / "programs"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (*_DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Complaint = tuple[str, str]
"""What was expected and what was found."""


def shipped() -> list[str]:
    """The kernels that come with hvd: hvd:NAME is hvd/domains/programs/NAME.py, which this package may not import."""
    return sorted(f"hvd:{path.stem}" for path in _PROGRAMS.glob("[!_]*.py"))


class Kernels:
    """The kernels of one cluster file, each looked at once however many domains run it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._complaints: dict[Path, Complaint | None] = {}

    def check(self, report: Report, place: Place, kernel: str) -> str:
        """What the wire's `DomainConfig.kernel` is for this value: an absolute path or the name itself."""
        if "/" not in kernel and not kernel.endswith(PYTHON):
            self._check_name(report, place, kernel)
            return kernel
        path = self._directory / kernel
        if path not in self._complaints:
            look = _complaint_about_program if is_program(str(path)) else _complaint_about
            self._complaints[path] = look(path)
        if complaint := self._complaints[path]:
            report.wrong(place, *complaint)
        return str(path)

    def _check_name(self, report: Report, place: Place, kernel: str) -> None:
        ours = shipped()
        if kernel in ours or _names_a_module(kernel):
            return
        from importlib.metadata import entry_points  # slow to import, and rarely needed

        registered = [name for name in entry_points(group=_GROUP).names if ":" in name]
        if kernel not in registered:
            ours_too = f"{', '.join(ours)}, an entry point of {_GROUP}, or module:function"
            expected = f"a Python file (….py), the path of a program, {ours_too}"
            hint = nearest(kernel, [*ours, *registered]) or ("" if ":" in kernel else self._file_hint(kernel))
            report.wrong(place, expected, shown(kernel), hint)

    def _file_hint(self, kernel: str) -> str:
        if (self._directory / kernel).is_file():
            return f'for the program here write "./{kernel}"'
        program = shutil.which(kernel)
        return f'for the program write "{program}"' if program else f'for a file write "{kernel}.py"'


def _names_a_module(kernel: str) -> bool:
    """module:function with a module whose package is installed. It is not imported: that would run its code here."""
    from importlib.util import find_spec

    module, _, function = kernel.partition(":")
    package = module.partition(".")[0]
    if module == "hvd" or not all(part.isidentifier() for part in (*module.split("."), function)):
        return False
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _complaint_about_program(path: Path) -> Complaint | None:
    """Whoever runs it may see another file there, or none: then the domain says so."""
    what = f"a program (a Python file with main(guest) ends in {PYTHON})"
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            start = file.read(len(ELF)) if is_file else b""
    except PermissionError:
        start = ELF if os.access(path, os.X_OK) else b""  # one that may be run and not read
    except OSError as error:
        return what, f"{shown(str(path))}: {error.strerror}"
    if not start:
        return what, f"{shown(str(path))}: it is no regular file, or empty"
    if not os.access(path, os.X_OK):
        return what, f"{shown(str(path))}: it is not executable"
    if start != ELF and not start.startswith(SCRIPT):
        return what, f"{shown(str(path))}: it is neither an ELF file nor begins with {SCRIPT.decode()}"
    return None


def _complaint_about(path: Path) -> Complaint | None:
    try:
        source = _source(path)
    except OSError as error:
        return "a Python file", f"{shown(str(path))}: {error.strerror}"
    if source is None:
        return f"a regular file of at most {KERNEL_BYTES_MAX} bytes", shown(str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they belong to the guest's log, when it runs
            tree = ast.parse(source, str(path))
            compile(tree, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return "a Python file that compiles", f"{path.name} line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return "a Python file that compiles", f"{path.name}: {error or type(error).__name__}"
    return _complaint_about_main(tree, path.name)


def _source(path: Path) -> bytes | None:
    """The file's bytes; None if it is no regular file or too large."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        source = file.read(KERNEL_BYTES_MAX + 1)
    return source if len(source) <= KERNEL_BYTES_MAX else None


def _complaint_about_main(tree: ast.Module, file: str) -> Complaint | None:
    bindings = _bindings_of_main(tree)
    if not bindings:
        return "a function main(guest)", f"none in {file}"
    main = max(bindings, key=lambda node: node.lineno)
    if isinstance(main, ast.AsyncFunctionDef):
        return "a function main(guest)", f"async def main in {file} line {main.lineno}"
    if isinstance(main, ast.FunctionDef) and not _takes_one(main.args):
        return "main(guest), which takes one argument", f"main({_parameters(main.args)}) in {file} line {main.lineno}"
    return None


def _bindings_of_main(tree: ast.Module) -> list[ast.stmt | ast.expr]:
    """Whatever gives the module a `main`, however deep in ifs and trys; a star import may."""
    found: list[ast.stmt | ast.expr] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if (
            (isinstance(node, _DEFINITIONS) and node.name == "main")
            or (isinstance(node, ast.Name) and node.id == "main" and isinstance(node.ctx, ast.Store))
            or (isinstance(node, ast.Import | ast.ImportFrom) and _imports_main(node))
        ):
            found.append(node)
        if not isinstance(node, _SCOPES):
            pending.extend(ast.iter_child_nodes(node))
    return found


def _imports_main(node: ast.Import | ast.ImportFrom) -> bool:
    return any((alias.asname or alias.name) in {"main", "*"} for alias in node.names)


def _parameters(args: ast.arguments) -> str:
    """Their names: a default may be an expression nested deeper than ast.unparse can go."""
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    if args.vararg or args.kwonlyargs:
        names.append(f"*{args.vararg.arg if args.vararg else ''}")
    names += [arg.arg for arg in args.kwonlyargs]
    if args.kwarg:
        names.append(f"**{args.kwarg.arg}")
    shown_names = ", ".join(names)
    return shown_names if len(shown_names) <= 60 else shown_names[:60] + "…"


def _takes_one(args: ast.arguments) -> bool:
    positional = len(args.posonlyargs) + len(args.args)
    required = positional - len(args.defaults)
    keywords_required = any(default is None for default in args.kw_defaults)
    return required <= 1 and (positional >= 1 or args.vararg is not None) and not keywords_required
