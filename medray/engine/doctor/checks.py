"""What the doctor looks at: each check takes what was found and gives one line. No check raises, none shows a key."""

from __future__ import annotations

import base64
import os
import re
import socket
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import Request, urlopen

from medray.shards.folders import INITIAL, runs_store, shards_store
from medray.shards.store import Store, place

SKEW_WARN_S, SKEW_FAIL_S = 5.0, 300.0  # S3 refuses a request that is signed 15 minutes off
OBJECT_STORE_WARN_BYTES = 2e9


@dataclass(frozen=True)
class Check:
    """One line of the doctor's: what was found, and the way out where it is not as it should be."""

    name: str
    status: Literal["ok", "warn", "FAIL"]
    found: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.name:<14}  {self.found}" + (f"  → {self.way_out}" if self.way_out else "")


@dataclass(frozen=True)
class Node:
    """One node, as it describes itself to the driver."""

    name: str
    versions: tuple[str, str, str]  # of Python, Ray and torch
    gpus: tuple[tuple[str, tuple[int, int]], ...]  # name and compute capability of each GPU that torch sees
    ray_gpus: int  # that Ray hands out
    archs: tuple[str, ...]  # that this build of torch has kernels for
    disk_free_bytes: int  # where Ray spills objects
    object_store_bytes: float
    shared_memory_bytes: int
    skew_s: float  # the node's clock minus the driver's
    storage: str | None  # what went wrong in writing, reading and renaming there; None: nothing
    sees_driver: bool  # it reads what the driver wrote to the same place


def shown(uri: str) -> str:
    """A URI without keys and options, also of a kind that is no store's."""
    return re.sub(r"//[^/@]*@", "//", uri.split("?")[0])


def redacted(text: str, uri: str) -> str:
    """The first line of an error's text, without what is secret in ``uri``."""
    parts = urlsplit(uri)
    userinfo = parts.netloc.rpartition("@")[0]
    secrets = {userinfo, unquote(userinfo), *userinfo.split(":"), *unquote(userinfo).split(":")}
    secrets |= {value for key, value in parse_qsl(parts.query) if re.search("key|secret|token|password", key, re.I)}
    line = (text.splitlines() or [""])[0].replace(uri, shown(uri))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        line = line.replace(secret, "***")
    return line[:200]


# ------------------------------------------------------------------------------------------------ Ray and its nodes


def check_address(address: str | None, timeout_s: float = 5.0) -> Check | None:
    """What of RAY_ADDRESS would make Ray wait for minutes; None where it may try."""
    if address is None or address in ("auto", "local"):
        return None
    if address.startswith("http"):
        return Check(
            "Ray", "FAIL", f"RAY_ADDRESS={shown(address)} takes jobs, it is no cluster that a script can join",
            "submit it: ray job submit --working-dir . -- python jobs/doctor.py …, or unset RAY_ADDRESS",
        )  # fmt: skip
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError) as error:
        return Check(
            "Ray", "FAIL", f"nothing answers at RAY_ADDRESS={address} ({error})",
            "start the cluster (ray up cluster.yaml), or unset RAY_ADDRESS to use this machine",
        )  # fmt: skip
    return None


def check_versions(driver: tuple[str, str, str], nodes: Sequence[Node]) -> Check:
    differing = [
        f"{node.name} has {what} {theirs}"
        for node in nodes
        for what, ours, theirs in zip(("Python", "Ray", "torch"), driver, node.versions, strict=True)
        if (ours.rsplit(".", 1)[0] != theirs.rsplit(".", 1)[0] if what == "Python" else ours != theirs)
    ]
    python, ray_version, torch_version = driver
    here = f"Python {python}, Ray {ray_version}, torch {torch_version}"
    if differing:
        return Check("versions", "FAIL", f"{'; '.join(differing)}; the driver {here}", "install the same on all nodes")
    return Check("versions", "ok", f"{here} on {_count(len(nodes), 'node')}")


def check_gpus(node: Node, wanted: bool = False) -> Check:
    """GPUs against the kernels of torch's build, with fp16 or bf16 as the GPU has it."""
    name = f"GPU {node.name}"
    if node.ray_gpus > len(node.gpus):
        return Check(
            name, "FAIL", f"Ray hands out {node.ray_gpus} GPUs, torch {node.versions[2]} sees {len(node.gpus)}",
            "nvidia-smi on the node tells whether the driver is there; a +cpu build of torch sees none",
        )  # fmt: skip
    if not node.gpus:
        if wanted:
            return Check(name, "warn", "none: a CPU machine", "it will not train a run that asks for --gpu")
        return Check(name, "ok", "none: a CPU machine; medray trains on CPUs unless other nodes have GPUs")
    for title, capability in node.gpus:
        if not has_kernels(capability, node.archs):
            return Check(
                name, "FAIL",
                f"{title} is sm_{capability[0]}{capability[1]}, torch {node.versions[2]} is built for {' '.join(node.archs)}",
                "uv sync installs torch 2.10.0, whose wheel serves sm_70 to sm_120; else choose another GPU in cluster.yaml",
            )  # fmt: skip
    titles = sorted({f"{title} sm_{a}{b}" for title, (a, b) in node.gpus})
    precision = "bf16" if all(capability >= (8, 0) for _, capability in node.gpus) else "fp16 with a gradient scaler"
    return Check(name, "ok", f"{len(node.gpus)} × {', '.join(titles)}; torch has kernels for it; {precision}")


def has_kernels(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """sm_XY runs on the same X from Y on; compute_XY is compiled on the GPU, for all that are newer."""
    for arch in archs:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", arch)
        if match:
            kind, built = match[1], (int(match[2]), int(match[3]))
            same = built[0] == capability[0] and built[1] <= capability[1]
            if same or (kind == "compute" and built <= capability):
                return True
    return False


def check_disk(node: Node, minimum_bytes: float) -> Check:
    name, free = f"disk {node.name}", f"{node.disk_free_bytes / 1e9:.1f} GB free where Ray spills"
    if node.disk_free_bytes < minimum_bytes:
        return Check(
            name, "FAIL", f"{free}, {minimum_bytes / 1e9:.1f} GB are wanted (--min-disk-gb)",
            "make room, give the nodes a larger VolumeSize in cluster.yaml, or lower the flag",
        )  # fmt: skip
    return Check(name, "ok", free)


def check_object_store(node: Node) -> Check:
    name, size = f"memory {node.name}", f"object store {node.object_store_bytes / 1e9:.1f} GB"
    if node.object_store_bytes > node.shared_memory_bytes:
        return Check(
            name, "warn", f"{size}, /dev/shm {node.shared_memory_bytes / 1e9:.1f} GB: it lies on the disk, and is slow",
            "give the container more (docker run --shm-size)",
        )  # fmt: skip
    if node.object_store_bytes < OBJECT_STORE_WARN_BYTES:
        return Check(
            name, "warn", f"{size}: batches will spill to the disk",
            "ray start --object-store-memory, or a machine with more memory",
        )  # fmt: skip
    return Check(name, "ok", size)


# ----------------------------------------------------------------------------------------------------------- clocks


def check_skew(name: str, seconds: float, what: str, way_out: str) -> Check:
    """``seconds``: that clock minus the driver's."""
    found = f"{what} is {_span(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} the driver's"
    if abs(seconds) > SKEW_FAIL_S:
        return Check(name, "FAIL", f"{found}; object storage refuses such requests", way_out)
    if abs(seconds) > SKEW_WARN_S:
        return Check(name, "warn", found, way_out)
    return Check(name, "ok", f"{what} agrees with the driver's ({seconds:+.1f} s)")


def check_shard_times(out: Store, now_s: float) -> Check | None:
    """Shards that are newer than now; None where there are no shards yet."""
    times: dict[str, float] = {}
    shards = shards_store(out)
    for folder in shards.folders():
        names = shards.sub(folder).names(".parquet")
        infos = out.filesystem.get_file_info([shards.sub(folder).path(name) for name in names])
        times |= {f"{folder}/{i.base_name}": i.mtime_ns / 1e9 for i in infos if i.mtime_ns is not None}
    if not times:
        return None
    name, newest = max(times, key=times.__getitem__), max(times.values())
    if newest - now_s > SKEW_WARN_S:
        late = sum(time - now_s > SKEW_WARN_S for time in times.values())
        return Check(
            "shard times", "warn", f"{late} of {len(times)} shards are newer than now, {name} by {_span(newest - now_s)}",
            "the clock of this machine, or of the one that wrote them, is wrong: set it by NTP (timedatectl)",
        )  # fmt: skip
    return Check("shard times", "ok", f"{len(times)} shards, the newest {_span(now_s - newest)} old")


# ------------------------------------------------------------------------------------------ storage, MLflow, weights


def try_storage(uri: str) -> str | None:
    """Write, read, rename and delete a small file; what went wrong, or None. Runs on the driver and on each node."""
    token = uuid.uuid4().hex
    first, second = f".doctor-{token}", f".doctor-{token}-renamed"
    step = "opened"
    try:
        store = Store(uri)
        step = "written"
        store.write_bytes(first, token.encode())
        step = "read back"
        if store.read_bytes(first) != token.encode():
            raise OSError("what was read differs from what was written")
        step = "renamed"
        store.filesystem.move(store.path(first), store.path(second))
        if store.read_bytes(second) != token.encode() or store.exists(first):
            raise OSError("a renamed file is not where it should be")
        step = "deleted"
        store.delete(second)
    except (OSError, ValueError) as error:
        for name in (first, second):
            _forget(uri, name)
        return f"a file cannot be {step} ({redacted(str(error), uri)})"
    return None


def check_storage(where: str, uri: str, problem: str | None, sees_driver: bool = True) -> Check:
    name = f"storage {where}"
    if problem is not None:
        return Check(
            name, "FAIL", f"{shown(uri)}: {problem}",
            "check the place and the rights of this machine (its role, its keys), or choose another --out",
        )  # fmt: skip
    if not sees_driver:
        return Check(
            name, "FAIL", f"{shown(uri)}: does not hold what the driver wrote there; it is another disk",
            "give --out as a URI (s3://, gs://) or as a folder that all nodes mount",
        )  # fmt: skip
    return Check(name, "ok", f"{shown(uri)}: written, read, renamed, deleted")


def check_mlflow(uri: str | None, timeout_s: float = 5.0) -> Check:
    if uri is None:
        return Check("MLflow", "ok", "a database in --out; it needs no server")
    if not uri.startswith("http"):
        path = Path(uri.removeprefix("sqlite:///"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with sqlite3.connect(path, timeout=timeout_s) as database:
                database.execute("PRAGMA user_version").fetchone()
                database.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, OSError) as error:
            return Check("MLflow", "FAIL", f"{shown(uri)}: {error}", "choose a folder that can be written")
        return Check("MLflow", "ok", f"{shown(uri)}: a database that can be written")
    try:
        with urlopen(_mlflow_request(uri), timeout=timeout_s) as answer:
            version = answer.read(100).decode("utf-8", "replace")
    except HTTPError as error:
        return Check(
            "MLflow", "FAIL", f"{shown(uri)}: answers {error.code} {error.reason}",
            "MLFLOW_TRACKING_USERNAME and _PASSWORD or MLFLOW_TRACKING_TOKEN for 401; --allowed-hosts of the server for 403",
        )  # fmt: skip
    except (OSError, ValueError) as error:
        return Check(
            "MLflow", "FAIL", f"{shown(uri)}: does not answer ({redacted(str(getattr(error, 'reason', error)), uri)})",
            "start it (mlflow server --host 127.0.0.1 --port 5000), open the tunnel (ray attach cluster.yaml -p 5000), or "
            "leave --tracking-uri out",
        )  # fmt: skip
    return Check("MLflow", "ok", f"{shown(uri)}: answers, version {version.strip()[:20]}")


def _mlflow_request(uri: str) -> Request:
    """The server's version, with the name and password that MLflow would send."""
    request = Request(f"{shown(uri).rstrip('/')}/version")
    userinfo = unquote(urlsplit(uri).netloc.rpartition("@")[0])
    user = (
        userinfo or f"{os.environ.get('MLFLOW_TRACKING_USERNAME', '')}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    )
    if user != ":":
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def check_weights(
    backbone: str, weights: str | None, pretrained: bool, out: Store, timeout_s: float = 10.0, hub: str | None = None
) -> Check:
    """Weights that a backbone starts from, without loading them. ``hub``: another address of timm's hub."""
    from medray.nn.backbone import check_backbone  # timm imports torch: seconds that the other checks need not wait

    name = "weights"
    try:
        check_backbone(backbone)
    except ValueError as error:
        return Check(name, "FAIL", str(error).partition("; ")[0], str(error).partition("; ")[2])
    if weights is not None:
        uri = weights.replace("{backbone}", backbone)
        try:
            store = Store(uri)
            with store.filesystem.open_input_file(store.root) as stream:
                size = stream.size()
            if size == 0:
                raise OSError("the file is empty")
        except (OSError, ValueError) as error:
            return Check(
                name, "FAIL", f"{backbone}: {shown(uri)} cannot be read ({redacted(str(error), uri)})",
                "correct --weights FILE_OR_URI ({backbone} in it becomes the name), or leave it out for timm's hub",
            )  # fmt: skip
        return Check(name, "ok", f"{backbone}: {place(uri)}, {size / 1e6:.0f} MB")
    if not pretrained:
        return Check(name, "ok", f"{backbone}: random ones (--no-pretrained)")
    if runs_store(out, backbone).exists(INITIAL):
        return Check(name, "ok", f"{backbone}: fetched before, in {out.uri}/runs")
    return _check_hub(backbone, timeout_s, hub)


def _check_hub(backbone: str, timeout_s: float, hub: str | None) -> Check:
    import huggingface_hub
    import timm

    known = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        return Check("weights", "warn", f"{backbone}: timm's hub has none", "--weights FILE_OR_URI, or --no-pretrained")
    files = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(huggingface_hub.try_to_load_from_cache(known.hf_hub_id, file), str) for file in files):
        return Check("weights", "ok", f"{backbone}: in this machine's cache")
    try:
        url = huggingface_hub.hf_hub_url(known.hf_hub_id, files[0], endpoint=hub)
        urlopen(Request(url, method="HEAD"), timeout=timeout_s).close()
    except (OSError, ValueError) as error:
        return Check(
            "weights", "FAIL", f"{backbone}: neither in the cache nor to be had from timm's hub ({str(error)[:100]})",
            "go online once, give a file with --weights FILE_OR_URI, or --no-pretrained",
        )  # fmt: skip
    return Check("weights", "ok", f"{backbone}: timm's hub has them; the driver fetches them once")


def _forget(uri: str, name: str) -> None:
    try:
        Store(uri).delete(name)
    except (OSError, ValueError):
        return


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
