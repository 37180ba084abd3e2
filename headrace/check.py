"""Can this machine hold headrace? Says what is here, what will be downloaded, and the way out where it cannot work.

Runs before anything is installed, on any Python 3: the standard library only, and no syntax newer than CPython 3.6, so that an old
interpreter prints a sentence and not a traceback. What is for people goes to stderr; stdout is the interpreter to build with.
"""

import json
import os
import platform
import shutil
import subprocess
import sys

DISK_GB = 3.0
MEMORY_GB = 3.0
DOWNLOAD = "about 610 MB of Python packages (Flink is half of it) and 100 MB of Kafka and connector jars"
NAMES = ("python3.12", "python3.11", "python3.10", "python3")
PROBE = """
import json, platform, sys
def has(name):
    try: __import__(name)
    except ImportError: return False
    return True
print(json.dumps({"path": sys.executable, "implementation": platform.python_implementation().lower(), "version": list(sys.version_info[:3]),
                  "venv": has("venv") and has("ensurepip")}))
"""
CLIENT = "The client alone installs anywhere with `pip install .`"


def system_problem(system, machine, libc):
    """A sentence when no wheels exist for this system, else "". `system` as sys.platform, `machine` as platform.machine()."""
    if system == "darwin":
        return "macOS has no wheels of apache-beam 2.61 for Flink: use a Linux x86-64 machine, container or virtual machine. " + CLIENT
    if system in ("win32", "cygwin"):
        return "Windows has no wheels of apache-flink 2.3: run `wsl --install`, then do the same inside that Linux. " + CLIENT
    if not system.startswith("linux"):
        return f"{system} has no wheels of apache-flink 2.3: use a Linux x86-64 machine. {CLIENT}"
    if machine.lower() not in ("x86_64", "amd64"):
        return f"This processor ({machine}) has no wheels of apache-flink 2.3: use an x86-64 machine. {CLIENT}"
    if libc and libc != "glibc":
        return f"This Linux uses {libc}, and the wheels need glibc: use Debian, Ubuntu, Fedora or another glibc system. {CLIENT}"
    return ""


def python_problem(python):
    """A sentence when headrace's stack cannot be installed on `python` (one answer of PROBE), else ""."""
    version = tuple(python["version"])
    words = "{} {}.{}".format(python["implementation"], *version[:2])
    if python["implementation"] != "cpython":
        return words + " has no wheels of Flink 2.3 and Beam 2.61; install CPython 3.12 beside it"
    if version[:2] > (3, 12):
        return words + " is too new: Flink 2.3 and Beam 2.61 have wheels up to CPython 3.12; install CPython 3.12 beside it"
    if version[:2] < (3, 10):
        return words + " is too old: install CPython 3.12 beside it"
    if not python["venv"]:
        return f"{words} has no venv and ensurepip (Debian, Ubuntu: apt-get install python{version[0]}.{version[1]}-venv)"
    return ""


def choose(pythons):
    """(the first python that will do, or None; the sentences about those before it)."""
    said: list = []
    for python in pythons:
        problem = python_problem(python)
        if not problem:
            return python, said
        said.append(problem)
    return None, said


def room_problem(disk_gb, memory_gb):
    """A sentence when there is too little disk or memory, else ""."""
    if disk_gb < DISK_GB:
        return f"Only {disk_gb:.1f} GB of disk are free here and {DISK_GB:.0f} are needed: free some, or clone into a larger disk"
    if memory_gb < MEMORY_GB:
        return f"This machine has {memory_gb:.1f} GB of memory and the stack needs {MEMORY_GB:.0f}: use a larger one"
    return ""


def verdict(facts):
    """(the interpreter's path or "", the sentence that ends the check). `facts` as `look` gives them."""
    python, said = choose(facts["pythons"])
    problem = system_problem(facts["system"], facts["machine"], facts["libc"]) or room_problem(facts["disk_gb"], facts["memory_gb"])
    if problem:
        return "", problem + "."
    if python is None:
        tried = "; ".join(sorted(set(said))) or "there is no python3 on PATH; install CPython 3.12"
        return "", tried + ", then: make setup PYTHON=python3.12"
    return python["path"], "This machine will do."


def probe(command):
    """What the interpreter `command` says of itself, or None when it does not run."""
    try:
        out = subprocess.check_output([command, "-c", PROBE], stderr=subprocess.DEVNULL, timeout=30)
        return json.loads(out.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def look(wanted, folder):
    """The facts of this machine; `wanted`: the interpreter that the user named, or ""."""
    names = [wanted] if wanted else [name for name in NAMES if shutil.which(name)]
    found: dict = {}
    for python in filter(None, map(probe, names)):
        found.setdefault(os.path.realpath(python["path"]), python)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        memory = MEMORY_GB  # this system does not say
    return {
        "system": sys.platform,
        "machine": platform.machine(),
        "libc": platform.libc_ver()[0] or ("musl" if os.path.exists("/etc/alpine-release") else ""),
        "disk_gb": shutil.disk_usage(folder).free / 1e9,
        "memory_gb": memory,
        "pythons": list(found.values()),
    }


def main(arguments):
    """check.py [PYTHON [CACHE]]: 0 and the interpreter on stdout, or 1; the sentences on stderr."""
    wanted = arguments[0] if arguments else ""
    cache = arguments[1] if len(arguments) > 1 else "~/.cache"
    facts = look(wanted, ".")
    path, sentence = verdict(facts)
    lines = [
        "system     {} {}, {}".format(facts["system"], facts["machine"], facts["libc"] or "libc unknown"),
        "disk       {:.0f} GB free, {:.0f} needed".format(facts["disk_gb"], DISK_GB),
        "memory     {:.0f} GB, {:.0f} needed".format(facts["memory_gb"], MEMORY_GB),
    ]
    for python in facts["pythons"]:
        note = python_problem(python) or ("will be used" if python["path"] == path else "will do")
        lines.append("python     {} {}: {}".format(".".join(map(str, python["version"])), python["path"], note))
    if wanted and not facts["pythons"]:
        lines.append("python     " + wanted + " does not run")
    if path:
        lines.append("download   " + DOWNLOAD)
        lines.append("into       .venv here (1.5 GB) and " + os.path.join(cache, "headrace", "jars"))
    sys.stderr.write("\n".join([*lines, sentence]) + "\n")
    if path:
        print(path)
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
