"""Public: the exponential of eight lanes, for links of your own."""

from .registers.exp import exp as exp
