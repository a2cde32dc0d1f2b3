"""A model as an OpenAI-compatible server, with checks while it writes."""

from ostinato.serve.app import application
from ostinato.serve.desk import Desk
from ostinato.serve.keys import RequestError
from ostinato.serve.plan import Defaults

__all__ = ["Defaults", "Desk", "RequestError", "application"]
