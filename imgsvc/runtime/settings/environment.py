"""What the environment says: which variables are settings of ours, and what they hold.

``IMGSVC_<SECTION>__<KEY>`` and the plain names are. Everything else that begins like ours is not:
Kubernetes and Docker put names such as ``IMGSVC_PORT=tcp://10.0.0.1:3000`` and
``IMGSVC_SERVICE_HOST`` beside every container, one set for each service of the namespace
(https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). With
``_FILE`` behind it, a name says which file holds the value, as orchestrators mount secrets.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

PREFIX = "IMGSVC_"
_IN_FILE = "_FILE"
_MOST_FILE_BYTES = 1024 * 1024

# What is injected for a service, in place of a number or a host of ours.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_LINKED = frozenset({"PORT", "REDIS_HOST", "REDIS_PORT"})
# Names that are injected for a service whose name begins like ours.
_INJECTED = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?$"
    r"|_NAME$|_ENV_\w+$"
)

Place = tuple[str, str]  # section and key


@dataclass(frozen=True)
class Variable:
    """A variable that sets something.

    Attributes:
        name: the variable, as the operator wrote it.
        text: its value, or that of the file it names.
        from_file: whether a file holds it; then errors must not show it.
    """

    name: str
    text: str
    from_file: bool = False


def read(
    environment: Mapping[str, str],
    plain_names: Mapping[str, Place],
    sections: Mapping[str, Collection[str]],
) -> dict[Place, Variable]:
    """What a set of variables says, by section and key; the plain names win.

    Args:
        environment: the variables.
        plain_names: names without a prefix, and what each sets.
        sections: the keys of each section.

    Raises:
        ValueError: a section is unknown, two names contradict each other, or a file cannot be
            read. One line, which holds no value.
    """
    prefixed = _prefixed(environment, sections)
    return prefixed | _plain(environment, plain_names)


def name_of(
    environment: Mapping[str, str], plain_names: Mapping[str, Place], place: Place
) -> str | None:
    """Which variable says a setting, the strongest if several do; no file is read for that.

    Args:
        environment: the variables.
        plain_names: as for ``read``.
        place: section and key.
    """
    plain = (name for name, at in plain_names.items() if at == place)
    prefixed = f"{PREFIX}{place[0]}__{place[1]}".upper()
    set_here = {name.upper(): name for name, value in environment.items() if value}
    for name in (*plain, prefixed):
        for written in (name, name + _IN_FILE):
            link = name in _LINKED and _SERVICE_LINK.match(environment.get(written, ""))
            if written in set_here and not link:
                return set_here[written]
    return None


def overlooked(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Variables that begin like settings and are none, nor injected: somebody may have meant one.

    Args:
        environment: the variables.
        known: names with our prefix that mean something else.
    """
    return sorted(
        name
        for name, value in environment.items()
        if name.upper().startswith(PREFIX)
        and "__" not in name
        and name not in known
        and not _INJECTED.search(name.upper())
        and not _SERVICE_LINK.match(value)
    )


def _prefixed(
    environment: Mapping[str, str], sections: Mapping[str, Collection[str]]
) -> dict[Place, Variable]:
    found: dict[Place, Variable] = {}
    unknown = []
    for name, value in environment.items():
        section, two, key = name.lower().removeprefix(PREFIX.lower()).partition("__")
        if not name.upper().startswith(PREFIX) or not two:
            continue
        if section not in sections:
            unknown.append(name)
            continue
        # A key may end in "_file" itself: then its name is the setting's.
        bare = key.removesuffix(_IN_FILE.lower())
        if key != bare and key not in sections[section] and bare in sections[section]:
            if not value:
                continue
            variable, key = _in_file(name, value), bare
        else:
            variable = Variable(name, value)
        other = found.get((section, key))
        if other and other.text and variable.text and other.from_file != variable.from_file:
            raise ValueError(_both(other.name, name))
        if not other or variable.text:
            found[section, key] = variable
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: no such section; there are "
            f"{', '.join(sections)} (IMGSVC_<SECTION>__<KEY>)"
        )
    return found


def _plain(
    environment: Mapping[str, str], plain_names: Mapping[str, Place]
) -> dict[Place, Variable]:
    found: dict[Place, Variable] = {}
    for name, place in plain_names.items():
        for variable in _variables(environment, name):
            other = found.setdefault(place, variable)
            if other.text.strip() != variable.text.strip():
                raise ValueError(f"{other.name} and {variable.name} differ; leave one of them out")
    return found


def _variables(environment: Mapping[str, str], name: str) -> Iterator[Variable]:
    """What a plain name sets; empty means unset, as compose files pass variables through."""
    value, path = environment.get(name), environment.get(name + _IN_FILE)
    if value and name in _LINKED and _SERVICE_LINK.match(value):
        value = None
    if value and path:
        raise ValueError(_both(name, name + _IN_FILE))
    if value:
        yield Variable(name, value)
    if path:
        yield _in_file(name + _IN_FILE, path)


def _both(one: str, other: str) -> str:
    return f"{one} and {other} are both set; leave one of them out"


def _in_file(name: str, path: str) -> Variable:
    """The value in a file, without the line's end that editors and ``echo`` leave there."""
    # Who puts the secret itself here is not to find it in a log.
    place = f"{name} = {path if '/' in path and '://' not in path else '***'}"
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{place}: not a regular file")
            content = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{place}: {error.strerror}") from None
    if len(content) > _MOST_FILE_BYTES:
        raise ValueError(f"{place}: the file has more than {_MOST_FILE_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{place}: the file is not UTF-8") from None
    if not text:
        raise ValueError(f"{place}: the file is empty")
    if "\0" in text:
        raise ValueError(f"{place}: the file holds a NUL character")
    return Variable(name, text, from_file=True)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to
