# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems for hosts: a slim Debian with systemd, and beside it the packages that a role may install.

The packages lie in a repository inside the image, the only source that its apt knows. So `apt-get install` on a running
host needs no network, and the maintainer scripts run as on a fresh machine: Debian starts what it installs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RELEASES = ("trixie", "bookworm")  # Debian 13, Debian 12
ADMIN_UID = 1000
BUILD_TIMEOUT = 900.0  # seconds

# What a host has before any role has run. No udev: the kernel of a host is the machine's, and so are its devices.
INSTALLED = """
    systemd systemd-sysv dbus python3 python3-apt sudo openssh-server iproute2 iptables procps iputils-ping
    ca-certificates
"""
# Only there: what Debian 13's own images have by a recommendation (rp_filter=2 on every interface, for one).
INSTALLED_ON = {"trixie": "linux-sysctl-defaults", "bookworm": ""}
# What apt can install on a host, dependencies included. Recommended packages are left out: apt goes on without them.
OFFERED = """
    corosync pacemaker pacemaker-cli-utils resource-agents conntrackd conntrack nftables libxml2-utils tcpdump
    curl awscli keepalived
"""
REPOSITORY = "srv/packages"

# Units that would reach for the machine's kernel (modules, debugfs, huge pages, binfmt), for a console that is not
# there, or for apt at a time of their own choosing.
MASKED = """
    systemd-modules-load.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
    sys-fs-fuse-connections.mount dev-hugepages.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service
    systemd-firstboot.service systemd-time-wait-sync.service console-getty.service getty.target apt-daily.timer
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
"""
FILES = {
    "etc/apt/sources.list": f"deb [trusted=yes] file:/{REPOSITORY} ./\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/resolv.conf": "",
    "etc/hostname": "debian\n",
    # Empty: systemd gives each host its own at the first boot ("uninitialized" would also enable every unit).
    "etc/machine-id": "",
    "etc/sudoers.d/admin": "admin ALL=(ALL) NOPASSWD: ALL\n",
    "etc/ssh/sshd_config.d/10-key-only.conf": "PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
    # Host keys are made at the first boot, before Debian's own check of the configuration, which wants them.
    "etc/systemd/system/ssh.service.d/host-keys.conf": (
        "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
    ),
}
DIRECTORIES = ("var/log/journal",)  # makes the journal persistent: it can be read after a power cut


class ImageError(Exception):
    """An image could not be built; the message names the step and ends with the tool's last lines."""


def cache_root() -> Path:
    """Where images are kept: `$EVERNAT_CACHE`, by default /var/cache/evernat-lab."""
    return Path(os.environ.get("EVERNAT_CACHE") or "/var/cache/evernat-lab")


def ensure(release: str) -> Path:
    """The root file system of a Debian `release` ("trixie" or "bookworm"), built now if the cache has none. Needs root.

    Never write to it: hosts use it as the lower layer of their disks. Raises ImageError.
    """
    if release not in RELEASES:
        raise ImageError(f"no recipe for Debian release {release!r}, only for {', '.join(RELEASES)}")
    images = cache_root() / "images"
    image = images / f"{release}-{recipe_key(release)}"
    if image.is_dir():
        return image
    images.mkdir(parents=True, exist_ok=True)
    with _locked(images / f"{release}.lock"):
        if not image.is_dir():  # another builder may have finished while this one waited
            _build(release, image)
    return image


def recipe_key(release: str) -> str:
    """A short hash of everything that decides what is in the image, but for the day's versions of the packages.

    That is this file, so that no part of the recipe can be forgotten. A needless build costs half a minute.
    """
    return hashlib.sha256(release.encode() + Path(__file__).read_bytes()).hexdigest()[:12]


def debian_sources(release: str, targets: str) -> list[str]:
    """Lines of sources.list for `release` at the sites that the machine itself uses.

    `targets` has a line "ORIGIN RELEASE URI" for each of the machine's package indices. Empty if none is Debian's.
    """
    rows = [line.split() for line in targets.splitlines()]
    debian = [(row[1], row[2]) for row in rows if len(row) == 3 and row[0] == "Debian"]
    main = [uri for suite, uri in debian if "-" not in suite]
    security = [uri for suite, uri in debian if suite.endswith("-security")]
    lines = [f"{main[0]} {release} main", f"{main[0]} {release}-updates main"] if main else []
    if main and security:
        lines.append(f"{security[0]} {release}-security main")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    option = f"[signed-by={keyring}] " if Path(keyring).exists() else ""
    return [f"deb {option}{line}" for line in lines]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + BUILD_TIMEOUT
    with path.open("w") as lock:
        os.set_inheritable(lock.fileno(), True)  # a builder that is killed holds it until its tools are gone, too
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ImageError(f"{path} is still locked by another builder after {BUILD_TIMEOUT:g} s") from None
                time.sleep(0.2)
        yield


def _build(release: str, image: Path) -> None:
    """Build beside the final place and rename: an image that has its name is complete. The caller holds the lock."""
    if shutil.which("mmdebstrap") is None:
        raise ImageError("mmdebstrap is missing: apt-get install mmdebstrap")
    for left in image.parent.glob(f".{release}-*"):
        shutil.rmtree(left)
    draft = image.parent / f".{image.name}"
    log = image.parent / f"{release}.log"
    log.write_text("")
    _run(_mmdebstrap(release, draft), log)
    _run(["chroot", draft, "useradd", "--create-home", "--uid", str(ADMIN_UID), "--shell", "/bin/bash", "admin"], log)
    _configure(draft)
    draft.rename(image)


def _mmdebstrap(release: str, target: Path) -> list[str | Path]:
    """The command that unpacks a release into `target`, with the packages that apt will offer in it."""
    fetch = (
        f'mkdir -p "$1/{REPOSITORY}/partial" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --download-only '
        f'-o Dir::Cache::archives="$1/{REPOSITORY}" install {" ".join(OFFERED.split())}'
    )
    included = INSTALLED.split() + INSTALLED_ON[release].split()
    return [
        # In namespaces that end with the builder: if it is killed, no process and no mount stays in the half-made tree.
        *["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
        *["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(included)}"],
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "doc")),
        "--dpkgopt=path-include=/usr/share/doc/*/examples/*",
        '--aptopt=Acquire::Languages "none"',
        f"--customize-hook={fetch}",
        release,
        target,
        *debian_sources(release, _index_targets()),
    ]


def _index_targets() -> str:
    argv = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    return done.stdout if done.returncode == 0 else ""


def _run(argv: Sequence[str | Path], log: Path) -> None:
    with log.open("a") as output:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=BUILD_TIMEOUT,
                close_fds=False,  # the lock goes along
            )
        except subprocess.TimeoutExpired:
            raise ImageError(f"{argv[0]} took longer than {BUILD_TIMEOUT:g} s (see {log})") from None
    if done.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ImageError(f"{' '.join(map(str, argv))} ended with code {done.returncode} (see {log}):\n{last}")


def _configure(root: Path) -> None:
    """Everything that is done to the unpacked system from outside."""
    for unit in MASKED.split():
        _fresh(root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for name, text in FILES.items():
        _fresh(root / name).write_text(text)
    (root / "etc/sudoers.d/admin").chmod(0o440)
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    keys = root / "home/admin/.ssh"
    keys.mkdir(mode=0o700)
    os.chown(keys, ADMIN_UID, ADMIN_UID)
    repository = root / REPOSITORY
    for name in ("partial", "lock"):
        left = repository / name
        left.rmdir() if left.is_dir() else left.unlink(missing_ok=True)
    index = _package_index(repository)
    (repository / "Packages").write_text(index)
    (repository / "Release").write_text(_release_file(index))
    # No package lists, and none of late: a role that forgets to update them fails here as it would on a new instance.
    os.utime(root / "var/lib/apt/lists", (0, 0))


def _fresh(path: Path) -> Path:
    """`path` with its parents made and nothing in its place, so that a write cannot follow a link out of the image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def _package_index(repository: Path) -> str:
    """The text of a `Packages` file for the .deb files of a folder."""
    entries = []
    for package in sorted(repository.glob("*.deb")):
        control = subprocess.run(
            ["dpkg-deb", "--field", package], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        entries.append(
            f"{control.rstrip()}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"
        )
    return "\n".join(entries)


def _release_file(index: str) -> str:
    """The text of a `Release` file: with it apt asks for `Packages` alone, not for every packed form of it."""
    content = index.encode()
    return f"Label: hosts of the lab\nSHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} Packages\n"
