"""Hydra's and OmegaConf's complaints in our words: the key, what is wrong with it, and what could stand there."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from sahub.config.choices import GROUPS, conf_dir, group_choices
from sahub.config.grammar import PLAIN, one_line, quoted
from sahub.config.ranges import allowed, keys
from sahub.config.settings import Settings
from sahub.config.suites import suites_of
from sahub.errors import ConfigError, SahubError, did_you_mean, disk_trouble, listed

COMPLAINTS = (HydraException, OmegaConfBaseException)
TROUBLE = (*COMPLAINTS, SahubError, OSError)  # what commands end with in a few lines
TYPES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list such as [a,b]",
    dict: "a mapping such as {a: b}",
    NoneType: "null",
}


def explain(error: Exception, roots: Sequence[Path]) -> str:
    """One or two lines for a person; `roots` are the folders that hold configuration files."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error.missing_cfg_file, roots)
    if ambiguous := re.match(r"Ambiguous value for argument '(.*)'", text):
        return f"{one_line(ambiguous[1])}: more than one value, which needs -m (or --multirun); a list is written [a,b]"
    if isinstance(error, OverrideParseException):
        return _unparsed(str(error.override), text)
    if "requires --multirun" in text:
        override = text.partition("'")[2].rpartition("'")[0] or text
        return f"{one_line(override)}: more than one value, which needs -m (or --multirun)"
    links = [link for link in _chain(error) if isinstance(link, OmegaConfBaseException) and link.full_key]
    for link in links:
        if isinstance(link, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(str(link.full_key), _typed(text) or str(link.full_key))
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], _typed(text) or found[1])
    if links:
        return _wrong_value(str(links[0].full_key), str(links[0]).splitlines()[0], _typed(text))
    lines = [line.strip() for link in _chain(error) for line in str(link).splitlines() if line.strip()]
    return "\n".join(dict.fromkeys(lines[:3]))


@contextmanager
def composing(roots: Sequence[Path] = ()) -> Iterator[None]:
    """What Hydra complains of inside is a ConfigError; `roots` are the folders of configuration files beside ours."""
    try:
        yield
    except SahubError:
        raise
    except COMPLAINTS as error:
        raise ConfigError(explain(error, [conf_dir(), *roots])) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_broken(roots)}: not UTF-8 (byte {error.start})") from error
    except OSError as error:  # OmegaConf's own, of a file that holds a number, a set, ..., has no number of its own
        if error.errno is not None:
            raise
        raise ConfigError(f"{_broken(roots)}: must be a mapping of keys to values") from error
    except RecursionError as error:
        raise ConfigError(f"{_broken(roots)}: refers to itself") from error
    except AssertionError as error:  # Hydra's own
        raise ConfigError(f"{_broken(roots)}: defaults must be a list of texts, `name` or `group: name`") from error
    except (ValueError, TypeError, YAMLError) as error:  # Hydra's own, of a broken file
        raise ConfigError(" ".join(f"{error}".split())[:600] or type(error).__name__) from error


def _broken(roots: Sequence[Path]) -> Path | str:
    """The first configuration file that cannot be read as one: Hydra does not say which it read."""
    for file in (file for root in roots for file in sorted(root.rglob("*.yaml"))):
        try:
            held = OmegaConf.load(file)
        except (UnicodeDecodeError, OSError, RecursionError):
            return file
        except (OmegaConfBaseException, ValueError, TypeError, YAMLError):  # which say it themselves
            continue
        asked = OmegaConf.select(held, "defaults") if OmegaConf.is_dict(held) else None
        groups = [one for one in asked if OmegaConf.is_dict(one)] if isinstance(asked, ListConfig) else []
        if not all(isinstance(group, str) for one in groups for group in one):
            return file
    return "a configuration file"


def said(error: Exception) -> str:
    """A few lines for a person about any of TROUBLE."""
    if isinstance(error, COMPLAINTS):
        return explain(error, [conf_dir()])
    return (disk_trouble(error) or str(error)).rstrip()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unparsed(override: str, complaint: str) -> str:
    """Signs that mean something in a value, and how they are typed as a text."""
    cure = quoted(override)
    signs = "".join(dict.fromkeys(sign for sign in override.partition("=")[2] if not PLAIN.fullmatch(f"a{sign}")))
    if cure is None or not signs or not cure.isprintable():
        return f"{one_line(override)}: is not of the form key=value ({one_line(complaint.splitlines()[0])})"
    named = " ".join("space" if sign.isspace() else sign for sign in signs)
    return f"{override}: {named} cannot stand in a value without quotes; type {shlex.quote(cure)}"


def _typed(text: str) -> str:
    """The override as it was typed, where Hydra's message quotes it."""
    found = re.search(r"(?:Error merging override |To append to your (?:config|default list) use )(\S.*)", text)
    return one_line(found[1].lstrip("+")) if found else ""


def _unknown_choice(file: str, roots: Sequence[Path]) -> str:
    group, _, name = one_line(file).removesuffix(".yaml").partition("/")
    choices = group_choices(group, roots)
    if not choices:
        return f"{one_line(file)}: no such configuration file in {listed([str(root) for root in roots])}"
    close = did_you_mean(name, choices)
    own = [choice for choice in choices if choice.startswith(f"{name.partition('/')[0]}/")]
    if group == "task":
        choices = [*(own or choices), *suites_of(own or choices)]
    return f"{group}={name}: no such {group}{close}\nchoices: {listed(choices)}"


def _unknown_key(path: str, typed: str) -> str:
    if path in GROUPS:
        return f"{typed}: {path} has no default to replace; write +{typed}"
    known = [key for key, _ in keys(Settings)]
    section = path.rpartition(".")[0]
    inside = [key for key in known if key.startswith(f"{section}.")] if section else []
    while section and not inside:
        section = section.rpartition(".")[0]
        inside = [key for key in known if key.startswith(f"{section}.")]
    names = inside or sorted({*GROUPS, *(key.partition(".")[0] for key in known)})
    return f"{typed}: no such key{did_you_mean(path, [*names, *known])}\nkeys: {listed(names)}"


def _wrong_value(path: str, complaint: str, typed: str) -> str:
    """What must stand at a key whose value has the wrong type or cannot be resolved."""
    if path in {"hydra.run.dir", "hydra.sweep.dir"}:
        return f"results_dir: no folder can be made in it ({complaint})"
    item = dict(keys(Settings)).get(path)
    if item is None or "interpolation" in complaint.lower():
        return f"{typed or path}: {complaint}"
    kinds = get_args(item.type) if isinstance(item.type, UnionType) else (item.type,)
    words = " or ".join(TYPES.get(get_origin(kind) or kind, str(kind)) for kind in kinds)
    bounds = allowed(item.metadata)
    return f"{typed or path}: must be {words}{', ' if bounds else ''}{bounds}"
