"""Plans, runs and stores: everything between a command and its files.

The package is also the function `ltrobust.bench`, see `callable_package`.
"""

import sys

from ltrobust.callable_package import CallablePackage

sys.modules[__name__].__class__ = CallablePackage
