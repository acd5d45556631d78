"""What to keep of a generator's samples: filters for banks, which also tell how much of every class they accept."""

from genaug.filters.base import SampleFilter
from genaug.filters.classifier import ClassifierAgreement, NotACopy, PrototypeBand
from genaug.filters.rejection import DiscriminatorRejection

__all__ = ["ClassifierAgreement", "DiscriminatorRejection", "NotACopy", "PrototypeBand", "SampleFilter"]
