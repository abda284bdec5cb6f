"""
Where settings come from: one place a file, each with a function that returns what it finds there.

    arguments             what the caller of `MeshSettings` gave
    variables             MESHAWARE_* first, then the conventional names
    resource_attributes   OTEL_RESOURCE_ATTRIBUTES
    podinfo               the app's own downward-API files
    kubernetes            what Kubernetes gives every pod: the service account's directory, one variable
    linkerd               LINKERD_AWAIT_DISABLED
    derived               what follows from all of these

`settings.gather` asks them in this order, and the first that knows a field is right. None of them checks
a value, none raises: what cannot be read stands as `Unusable` in its place.
"""

from __future__ import annotations
