"""A model as an OpenAI-compatible server, with checks while it writes."""

from ostinato.serve.app import application
from ostinato.serve.desk import Defaults, Desk
from ostinato.serve.keys import RequestError

__all__ = ["Defaults", "Desk", "RequestError", "application"]
