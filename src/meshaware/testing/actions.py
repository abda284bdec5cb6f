"""What a VirtualService rule does with a request -> Envoy `Route`. Pure; after Istio's route.go."""

from __future__ import annotations

from typing import Any

from meshaware.testing.fields import Fields
from meshaware.testing.headers import Operations, header_operations
from meshaware.testing.retries import duration, retry_policy
from meshaware.testing.view import DEFAULT_PORT, View, cluster_name

__all__ = ["fill_route", "forward"]

_FAULT = "envoy.filters.http.fault"
_FAULT_TYPE = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
_REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_ALL = 100.0


def forward(cluster: str) -> dict[str, Any]:
    """The action of a route that no VirtualService governs."""
    return {"cluster": cluster, "timeout": "0s", "retry_policy": retry_policy(None), "max_grpc_timeout": "0s"}


def fill_route(route: dict[str, Any], rule: Fields, view: View, namespace: str, host: str) -> None:
    """
    Put the action of one `http[]` rule into an Envoy route.

    Args:
        route: The Envoy route.
        rule: The rule.
        view: The mesh as the sending workload sees it.
        namespace: The VirtualService's.
        host: The host that the route is for, whose port counts where a destination names none.

    Raises:
        LocalMeshError: The rule has a field that is not supported, or that Istio would refuse.
    """
    operations = header_operations(rule.fields("headers"))
    operations.put_into(route)
    redirect, answer = rule.fields("redirect"), rule.fields("directResponse")
    if redirect is not None:
        route["redirect"] = _redirect(redirect)
    elif answer is not None:
        route["direct_response"] = _direct_response(answer)
    else:
        _Action(view, namespace, host).fill(route, rule, operations.authority)
    fault = rule.fields("fault")
    if fault is not None:
        route["typed_per_filter_config"] = {_FAULT: {"@type": _FAULT_TYPE, **_fault(fault)}}


class _Action:
    """The `route` of a rule: where to, for how long, how often."""

    def __init__(self, view: View, namespace: str, host: str) -> None:
        self._view, self._namespace, self._host = view, namespace, host

    def fill(self, route: dict[str, Any], rule: Fields, authority: str) -> None:
        timeout = rule.seconds("timeout")
        until = "0s" if timeout is None else duration(timeout)
        action: dict[str, Any] = {"timeout": until, "max_grpc_timeout": until}
        route["route"] = action
        rewrite = rule.fields("rewrite")
        if rewrite is not None:
            authority = _rewrite(rewrite, action) or authority
        if authority:
            action["host_rewrite_literal"] = authority
        mirrors = self._mirrors(rule)
        if mirrors:
            action["request_mirror_policies"] = mirrors
        self._to(rule, route, action)
        policy = retry_policy(rule.fields("retries"))
        if policy is not None:
            action["retry_policy"] = policy

    def _to(self, rule: Fields, route: dict[str, Any], action: dict[str, Any]) -> None:
        targets = [self._target(destination) for destination in rule.items("route")]
        if not targets:
            rule.refuse("route", "a rule needs a route, a redirect or a directResponse")
        if len(targets) == 1:
            # Istio does what one destination says on the route itself; the route's own authority wins.
            cluster, _, operations = targets[0]
            action["cluster"] = cluster
            operations.put_into(route)
            if operations.authority:
                action.setdefault("host_rewrite_literal", operations.authority)
            return
        weighted: list[dict[str, Any]] = []
        for cluster, weight, operations in targets:
            target: dict[str, Any] = {"name": cluster, "weight": weight}
            operations.put_into(target)
            if operations.authority:
                target["host_rewrite_literal"] = operations.authority
            if weight:
                weighted.append(target)
        if not weighted:
            rule.refuse("route", "the weights of several destinations add up to 0")
        action["weighted_clusters"] = {"clusters": weighted}

    def _target(self, route: Fields) -> tuple[str, int, Operations]:
        operations = header_operations(route.fields("headers"))
        target = self._cluster(route), route.integer("weight") or 0, operations
        route.finish()
        return target

    def _cluster(self, holder: Fields, field: str = "destination") -> str:
        destination = holder.fields(field)
        if destination is None:
            holder.refuse(field, "a destination is needed")
        name, subset = destination.text("host"), destination.text("subset") or ""
        if not name:
            destination.refuse("host", "a host is needed")
        port = destination.fields("port")
        number = port.integer("number") if port is not None else None
        if port is not None:
            port.finish()
        destination.finish()
        host = self._view.resolve(name, self._namespace)
        if number is None:
            service = self._view.service(host) or self._view.service(self._host)
            number = service.port if service else DEFAULT_PORT
        return cluster_name(host, number, subset)

    def _mirrors(self, rule: Fields) -> list[dict[str, Any]]:
        if "mirrors" in rule and "mirror" in rule:
            rule.refuse("mirror", "mirror and mirrors exclude each other")
        whole = [(rule, "mirror", "mirrorPercentage")] if "mirror" in rule else []
        listed = [(mirror, "destination", "percentage") for mirror in rule.items("mirrors")]
        policies: list[dict[str, Any]] = []
        for holder, field, percentage in whole + listed:
            share, cluster = _percentage(holder, percentage), self._cluster(holder, field)
            if share["numerator"]:
                policies.append({"cluster": cluster, "runtime_fraction": {"default_value": share}})
            if holder is not rule:
                holder.finish()
        return policies


def _redirect(redirect: Fields) -> dict[str, Any]:
    code = redirect.integer("redirectCode") or 301
    if code not in _REDIRECTS:
        redirect.refuse("redirectCode", f"is none of {', '.join(map(str, _REDIRECTS))}")
    values = {
        "path_redirect": redirect.text("uri"),
        "host_redirect": redirect.text("authority"),
        "scheme_redirect": redirect.text("scheme"),
        "port_redirect": redirect.integer("port"),
    }
    redirect.finish()
    return {"response_code": _REDIRECTS[code]} | {key: value for key, value in values.items() if value}


def _direct_response(answer: Fields) -> dict[str, Any]:
    status, body = answer.integer("status"), answer.fields("body")
    if status is None or not 200 <= status < 600:
        answer.refuse("status", "is no status from 200 to 599")
    answer.finish()
    if body is None:
        return {"status": status}
    text = body.text("string")
    body.finish()
    return {"status": status, "body": {"inline_string": text or ""}}


def _rewrite(rewrite: Fields, action: dict[str, Any]) -> str | None:
    """Put the rewriting of the path into the action; return the new authority."""
    uri, authority, pattern = rewrite.text("uri"), rewrite.text("authority"), rewrite.fields("uriRegexRewrite")
    rewrite.finish()
    if pattern is not None:
        regex, substitution = pattern.text("match") or "", pattern.text("rewrite") or ""
        pattern.finish()
        action["regex_rewrite"] = {"pattern": {"regex": regex}, "substitution": substitution}
    elif uri:
        # Of a match by regular expression Envoy replaces all that it matched, which is the whole path.
        action["prefix_rewrite"] = uri
    return authority


def _fault(fault: Fields) -> dict[str, Any]:
    result: dict[str, Any] = {}
    delay, abort = fault.fields("delay"), fault.fields("abort")
    if delay is not None:
        fixed = delay.seconds("fixedDelay")
        if fixed is None:
            delay.refuse("fixedDelay", "a fixedDelay is needed")
        result["delay"] = {"fixed_delay": duration(fixed), "percentage": _share(delay)}
        delay.finish()
    if abort is not None:
        status = abort.integer("httpStatus")
        if status is None or not 200 <= status < 600:
            abort.refuse("httpStatus", "is no status from 200 to 599")
        result["abort"] = {"http_status": status, "percentage": _share(abort)}
        abort.finish()
    fault.finish()
    return result


def _share(fault: Fields) -> dict[str, Any]:
    percent = fault.percent("percent")
    return _fraction(percent) if percent is not None else _percentage(fault, "percentage")


def _percentage(holder: Fields, name: str) -> dict[str, Any]:
    percentage = holder.fields(name)
    if percentage is None:
        return _fraction(_ALL)
    value = percentage.percent("value")
    percentage.finish()
    return _fraction(value or 0.0)


def _fraction(percent: float) -> dict[str, Any]:
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}
