"""The type checker of the test suite: refuses arguments and results that do not fit their annotation."""

from beartype import BeartypeConf, beartype

# Where a float is asked for, an int will do (PEP 484).
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
