"""What a Spark session's settings allow: connections of our own, barrier stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkopt.errors import IncompatibleError
from sparkopt.launch.encryption import can_encrypt
from sparkopt.values import dataclass

__all__ = ["SessionSettings", "refuse_barrier", "refuse_encryption", "refuse_group", "settings_of"]

_ENCRYPTION = ("spark.network.crypto.enabled", "spark.ssl.rpc.enabled", "spark.authenticate.enableSaslEncryption")
_DYNAMIC_ALLOCATION = "spark.dynamicAllocation.enabled"
_DURATION = "spark.speculation.task.duration.threshold"


class _Read:
    """The SparkContext whose settings were read last, and these: to read them takes a call of the JVM for each."""

    last: tuple[Any, Any] = (None, None)  # replaced as one, since threads fit at the same time


def settings_of(context: Any) -> Any:
    """Return the settings of a SparkContext, which do not change while it runs; ``get`` takes a key and a default."""
    last = _Read.last
    if last[0] is not context:
        last = _Read.last = context, context.getConf()
    return last[1]


@dataclass(frozen=True)
class SessionSettings:
    """The settings that rule something out; each is the name of the setting with its value, or None.

    Attributes
    ----------
    encryption : str or None
        Spark encrypts what its processes send each other, and so do connections of our own; Gloo cannot.
    dynamic_allocation : str or None
        Spark adds and removes executors, and refuses barrier stages.
    duplicates : str or None
        Spark starts a second copy of a task that takes long, even of one that is alone in its stage.
    """

    encryption: str | None = None
    dynamic_allocation: str | None = None
    duplicates: str | None = None

    @classmethod
    def of(cls, read: Callable[[str, str], str]) -> SessionSettings:
        """Return what the settings say; ``read`` takes a key and a default, and returns the value."""

        def on(key: str) -> str | None:
            return f"{key}=true" if read(key, "false").strip().lower() == "true" else None

        threshold = read(_DURATION, "").strip()
        return cls(
            next((found for key in _ENCRYPTION if (found := on(key))), None),
            on(_DYNAMIC_ALLOCATION),
            f"{_DURATION}={threshold}" if threshold and on("spark.speculation") else None,
        )

    @classmethod
    def of_context(cls, context: Any) -> SessionSettings:
        """Return those of a SparkContext."""
        return cls.of(settings_of(context).get)

    @classmethod
    def of_session(cls, session: Any) -> SessionSettings:
        """Return those of a session of Spark Connect, as far as its server shows them."""
        from pyspark.errors import PySparkException

        def read(key: str, default: str) -> str:
            try:
                return str(session.conf.get(key, default))
            except PySparkException:  # serverless shows a few of its settings only
                return default

        return cls.of(read)

    def barrier_remedy(self) -> str | None:
        """Return what would allow for barrier stages, as an imperative; None where they are allowed."""
        if self.dynamic_allocation is None:
            return None
        return f"set {_DYNAMIC_ALLOCATION}=false, since Spark refuses barrier stages with dynamic allocation"

    def connection_remedy(self) -> str | None:
        """Return what would allow for connections of our own, as an imperative; None where they are allowed."""
        if self.encryption is None or can_encrypt():
            return None
        return f"{self._plain}, and this machine's OpenSSL has no anonymous key exchange to encrypt sparkopt's own"

    def group_remedy(self) -> str | None:
        """Return what would allow for groups of ranks, as an imperative; None where they are allowed."""
        return (
            None if self.encryption is None else f"{self._plain}, and Gloo, by which ranks add up, encrypts nothing"
        )

    @property
    def _plain(self) -> str:
        key = str(self.encryption).partition("=")[0]
        return f"set {key}=false, since it asks for encrypted traffic"

    def lone_task_remedy(self) -> str | None:
        """Return what would keep Spark from a second copy of a task that is alone, as an imperative."""
        if self.duplicates is None:
            return None
        return f"unset {_DURATION}, since Spark would run the whole fit twice at the same time"


def refuse_encryption(context: Any) -> None:
    """Refuse a SparkContext whose traffic is encrypted for a group of ranks, whose sums are not.

    Raises
    ------
    IncompatibleError
        Naming the setting, and what needs no group.
    """
    refuse_group(SessionSettings.of_context(context))


def refuse_group(settings: SessionSettings) -> None:
    """Refuse a session whose traffic is encrypted, by its settings; raises as ``refuse_encryption`` does."""
    _refuse(settings.group_remedy(), "use engine='driver', or 'auto'; of a network, launcher='local'")


def refuse_barrier(settings: SessionSettings) -> None:
    """Refuse a session that has no barrier stages, before Spark does.

    Raises
    ------
    IncompatibleError
        Naming the setting.
    """
    _refuse(settings.barrier_remedy(), "use launcher='local', one process, or 'horovod'")


def _refuse(remedy: str | None, otherwise: str) -> None:
    if remedy is not None:
        raise IncompatibleError(f"this cannot run in this Spark session: {remedy}. Or {otherwise}.")
