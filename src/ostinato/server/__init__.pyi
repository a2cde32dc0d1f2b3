from .app import application
from .body_fields import RequestError
from .flow_scheduler import FlowScheduler
from .request_plan import Defaults
from .scheduler import Scheduler

__all__ = [
    "Defaults",
    "FlowScheduler",
    "RequestError",
    "Scheduler",
    "application",
]
