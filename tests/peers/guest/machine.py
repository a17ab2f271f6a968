"""A guest with a Linux kernel and its SCSI clients: made of Debian packages, run by QEMU, gone afterwards.

The whole guest is one archive in memory: there is no disk and nothing to clean up. What a run needs of
this host goes into a second archive behind the first one, under /host. What the guest prints comes out of
its second serial line; the first is the console of the kernel and shown when a guest ends without a word.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The kernel has to be new: scsi_debug of 7.2 was the first that has tapes as they are wanted here.
RELEASE, KERNELS = "trixie", "trixie-backports"
# dash, since the shell of busybox prefers its own lsscsi and mt. Without liblzma kmod reads no module; it does
# not say that it needs it.
PACKAGES = ["busybox-static", "dash", "kmod", "liblzma5", "mtx", "mt-st", "lsscsi", "sg3-utils",
            "open-iscsi"]
MODULES = ["virtio_pci", "virtio_net", "sg", "st", "ch", "iscsi_tcp", "crc32c", "scsi_debug"]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PROGRAMS = ["qemu-system-x86_64", "cpio", "dpkg-deb", "apt-get"]
NOT_NEEDED = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/bash-completion",
              "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/systemd", "boot"]
MEMORY = "2048"


def why_not() -> str:
    """Why no guest can be run here; empty if one can."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"{missing[0]} is missing"
    return "" if os.geteuid() == 0 else "it needs root"


def run(*command: object, **more) -> str:
    """A program of this host; what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words[:4])} ... ended with {done.returncode}")
    return done.stdout


class Debian:
    """Packages of a Debian that is not this host's: lists and archives of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for part in ["lists/partial", "archives/partial"]:
            (place / part).mkdir(parents=True, exist_ok=True)
        # Nothing is installed there, so what a package needs is found with it.
        (place / "status").touch()
        mirror, signed = self.mirror(), f"[signed-by={KEYRING}]"
        suites = [RELEASE, KERNELS]
        (place / "sources.list").write_text(
            "".join(f"deb {signed} {mirror} {suite} main\n" for suite in suites), encoding="utf-8")
        self.options = [word for key, value in {
            "Dir::State::lists": place / "lists", "Dir::State::status": place / "status",
            "Dir::Cache::archives": place / "archives", "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "", "Dir::Etc::sourcelist": place / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null", "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64", "APT::Install-Recommends": "false",
            "Acquire::Languages": "none", "Debug::NoLocking": "true",
        }.items() for word in ("-o", f"{key}={value}")]
        run("apt-get", *self.options, "-qq", "update")

    @staticmethod
    def mirror() -> str:
        """Where this host has its own packages from, if that is a Debian."""
        found = run("apt-get", "indextargets", "--format", "$(REPO_URI)").splitlines()
        own = [uri for uri in found if uri.rstrip("/").endswith("/debian")]
        return own[0] if own else "http://deb.debian.org/debian"

    def userland(self, tree: Path) -> None:
        """The programs, and all that they need."""
        run("apt-get", *self.options, "-qq", "-y", "--download-only", "install", *PACKAGES)
        self.unpack(self.place / "archives", tree)

    def kernel(self, tree: Path) -> None:
        """The newest kernel with its modules, which may be packages of their own."""
        shown = run("apt-cache", *self.options, "show", f"linux-image-amd64/{KERNELS}")
        image = re.search(r"linux-image-(\d[^ ,)]*)", shown)[1]
        known = run("apt-cache", *self.options, "pkgnames", "linux-").split()
        parts = [name for part in ["image", "modules", "binary", "base"]
                 if (name := f"linux-{part}-{image}") in known]
        archives = self.place / "kernel"
        archives.mkdir(exist_ok=True)
        run("apt-get", *self.options, "-qq", "download", *parts, cwd=archives)
        self.unpack(archives, tree)

    @staticmethod
    def unpack(archives: Path, tree: Path) -> None:
        """Into a tree whose /bin, /sbin and /lib are links into /usr, which tar has to leave so."""
        for package in sorted(archives.glob("*.deb")):
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package],
                                  stdout=subprocess.PIPE) as pipe:
                subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", tree],
                               stdin=pipe.stdout, check=True)


def modules(tree: Path) -> None:
    """Leaves the modules that are wanted, and those that they need."""
    place = next((tree / "usr/lib/modules").iterdir())
    run("chroot", tree, "/usr/sbin/depmod", place.name)
    needs = {}
    for line in (place / "modules.dep").read_text(encoding="utf-8").splitlines():
        path, others = line.split(":")
        needs[path] = others.split()
    name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needs}
    kept = {path for want in MODULES if (own := name.get(want)) for path in [own, *needs[own]]}
    for path in needs.keys() - kept:
        (place / path).unlink()
    run("chroot", tree, "/usr/sbin/depmod", place.name)


def archive(tree: Path, to: Path) -> None:
    """A tree as the kernel unpacks it at its start."""
    with to.open("wb") as file:
        names = subprocess.run(["find", ".", "-print0"], cwd=tree, stdout=subprocess.PIPE,
                               check=True).stdout
        subprocess.run(["cpio", "--null", "--create", "--quiet", "--format=newc"], cwd=tree,
                       input=names, stdout=file, check=True)


def prepare(place: Path) -> None:
    """Makes kernel and archive of the guest, unless that was done."""
    if (place / "guest.cpio").exists():
        return
    with tempfile.TemporaryDirectory(dir=place) as work:
        tree = Path(work) / "tree"
        for part in ["bin", "sbin", "lib", "lib64"]:
            (tree / "usr" / part).mkdir(parents=True)
            (tree / part).symlink_to(f"usr/{part}")
        for part in ["proc", "sys", "dev", "run", "tmp", "root", "var", "host", "busybox",
                     "etc/iscsi"]:
            (tree / part).mkdir(parents=True)
        (tree / "var/run").symlink_to("/run")
        debian = Debian(place / "debian")
        debian.userland(tree)
        debian.kernel(tree)
        modules(tree)
        # In /boot or beside its modules, depending on the kernel.
        shutil.move(next(tree.glob("**/vmlinuz*")), place / "vmlinuz")
        for part in NOT_NEEDED:
            shutil.rmtree(tree / part, ignore_errors=True)
        (tree / "bin/sh").unlink(missing_ok=True)
        (tree / "bin/sh").symlink_to("dash")
        (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
        made = Path(work) / "guest.cpio"
        archive(tree, made)
        # Whole or not at all.
        made.rename(place / "guest.cpio")
    shutil.rmtree(place / "debian")


def boot(place: Path, files: list, jobs: list, seconds: int) -> dict:
    """Runs jobs, which are shell commands, one after the other in a new guest with these files in its
    PATH. How each of them ended; one that is missing was not reached."""
    prepare(place)
    with tempfile.TemporaryDirectory(dir=place) as work:
        work = Path(work)
        host = work / "tree/host"
        host.mkdir(parents=True)
        for file in files:
            shutil.copy(file, host)
        (host / "jobs").write_text("".join(f"{job}\n" for job in jobs), encoding="utf-8")
        shutil.copy(HERE / "init", work / "tree/init")
        archive(work / "tree", work / "host.cpio")
        with (work / "initrd").open("wb") as whole:
            for part in [place / "guest.cpio", work / "host.cpio"]:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, whole)
        return watch(work, place / "vmlinuz", jobs, seconds)


def accelerator() -> str:
    """KVM where the processor has it: the device alone may be there and not work."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    is_there = os.access("/dev/kvm", os.W_OK) and re.search(r"^flags.* (vmx|svm)\b", flags, re.M)
    return "kvm" if is_there else "tcg,thread=multi"


def watch(work: Path, kernel: Path, jobs: list, seconds: int) -> dict:
    """Runs QEMU, and passes on what the guest prints."""
    command = ["timeout", "--signal=KILL", str(seconds), "qemu-system-x86_64", "-nodefaults",
               "-no-user-config", "-no-reboot", "-display", "none", "-accel", accelerator(),
               "-cpu", "max", "-smp", "2", "-m", MEMORY,
               "-nic", "user,model=virtio-net-pci,ipv6=off", "-serial", f"file:{work}/console",
               "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(work / "initrd"),
               "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    ended = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          errors="replace") as guest:
        for line in guest.stdout:
            if found := re.match(r"== job (\d+) ended with (\d+)", line):
                ended[jobs[int(found[1])]] = int(found[2])
            else:
                print(f"  | {line.rstrip()}", flush=True)
    if len(ended) < len(jobs):
        console = (work / "console").read_text(encoding="utf-8", errors="replace")
        print(f"the guest ended with {guest.returncode}; its console:\n{console[-3000:]}",
              file=sys.stderr)
    return ended
