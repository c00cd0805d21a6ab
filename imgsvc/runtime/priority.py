"""Priority: work that a client is waiting for goes first.

It overtakes the queues of other work, and does not wait for a group of writes to fill. The mark lies in
the context of a task, so that callees need no extra parameter.
"""

from contextvars import ContextVar

PRIORITY: ContextVar[bool] = ContextVar("priority", default=False)
"""Whether the current task has priority."""
