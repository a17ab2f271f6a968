"""CIM-XML peers: pywbem, pywbemcli and its conformance suite (PyPI), wbemcli (Debian)."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from report import Report, want

HERE = Path(__file__).resolve().parent
# The version whose source distribution holds the DTD, the published schema and the suite.
SUITE = "pywbem==1.7.2"
PACKAGES = ["pywbem", "pywbemtools", "pytest", "pytest-easy-server", "lxml"]
# The suite's list of profiles knows none of tape libraries; everything else of it must pass.
SUITE_FILES = ["test_server.py", "test_profile_generic.py", "test_profile_snia_server.py",
               "test_profile_snia_smis.py"]


class Tools:
    """A Python environment with the peers, made once; `None` where PyPI can not be reached."""

    def __init__(self, directory: Path) -> None:
        self.python = directory / "bin" / "python"
        self.sources = directory / "pywbem-1.7.2"

    @staticmethod
    def find() -> "Tools | None":
        """The environment, made if it is not there yet."""
        default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "twinreel-peers"
        directory = Path(os.environ.get("TWINREEL_PEERS_VENV", default / "smis"))
        tools = Tools(directory)
        if (directory / "complete").exists():
            return tools
        shutil.rmtree(directory, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", directory], check=True, timeout=300,
                           capture_output=True)
            pip = [directory / "bin" / "pip", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", *PACKAGES], check=True, timeout=600,
                           capture_output=True)
            subprocess.run([*pip, "download", "--no-deps", "--no-binary", "pywbem", SUITE],
                           check=True, timeout=600, capture_output=True, cwd=directory)
            archive = next(directory.glob("pywbem-1.7.2.tar.gz"))
            shutil.unpack_archive(archive, directory)
        except (subprocess.SubprocessError, OSError, StopIteration):
            return None
        (directory / "complete").touch()
        return tools

    def environment(self) -> dict:
        """Without what makes pywbem look for other certificates, and with its tools on PATH."""
        kept = {k: v for k, v in os.environ.items()
                if k not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
        return {**kept, "PATH": f"{self.python.parent}:{kept.get('PATH', '')}",
                "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}


def run(command: list, timeout: int = 120, **options) -> str:
    """What a program prints; fails with it if the program does."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                          text=True, check=False, **options)
    want(done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stdout[-1500:]}")
    return done.stdout


class Server:
    """Where the server under test is, and what belongs to it."""

    def __init__(self, address: str, secure: str, user: str, password: str, config: Path,
                 program: str) -> None:
        self.address, self.secure, self.user, self.password = address, secure, user, password
        self.config, self.program = config, program

    @property
    def url(self) -> str:
        """Without TLS."""
        return f"http://{self.address}"


def check(report: Report, server: Server, work: Path) -> None:
    """All checks; what is not installed is skipped by name."""
    work.mkdir(parents=True)
    tools = Tools.find()
    if tools is None:
        report.skip("pywbem", "PyPI can not be reached")
        report.skip("pywbemcli", "PyPI can not be reached")
    else:
        pywbem(report, tools, server, work)
        pywbemcli(report, tools, server)
        suite(report, tools, server, work)
        with report.check("smis: the schema is that of the DMTF"):
            run([tools.python, HERE / "smis_schema.py", tools.sources], 600,
                env=tools.environment())
    if shutil.which("wbemcli"):
        wbemcli(report, server)
    else:
        report.skip("wbemcli", "install sblim-wbemcli")


def pywbem(report: Report, tools: Tools, server: Server, work: Path) -> None:
    """The checks of smis_client.py, which runs in the environment and says how each ended."""
    command = [tools.python, HERE / "smis_client.py", server.address, server.secure, server.user,
               server.password, tools.sources, server.config, server.program, work]
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=tools.environment())
    last = ""
    for line in process.stdout:
        last = line.rstrip() or last
        if not re.fullmatch(r"\d+ passed, \d+ failed, \d+ skipped", last):
            print(line, end="", flush=True)
    process.wait()
    counted = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
    with report.check("smis: the checks with pywbem come to their end"):
        want(counted, f"the last line is {last!r}")
    if counted:
        report.passed += int(counted[1])
        report.failed += int(counted[2])
        report.skipped += int(counted[3])


def pywbemcli(report: Report, tools: Tools, server: Server) -> None:
    """The commands that docs/wbem shows."""
    base = [tools.python.parent / "pywbemcli", "-s", server.url, "-u", server.user, "-p",
            server.password, "-d", "root/twinreel"]
    rows = [
        ("server info", "Twinreel"), ("namespace list", "root/twinreel"),
        ("profile list", "Storage Library"),
        ("profile centralinsts -o SNIA -p Server", "ObjectManager"),
        ("class get CIM_TapeDrive", "class CIM_TapeDrive"),
        ("class find CIM_*Tape*", "CIM_PhysicalTape"), ("class tree CIM_Job", "ConcreteJob"),
        ("instance enumerate CIM_TapeDrive", "instance of CIM_TapeDrive"),
        ("instance count CIM_Phys*", "CIM_PhysicalTape"),
        ("instance enumerate CIM_PhysicalMedia --no", "PhysicalTape"),
    ]
    for pull in ("yes", "no"):
        for command, expected in rows:
            with report.check(f"pywbemcli --use-pull {pull} {command}"):
                output = run([*base, "--use-pull", pull, *command.split()],
                             env=tools.environment())
                want(expected in output, f"no {expected} in {output[-800:]}")


def suite(report: Report, tools: Tools, server: Server, work: Path) -> None:
    """pywbem's end-to-end tests with the profiles of tape libraries added to their list."""
    here = work / "suite"
    shutil.copytree(tools.sources / "tests", here / "tests")
    for path in (here / "tests" / "end2endtest").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("(wbem_connection, 'smis')", "(wbem_connection, 'snia-smis')"),
                        encoding="utf-8")
    profiles = here / "tests" / "profiles" / "profiles.yml"
    more = [("Storage Library", "autonomous", "CIM_ComputerSystem", "CIM_ComputerSystem"),
            ("Storage Library Limited Access Port Elements", "component",
             "CIM_LimitedAccessPort", "CIM_ComputerSystem"),
            ("Storage Library Element Counting", "component", "CIM_Chassis",
             "CIM_ComputerSystem")]
    with profiles.open("a", encoding="utf-8") as out:
        for name, kind, central, scoping in more:
            out.write(textwrap.dedent(f"""\
                -
                  registered_org: SNIA
                  registered_name: {name}
                  type: {kind}
                  central_class: {central}
                  scoping_class: {scoping}
                  scoping_path: null
                  doc: Media Libraries
                """))
    (here / "es_server.yml").write_text(textwrap.dedent(f"""\
        vault_file: es_vault.yml
        servers:
          ref:
            description: twinreel
            user_defined:
              url: {server.url}
              default_namespace: root/twinreel
              capabilities: [interop, namespaces, profiles, snia-smis, snia-server]
        server_groups: {{}}
        """), encoding="utf-8")
    (here / "es_vault.yml").write_text(
        f"secrets:\n  ref:\n    user: {server.user}\n    password: {server.password}\n"
        "    no_verification: true\n", encoding="utf-8")
    with report.check("pywbem's end-to-end suite"):
        output = run([tools.python, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                      "--es-file", "es_server.yml", "--es-nickname", "ref",
                      "--es-schema-file", "tests/end2endtest/es_schema.yml",
                      *(f"tests/end2endtest/{name}" for name in SUITE_FILES)],
                     600, cwd=here, env={**tools.environment(), "TEST_INSTALLED": "True"})
        print(f"  {output.strip().splitlines()[-1]}", flush=True)


def wbemcli(report: Report, server: Server) -> None:
    """A client whose XML parser was written by hand."""
    base = f"http://{server.user}:{server.password}@{server.address}/root/twinreel"
    rows = [("ein", "CIM_TapeDrive", "DeviceID"), ("ei", "CIM_PhysicalTape", "PhysicalLabels"),
            ("gc", "CIM_TapeDrive", "DeviceID"), ("ecn", "", "CIM_ManagedElement"),
            ("ei", "Twinreel_ReplicationService", "Name")]
    for command, name, expected in rows:
        with report.check(f"wbemcli {command} {name}".rstrip()):
            output = run(["wbemcli", "-nl", command, f"{base}:{name}" if name else base])
            want(expected in output, f"no {expected} in {output[-800:]}")
    with report.check("wbemcli walks associations"):
        names = run(["wbemcli", "ein", f"{base}:CIM_ComputerSystem"]).split()
        library = next(n for n in names if "vtl0" in n)
        target = f"http://{server.user}:{server.password}@" + library
        output = run(["wbemcli", "ain", "-ac", "CIM_SystemDevice", target])
        want("CIM_ChangerDevice" in output, output[-800:])

