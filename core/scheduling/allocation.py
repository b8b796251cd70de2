"""A process takes what it was given of a machine, not all of it: threads, and one GPU for each rank."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CPUS = (
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPUS_ON_NODE",
    "NCPUS",  # PBS
    "PBS_NUM_PPN",  # Torque
    "NSLOTS",  # SGE
    "LSB_DJOB_NUMPROC",  # LSF
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")


def cpus(environment: Mapping[str, str], *, quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many processors this process was given: by the scheduler, the kernel's affinity, or a container's quota."""
    known = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    told = next((int(text) for name in CPUS if (text := environment.get(name, "")).isdigit() and int(text)), None)
    if told is not None:
        known.append(told)
    try:
        share, period = quota.read_text().split()
        known.append(max(1, round(int(share) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(known)


def settings(environment: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """What is to be set before a framework is imported; ``threads``, or else nothing that the user has set."""
    found = {}
    if threads is not None:
        found = dict.fromkeys(THREADS, str(threads))
    elif not any(name in environment for name in THREADS) and (count := cpus(environment)) < (os.cpu_count() or 1):
        found = dict.fromkeys(THREADS, str(count))
    rank = next((int(text) for name in LOCAL_RANKS if (text := environment.get(name, "")).isdigit()), None)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible is not None else [each.name[6:] for each in _gpus()]
    if rank is not None and len(devices) > 1:
        found["CUDA_VISIBLE_DEVICES"] = devices[rank % len(devices)]
    return found


def _gpus() -> list[Path]:
    return sorted(Path("/dev").glob("nvidia[0-9]"))
