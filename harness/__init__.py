"""harness: decides, from measurement, whether a distilled model can replace its teacher."""

__version__ = "0.1.0"
