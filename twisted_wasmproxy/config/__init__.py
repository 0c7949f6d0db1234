"""Configuration: YAML to typed, validated values; every error names file, line and key."""

from twisted_wasmproxy.config.errors import ConfigurationError, Problem
from twisted_wasmproxy.config.loader import load
from twisted_wasmproxy.config.model import Configuration, Location

__all__ = ["Configuration", "ConfigurationError", "Location", "Problem", "load"]
