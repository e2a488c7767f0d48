"""Address of an API server and credentials for it: in a cluster from the pod's account, elsewhere from a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # what a kubeconfig holds

from gridsweep.errors import ExecutorError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PLUGIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """An API server and the credentials for it, which no message and no `repr` shows.

    `token()` is called before every request, since Kubernetes rotates the token of a running pod's account. `forget()`
    drops a refused token, and returns whether another may be available.
    """

    url: str
    verify: ssl.SSLContext | bool = True
    token: Callable[[], str] = field(default=str, repr=False)
    forget: Callable[[], bool] = field(default=bool, repr=False)
    trust_env: bool = True

    def headers(self) -> dict[str, str]:
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def renew(self) -> bool:
        return self.forget()


def server_for(context: str | None = None, environment: Mapping[str, str] = os.environ) -> Server:
    """Return the server of this pod's cluster, else of a kubeconfig's context (by default its current context).

    Raise `ExecutorError` if there is neither.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST")
    if host and context is None and (ACCOUNT / "token").exists():
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        return Server(url, trusted, lambda: (ACCOUNT / "token").read_text().strip(), trust_env=False)
    for path in _kubeconfigs(environment):
        if path.exists():
            return _from_file(path, context)
    raise ExecutorError(
        "no cluster is configured: neither a pod's service account nor a kubeconfig was found "
        f"({', '.join(str(path) for path in _kubeconfigs(environment))}); "
        "log in to the cluster, or set KUBECONFIG"
    )


def _kubeconfigs(environment: Mapping[str, str]) -> list[Path]:
    listed = environment.get("KUBECONFIG", "")
    paths = [Path(name).expanduser() for name in listed.split(os.pathsep) if name]
    return paths or [Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"]


def _from_file(path: Path, context: str | None) -> Server:
    """Return the server of a context. Raise `ExecutorError` for an unusable file, without showing its contents."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ExecutorError(f"cannot read the kubeconfig {path} ({type(error).__name__}); set KUBECONFIG") from None
    try:
        name = context or config.get("current-context")
        if not name:
            raise ExecutorError(f"{path} has no current context; name one in executor.kubernetes.context")
        chosen = _named(config, "contexts", "context", name)
        cluster = _named(config, "clusters", "cluster", chosen["cluster"])
        user = _named(config, "users", "user", chosen["user"]) if chosen.get("user") else {}
        account = _Account(user, path.parent)
        return Server(
            str(cluster["server"]).rstrip("/"), _tls(cluster, user, path.parent), account.token, account.forget
        )
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ExecutorError(
            f"the kubeconfig {path} cannot be used: {type(error).__name__} in the context {context or 'current'}; "
            "name another one in executor.kubernetes.context"
        ) from None


def _named(config: dict[str, Any], group: str, kind: str, name: str) -> dict[str, Any]:
    for entry in config.get(group) or ():
        if entry.get("name") == name:
            found: dict[str, Any] = entry.get(kind) or {}
            return found
    names = ", ".join(str(entry.get("name")) for entry in config.get(group) or ()) or "none"
    raise ExecutorError(f"the kubeconfig has no {kind} {name!r} (it has: {names}); set executor.kubernetes.context")


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext | bool:
    if str(cluster["server"]).startswith("http://"):
        return True
    trusted = ssl.create_default_context()
    authority = _bytes(cluster, "certificate-authority", folder)
    if authority:
        trusted = ssl.create_default_context(cadata=authority.decode("ascii"))
    if cluster.get("insecure-skip-tls-verify"):
        trusted.check_hostname, trusted.verify_mode = False, ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate", folder), _bytes(user, "client-key", folder)
    if certificate and key:
        # `ssl` reads certificates only from files; this one exists during the call, in a private folder.
        with tempfile.TemporaryDirectory() as private:
            pem = Path(private, "client.pem")
            pem.touch(0o600)
            pem.write_bytes(certificate + b"\n" + key)
            trusted.load_cert_chain(pem)
    return trusted


def _bytes(section: dict[str, Any], name: str, folder: Path) -> bytes:
    """Return a section's NAME-data, decoded, or the file that NAME names, relative to the kubeconfig; else b""."""
    if data := section.get(f"{name}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise ValueError(f"{name}-data") from None
    return (folder / section[name]).read_bytes() if section.get(name) else b""


class _Account:
    """A kubeconfig's user: a token, a file with a token, or a program that prints a token."""

    def __init__(self, user: dict[str, Any], folder: Path):
        self._user, self._folder = user, folder
        self._printed: str | None = None

    def token(self) -> str:
        if token := self._user.get("token"):
            return str(token)
        if file := self._user.get("tokenFile"):
            return Path(self._folder, str(file)).read_text().strip()
        if self._user.get("exec"):
            if self._printed is None:
                self._printed = self._ask()
            return self._printed
        return ""

    def forget(self) -> bool:
        self._printed = None
        return bool(self._user.get("exec") or self._user.get("tokenFile"))

    def _ask(self) -> str:
        plugin = self._user["exec"]
        command = [str(plugin["command"]), *map(str, plugin.get("args") or ())]
        info = {"kind": "ExecCredential", "apiVersion": plugin["apiVersion"], "spec": {"interactive": False}}
        environment = {**os.environ, **{e["name"]: e["value"] for e in plugin.get("env") or ()}}
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(info)
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PLUGIN_SECONDS,
                check=True,
                stdin=subprocess.DEVNULL,
            )
            return str(json.loads(done.stdout)["status"]["token"])
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
            raise ExecutorError(
                f"the kubeconfig's program {command[0]} gave no token ({type(error).__name__}); "
                f"run it by hand, or log in to the cluster again"
            ) from None
