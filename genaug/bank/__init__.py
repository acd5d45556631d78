"""Pools of synthetic samples on disk, with where they came from."""

from genaug.bank.refreshing import RefreshingBank
from genaug.bank.sample_bank import SampleBank

__all__ = ["RefreshingBank", "SampleBank"]
