"""
What follows from other facts: workload, service and version by Istio's rules.

Sources: Istio `pkg/kube/labels` (canonical name and revision), its injection template (63 characters, no
`-_.` at the end; an empty label counts as absent) and `GetDeployMetaFromPod` in `pkg/kube` (the workload
of a pod). The injector sees a pod's owner; a pod sees only its own name and labels, which is enough for
Deployments, Argo Rollouts, StatefulSets, Jobs and CronJobs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Derived", "canonical_name", "canonical_revision", "workload_name"]

_NAME_LABELS = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_REVISION_LABELS = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_WORKLOAD_LABEL = "service.istio.io/workload-name"
_HASH_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
_JOB_LABELS = ("batch.kubernetes.io/job-name", "job-name")
_STATEFUL_SET_LABEL = "statefulset.kubernetes.io/pod-name"
_CRON_JOB = re.compile(r"(.+)-[0-9]{8,10}", re.ASCII)
_ORDINAL = re.compile(r"(.+)-[0-9]+", re.ASCII)
# The five characters at the end of a generated name: k8s.io/apimachinery/pkg/util/rand leaves out vowels.
_RANDOM = re.compile(r"-[a-z0-9]{5}", re.ASCII)
_MAX_NAME = 63


class Derived(NamedTuple):
    """A derived value and the facts that it was derived from, in words."""

    value: str
    basis: str


def canonical_name(labels: Mapping[str, str], workload: str | None) -> Derived | None:
    """
    The name of the service that this pod belongs to; `None` if neither labels nor workload say.

    First of the labels `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`; else the workload.
    """
    named = _first(labels, _NAME_LABELS) or Derived(workload or "", "workload_name")
    value = named.value[:_MAX_NAME].rstrip("-_.")
    return named._replace(value=value) if value else None


def canonical_revision(labels: Mapping[str, str]) -> Derived:
    """
    The version of the service that this pod runs.

    First of the labels `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`;
    else `latest`.
    """
    return _first(labels, _REVISION_LABELS) or Derived("latest", "labels without a version")


def workload_name(labels: Mapping[str, str], pod_name: str | None) -> Derived | None:
    """The name of the Deployment, Rollout, StatefulSet, CronJob or Job that made this pod, or `None`."""
    return (
        _first(labels, (_WORKLOAD_LABEL,))
        or _by_template_hash(labels, pod_name or "")
        or _by_ordinal(labels)
        or _by_job(labels)
    )


def _by_template_hash(labels: Mapping[str, str], pod_name: str) -> Derived | None:
    for label in _HASH_LABELS:
        template_hash = labels.get(label)
        if template_hash:
            name, found, rest = pod_name.rpartition(f"-{template_hash}")
            if found and name and _RANDOM.fullmatch(rest):
                return Derived(name, f"label {label} and pod_name")
    return None


def _by_ordinal(labels: Mapping[str, str]) -> Derived | None:
    match = _ORDINAL.fullmatch(labels.get(_STATEFUL_SET_LABEL, ""))
    return Derived(match[1], f"label {_STATEFUL_SET_LABEL}") if match else None


def _by_job(labels: Mapping[str, str]) -> Derived | None:
    job = _first(labels, _JOB_LABELS)
    match = _CRON_JOB.fullmatch(job.value) if job else None
    return job._replace(value=match[1]) if job and match else job


def _first(labels: Mapping[str, str], names: tuple[str, ...]) -> Derived | None:
    for name in names:
        value = labels.get(name)
        if value:
            return Derived(value, f"label {name}")
    return None
