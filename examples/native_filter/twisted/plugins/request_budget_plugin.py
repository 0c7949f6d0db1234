"""Makes the filter known to twisted.plugin: any `twisted/plugins` folder on PYTHONPATH is looked into."""

from request_budget import RequestBudget

request_budget = RequestBudget()
