from .app import application
from .body_fields import RequestError
from .request_plan import Defaults
from .scheduler import Scheduler

__all__ = [
    "Defaults",
    "RequestError",
    "Scheduler",
    "application",
]
